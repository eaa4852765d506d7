"""Launch, daemon side: from a plan that is ready until the exit event, all layers on.

Against bubblewrap with the same mount list, namespaces and system call filter, from spawn to reaped. Neither figure
holds a client's start. Between samples the machine rests, so that a launch finds its base built ahead, as a person's
does; `launch.burst` is one launch after the other without rest. `launch.request` adds what comes before and after:
the request, the hand's opening of every path, the plan, the records, the look at what changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from bench import place, rival, samples, service, tools
from bench.options import Options
from bench.process import time_ms
from bench.row import Goal, Row

HELP = "start of a sandbox, daemon side, against bubblewrap with the same mounts"
ROUNDS = 60
_REST_S = 0.08
_COMMAND = ("/usr/bin/true",)


def measure(options: Options) -> Iterator[Row]:
    """Yield the rows; first the one with the goal."""
    rounds = options.rounds_or(ROUNDS)
    bwrap = tools.find("bwrap", "bubblewrap")
    with place.work_folder("launch") as workspace, service.running() as running:
        running.run(_COMMAND, workspace)
        given = rival.arguments(running.plan)
        fds = {number: _memfd(content) for number, content in given.contents.items()}
        whole: list[float] = []

        def deskwarden() -> float:
            _session, launch_ms, whole_ms = running.run(_COMMAND, workspace)
            whole.append(whole_ms)
            return launch_ms

        values = samples.interleave(
            {
                "deskwarden": deskwarden,
                "bwrap": lambda: time_ms([bwrap, *given.words], running.environment, fds),
                "bare": lambda: time_ms([bwrap, "--ro-bind", "/", "/", *_COMMAND], running.environment),
            },
            rounds,
            warm_up=3,
            pause_s=_REST_S,
        )
        burst = samples.interleave({"burst": lambda: running.run(_COMMAND, workspace)[1]}, rounds, warm_up=3)
        for fd in fds.values():
            os.close(fd)
    median = samples.medians(values | {"whole": whole[3:]})
    against = f"{tools.version(bwrap)}, same mounts"
    yield Row("launch", median["deskwarden"], "ms", rounds, against, median["bwrap"], Goal(1.2))
    yield Row("launch.request", median["whole"], "ms", rounds, against, median["bwrap"])
    yield Row("launch.burst", samples.medians(burst)["burst"], "ms", rounds, against, median["bwrap"])
    yield Row("launch.floor", median["bwrap"], "ms", rounds, "bwrap --ro-bind / /", median["bare"])


def _memfd(content: bytes) -> int:
    fd = os.memfd_create("bench", os.MFD_CLOEXEC)
    os.write(fd, content)
    return fd
