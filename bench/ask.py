"""How long an agent waits for what is allowed already: from its call until the file can be read, records included."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from bench import service as services
from bench.options import Options
from bench.process import FailedError
from bench.row import Goal, Row
from bench.service import Service

HELP = "a request that a standing answer allows: from the agent's call until it reads the file"
# As many as an agent may ask at once: its bucket holds sixty.
ROUNDS: Final = 50
_WAIT_S: Final = 30.0
_AGENT: Final = """
import json, sys, time
sys.path[:0] = ["/run/deskwarden/client/code", "/run/deskwarden/client/lib"]
from supervisor.agent.client import AgentClient
from supervisor.agent.values import Ask
path, rounds = sys.argv[1], int(sys.argv[2])
times = []
with AgentClient() as client:
    for number in range(rounds + 1):
        began = time.perf_counter()
        grant = client.obtain(Ask("file:read", path, "to measure", 600))
        open(path, "rb").read()
        times.append((time.perf_counter() - began) * 1000)
        client.release(grant.id)
print(json.dumps(times[1:]))
"""


def measure(options: Options) -> Iterator[Row]:
    """Yield median and the worst but one in a hundred, in ms."""
    rounds = min(options.rounds_or(ROUNDS), ROUNDS)
    base = tempfile.mkdtemp(prefix="deskwarden-bench-ask-", dir="/var/tmp")
    try:
        with services.running() as service:
            values = sorted(_asked(service, base, rounds))
    finally:
        shutil.rmtree(base)
    yield Row("ask.p50", values[len(values) // 2], "ms", rounds, "", None, Goal(8, "ms"))
    yield Row("ask.p99", values[len(values) * 99 // 100], "ms", rounds, "", None, Goal(30, "ms"))


def _asked(service: Service, base: str, rounds: int) -> list[float]:
    workspace, path = f"{base}/work", f"{base}/data/figures.csv"
    os.makedirs(workspace)
    os.makedirs(os.path.dirname(path))
    with open(path, "w", encoding="utf-8") as file:
        file.write("1,2,3\n" * 100)
    answers = threading.Thread(target=_say_yes, args=(service,))
    answers.start()
    argv = ["/usr/bin/python3", "-IBS", "-c", _AGENT, path, str(rounds)]
    session, _launch_ms, _whole_ms = service.run(argv, workspace)
    answers.join()
    with open(f"{service.places.state}/logs/{session}.log", "rb") as log:
        text = log.read()
    return list(json.loads(text[text.index(b"[") : text.rindex(b"]") + 1]))


def _say_yes(service: Service) -> None:
    """Answer the first question, for as long as the session lasts; policy answers the others."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        waiting: list[dict[str, Any]] = service.ask({"verb": "requests"})["requests"]
        if waiting:
            fields = {key: waiting[0][key] for key in ("id", "request_digest", "shown_digest")}
            answer = service.ask({"verb": "answer", "answer": "session", **fields})
            if answer.get("event") != "result":
                raise FailedError(f"the answer was not taken: {answer}")
            return
        time.sleep(0.02)
    raise FailedError(f"the agent asked for nothing within {_WAIT_S:.0f} s")
