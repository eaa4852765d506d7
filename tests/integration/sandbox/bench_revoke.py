"""How long a grant takes, and how long taking it back, in milliseconds: ``python bench_revoke.py [ROUNDS]``.

The session has 50 processes with 100 descriptors each. Taken back is a directory that nobody holds, one that one
process holds, and one that all of them hold. Times are the daemon's: from its call to the launcher's proof.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.integration.sandbox.live import Live, live

PROCESSES: Final = 50
DESCRIPTORS: Final = 100

_CROWD: Final = """
children = []
for _ in range(COUNT):
    a, b = os.pipe()
    c, d = os.pipe()
    pid = os.fork()
    if pid == 0:
        own = [os.open("/usr/bin/env", os.O_RDONLY) for _ in range(DESCRIPTORS)]
        while True:
            code = os.read(a, 4096)
            exec(code)
            os.write(d, b"x")
    os.close(a)
    os.close(d)
    children.append((pid, b, c))
def say(code, to):
    for pid, b, c in to:
        os.write(b, code.encode())
        os.read(c, 1)
"""


def measure(driver: Live, holders: int) -> tuple[float, float, str]:
    """Return how long one grant and its withdrawal took, and how it ended, with *holders* processes in it."""
    folder = driver.folder()
    start = time.perf_counter()
    driver.grant(folder)
    granted_ms = (time.perf_counter() - start) * 1000
    hold = f"held = os.open({str(folder / 'file')!r}, os.O_RDONLY)"
    said = driver.tell(f"say({hold!r}, children[:{holders}])")
    if said is not None:
        raise RuntimeError(said)
    withdrawn = driver.withdraw(folder)
    return granted_ms, float(withdrawn["took_ms"]), f"{withdrawn['ended']} {withdrawn['killed']}"


def crowd(driver: Live) -> None:
    """Start a session with its processes."""
    driver.start()
    said = driver.tell(_CROWD.replace("COUNT", str(PROCESSES)).replace("DESCRIPTORS", str(DESCRIPTORS)))
    if said is not None:
        raise RuntimeError(said)


def figures(rounds: int) -> dict[str, dict[str, float | str]]:
    """Return p50, p99 and the worst of grants, and of withdrawals by number of holders."""
    times: dict[str, list[float]] = {}
    ends: dict[str, str] = {}
    with live() as driver:
        for holders in (0, 1, PROCESSES):
            for turn in range(rounds):
                if turn == 0 or holders:  # the dead do not come back
                    if driver.session:
                        driver.ask("kill", session=driver.session)
                    crowd(driver)
                granted_ms, took_ms, ended = measure(driver, holders)
                times.setdefault("grant", []).append(granted_ms)
                times.setdefault(f"revoke, {holders} holders", []).append(took_ms)
                ends[f"revoke, {holders} holders"] = ended
    return {name: _row(values) | {"ended": ends.get(name, "")} for name, values in times.items()}


def _row(values: list[float]) -> dict[str, float | str]:
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": round(statistics.median(ordered), 1), "p99": round(p99, 1), "max": round(ordered[-1], 1)}


if __name__ == "__main__":
    for name, row in figures(int(sys.argv[1]) if len(sys.argv) > 1 else 20).items():
        sys.stdout.write(f"{name}: {json.dumps(row)}\n")
