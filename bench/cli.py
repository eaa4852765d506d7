"""Launch, user side: `deskwarden run -- true` with the daemon up, as a person waits for it.

Against the command lines of sandbox-runtime and firejail for the same command, each from spawn to reaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from bench import place, samples, service, tools
from bench.options import Options
from bench.process import time_ms
from bench.row import Goal, Row

HELP = "deskwarden run -- true, against sandbox-runtime and firejail"
ROUNDS = 30


def measure(options: Options) -> Iterator[Row]:
    """Yield one row for each of the others."""
    rounds = options.rounds_or(ROUNDS)
    firejail = tools.find("firejail")
    srt, path = tools.sandbox_runtime()
    before = os.getcwd()
    with place.work_folder("cli") as workspace, service.running() as running:
        os.chdir(workspace)
        try:
            srt_environment = running.environment | {"PATH": path}
            jail = [firejail, "--quiet", "--noprofile", "--net=none", "--private", "true"]
            values = samples.interleave(
                {
                    "deskwarden": lambda: time_ms([running.deskwarden, "run", "--", "true"], running.environment),
                    "srt": lambda: time_ms([srt, "true"], srt_environment),
                    "firejail": lambda: time_ms(jail, running.environment),
                },
                rounds,
                warm_up=2,
            )
        finally:
            os.chdir(before)
    median = samples.medians(values)
    against = f"srt {tools.SANDBOX_RUNTIME.rpartition('@')[2]}"
    yield Row("cli", median["deskwarden"], "ms", rounds, against, median["srt"], Goal(0.12))
    jail_goal = Goal(1.5)
    yield Row(
        "cli.firejail", median["deskwarden"], "ms", rounds, tools.version(firejail), median["firejail"], jail_goal
    )
