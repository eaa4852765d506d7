"""Limits of the whole tree, where systemd hands the service's control group on to it (Delegate=yes)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.linux import cgroup
from tests.service import Service, program, serving


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root: an ordinary user's own units need a user manager"
    if not Path("/run/systemd/system").is_dir():
        return "systemd is not the first process here"
    offered = Path(cgroup.hierarchy() or "/nonexistent", "cgroup.controllers")
    return "" if "memory" in offered.read_text().split() else "the version 2 hierarchy has no memory controller here"


pytestmark = pytest.mark.skipif(bool(_why_not()), reason=_why_not())


@pytest.fixture(scope="module")
def delegated() -> Iterator[Service]:
    with serving(prefix=("systemd-run", "--scope", "--quiet", "--property=Delegate=yes", "--")) as one:
        yield one


def test_the_service_limits_its_sessions_as_a_whole(delegated: Service) -> None:
    session = delegated.start_session("--memory", "64m", "--pids", "50", "--", "sleep", "60", cwd=delegated.folder())
    report = delegated.session(session)["report"]
    assert {"memory", "pids"} <= set(report["limits"].removeprefix("cgroup: ").split(", "))
    assert "cgroup-limits" not in report["missing_preferred"]
    group = Path(cgroup.hierarchy() or "", cgroup.own_group(delegated.session(session)["pid"]).lstrip("/"))
    assert (group / "memory.max").read_text() == f"{64 << 20}\n"
    assert (group / "pids.max").read_text() == "50\n"
    assert delegated.run("kill", session).returncode == 0


def test_out_of_memory_is_137_and_says_so(delegated: Service) -> None:
    hog = program("x = bytearray(1 << 30)\nfor at in range(0, len(x), 4096): x[at] = 1")
    result = delegated.run("run", "--memory", "64m", "--", *hog, cwd=delegated.folder())
    assert result.returncode == 137, result
    assert b"out of memory" in result.stderr


def test_memory_of_many_processes_counts_together(delegated: Service) -> None:
    child = "x = bytearray(24 << 20)\\nfor at in range(0, len(x), 4096): x[at] = 1\\nimport time; time.sleep(5)"
    script = f"for n in 1 2 3 4 5; do printf '{child}' | /usr/bin/python3 - & done; wait; sleep 1"
    session = delegated.start_session("--memory", "64m", "--", "sh", "-c", script, cwd=delegated.folder())
    group = Path(cgroup.hierarchy() or "", cgroup.own_group(delegated.session(session)["pid"]).lstrip("/"))
    peak = 0
    while delegated.session(session)["state"] == "running":
        try:
            peak = max(peak, int((group / "memory.current").read_text()))
        except FileNotFoundError:
            break
    assert 0 < peak <= 64 << 20


def test_a_fork_bomb_ends_at_its_group_and_nobody_elses(delegated: Service) -> None:
    bomb = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.2)\n"
    session = delegated.start_session("--pids", "50", "--", "/usr/bin/python3", "-c", bomb, cwd=delegated.folder())
    result = delegated.run("run", "--", "echo", "answered", cwd=delegated.folder())
    assert result.stdout == b"answered\n"
    assert delegated.run("kill", session).returncode == 0
