"""How long a decision takes: the daemon's round trip to a confined policy worker with the default bundle."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.options import Options
from bench.row import Goal, Row
from supervisor.daemon.policy_client import WorkerEngine
from supervisor.linux import seqpacket
from supervisor.policy.bundle_source import default_directory, read_bundle
from supervisor.policy.document import encode
from supervisor.policy.matrix import BASE
from supervisor.policy.regorus_engine import RegorusEngine
from supervisor.policy.worker_filter import CALLS, compile_calls
from supervisor.session.channel import Channel

HELP = "a decision of the default policy: worker round trip, and the evaluation in it"
ROUNDS = 5000
_WARM_UP = 200
_DEADLINE_S = 5.0  # a machine that is busy is measured, not restarted
_PROGRAM = "import sys; from supervisor.policy import worker; worker.main(int(sys.argv[1]))"


def measure(options: Options) -> Iterator[Row]:
    """Yield median and 99th percentile in ms."""
    rounds = options.rounds_or(ROUNDS)
    bundle = read_bundle(default_directory())
    document = encode(dict(BASE))
    engine = RegorusEngine(bundle.modules, bundle.document)
    alone = []
    for _ in range(rounds + _WARM_UP):
        begun = time.perf_counter()
        engine.evaluate(document)
        alone.append((time.perf_counter() - begun) * 1000)
    values = asyncio.run(_round_trips(document, rounds))
    against = "evaluation alone"
    yield Row("decide.p50", statistics.median(values), "ms", rounds, against, statistics.median(alone), Goal(0.3, "ms"))
    yield Row("decide.p99", _high(values), "ms", rounds, against, _high(alone), Goal(3, "ms"))


def _high(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


async def _round_trips(document: bytes, rounds: int) -> list[float]:
    running: list[subprocess.Popen[bytes]] = []

    async def start() -> Channel:
        ours, theirs = seqpacket.pair()
        command = [sys.executable, "-c", _PROGRAM, str(theirs.fileno())]
        root = str(Path(__file__).parents[1])
        running.append(subprocess.Popen(command, pass_fds=(theirs.fileno(),), cwd=root))  # noqa: ASYNC220
        theirs.close()
        return Channel(ours)

    engine = WorkerEngine(start, lambda: running[-1].kill(), compile_calls(CALLS), _DEADLINE_S)  # noqa: PLW0108 - there is none yet
    values = []
    try:
        await engine.load(read_bundle(default_directory()))
        for number in range(rounds + _WARM_UP):
            begun = time.perf_counter()
            await engine.evaluate(document)
            if number >= _WARM_UP:
                values.append((time.perf_counter() - begun) * 1000)
    finally:
        engine.close()
        for process in running:
            process.wait()
    return values
