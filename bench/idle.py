"""200 idle sessions at once: what each costs beyond its agent, and what the service costs with all of them up.

PSS from smaps_rollup, which only root may read of the service's processes; an ordinary user gets RSS, an upper bound,
and the row says so. Kernel memory (namespaces, mounts, page tables) is in neither.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import place, service
from bench.options import Options
from bench.row import Goal, Row

HELP = "200 idle sessions at once: memory of each, and of the service"
SESSIONS = 200
_SETTLE_S = 2.0


def measure(options: Options) -> Iterator[Row]:
    """Yield the rows."""
    count = options.rounds_or(SESSIONS)
    with place.work_folder("idle") as workspace, service.running() as running:
        start = time.perf_counter()
        for _number in range(count):
            _start(running, workspace)
        elapsed_s = time.perf_counter() - start
        time.sleep(_SETTLE_S)
        pids = _first_processes(running.processes()["launcher"])
        kind, inits_kb = _memory(pids)
        kind, service_kb = _memory(list(running.processes().values()))
        running.ask({"verb": "stop", "all": True, "now": True})
    yield Row("idle.alive", len(pids), "sessions", 1, "asked for", count)
    yield Row("idle.session", inits_kb / max(len(pids), 1) / 1024, f"MB {kind}", len(pids), goal=Goal(2, f"MB {kind}"))
    yield Row("idle.service", service_kb / 1024, f"MB {kind}", 1, goal=Goal(120, f"MB {kind}"))
    yield Row("idle.start", elapsed_s * 1000 / count, "ms", count)


def _start(running: service.Service, workspace: str) -> None:
    running.ask(
        {
            "verb": "run",
            "argv": ["/usr/bin/sleep", "infinity"],
            "workspace": workspace,
            "environment": running.environment,
            "detach": True,
        }
    )


def _first_processes(launcher: int) -> list[int]:
    """Return the sessions' first processes that have an agent below them."""
    with open(f"/proc/{launcher}/task/{launcher}/children", encoding="ascii") as file:
        children = [int(word) for word in file.read().split()]
    return [pid for pid in children if _agents(pid)]


def _agents(pid: int) -> list[int]:
    found = []
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        for word in file.read().split():
            with open(f"/proc/{word}/comm", encoding="ascii") as name:
                if name.read().strip() == "sleep":
                    found.append(int(word))
    return found


def _memory(pids: list[int]) -> tuple[str, int]:
    """Return PSS in kB, or RSS where PSS may not be read."""
    try:
        return "PSS", sum(_field(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in pids)
    except PermissionError:
        return "RSS", sum(_field(f"/proc/{pid}/status", "VmRSS:") for pid in pids)


def _field(path: str, name: str) -> int:
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1])
    raise OSError(2, f"{path} has no {name}")
