"""Work inside: the same commands natively, in a staged workspace and with ``--mode direct``.

Timed inside, from the first command's start to the last one's end, so the launch is not in it. Each sample of a staged
workspace is a new session: its upper directory is empty. `work` and `work.direct` are geometric means over the tasks.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bench import place, projects, samples, service
from bench.options import Options
from bench.process import FailedError
from bench.row import Goal, Row
from bench.tools import find

HELP = "git, pytest, rg and a C build inside, against the same natively"
ROUNDS = 7
_PYTHON: Final = "/usr/bin/python3"
# Runs argv[1] untimed and argv[2] timed, with nothing left to write back in between.
_STOPWATCH: Final = """
import json, os, subprocess, sys, time
quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
subprocess.run(["/bin/sh", "-c", sys.argv[1]], **quiet)
os.sync()
start = time.perf_counter()
done = subprocess.run(["/bin/sh", "-c", sys.argv[2]], **quiet)
elapsed_s = time.perf_counter() - start
print(json.dumps({"ms": elapsed_s * 1000, "code": done.returncode, "said": done.stderr.decode()[-300:]}))
"""


@dataclass(frozen=True, slots=True)
class Task:
    """What is done in a folder that *prepare* fills.

    Attributes:
        before: Runs untimed, in the same session: undoes the last sample's work, or does it once.
        counted: Whether it is part of the means.
    """

    name: str
    prepare: Callable[[str], None]
    before: str
    script: str
    counted: bool = True


_SEARCH: Final = "test $(rg --no-config -l needle | wc -l) = 500"
TASKS: Final = (
    Task(
        "git",
        projects.repository,
        "rm -rf clone",
        "git clone -q --no-local origin clone && cd clone && git checkout -q --detach HEAD~1 && git checkout -q main"
        " && test -z $(git status --porcelain | head -c1)",
    ),
    Task(
        "pytest",
        projects.tested_package,
        "find src tests -name __pycache__ -prune -exec rm -r {} +",
        "PYTHONPATH=src .venv/bin/python -m pytest -q -p no:cacheprovider tests",
    ),
    # Warm on both sides: the native kernel caches are from the round before.
    Task("rg", projects.many_files, _SEARCH, _SEARCH),
    # Once a session: the overlay has no inode of its own yet, while the native caches are warm.
    Task("rg-first", projects.many_files, ":", _SEARCH, counted=False),
    Task("build", projects.c_library, "find c -name '*.o' -delete; rm -f libbrotli.a", "make -s -j2"),
)


def measure(options: Options) -> Iterator[Row]:
    """Yield a row for each task and mode, then the means."""
    rounds = options.rounds_or(ROUNDS)
    for program, package in (("git", ""), ("rg", "ripgrep"), ("make", ""), ("gcc", "")):
        find(program, package)
    ratios: dict[str, list[float]] = {"staged": [], "direct": []}
    with service.running() as running:
        for task in TASKS:
            with place.work_folder(task.name) as folder:
                task.prepare(folder)
                values = samples.interleave(_candidates(running, task, folder), rounds)
            median = samples.medians(values)
            for mode in ("staged", "direct"):
                goal = Goal(1.5) if mode == "staged" else None
                row = Row(f"work.{task.name}.{mode}", median[mode], "ms", rounds, "native", median["native"], goal)
                if task.counted:
                    ratios[mode].append(row.value / median["native"])
                yield row
    count = len(ratios["staged"])
    yield Row("work", samples.geometric_mean(ratios["staged"]), "×", count, "native", 1.0, Goal(1.15))
    yield Row("work.direct", samples.geometric_mean(ratios["direct"]), "×", count, "native", 1.0, Goal(1.05))


def _candidates(running: service.Service, task: Task, folder: str) -> dict[str, samples.Sample]:
    return {
        "native": lambda: _native(task, folder),
        "staged": lambda: _inside(running, task, folder, "staged"),
        "direct": lambda: _inside(running, task, folder, "direct"),
    }


def _native(task: Task, folder: str) -> float:
    return _timed(task, [], folder, place.environment())


def _inside(running: service.Service, task: Task, folder: str, mode: str) -> float:
    prefix = [running.deskwarden, "run", "-C", folder, "--mode", mode, "--"]
    value = _timed(task, prefix, folder, running.environment)
    if mode == "staged":  # or its staged files would pile up
        subprocess.run(
            [running.deskwarden, "prune", "--all"], env=running.environment, capture_output=True, check=False
        )
    return value


def _timed(task: Task, prefix: list[str], folder: str, environment: dict[str, str]) -> float:
    command = [*prefix, _PYTHON, "-ISc", _STOPWATCH, task.before, task.script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(f"{task.name}: exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")
    answer = json.loads(done.stdout.splitlines()[0])
    if answer["code"]:
        raise FailedError(f"{task.name}: {' '.join(prefix[1:6]) or 'native'}: {answer['code']}: {answer['said']}")
    return float(answer["ms"])
