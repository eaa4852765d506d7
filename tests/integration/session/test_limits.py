"""Limits on what a session may take: staged bytes, one file, processes, memory, time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.service import Service, serving


@pytest.fixture(scope="module")
def small_service() -> object:
    """A service whose owner has a profile of their own with small limits."""
    with serving() as one:
        if not one.is_system:
            directory = Path(one.home) / ".config/deskwarden/profiles.d"
            directory.mkdir(parents=True)
            (directory / "small.yaml").write_text(
                "name: small\ndescription: small\nextends: strict\nlimits:\n  staged: 32MiB\n  pids: 64\n"
            )
        yield one


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a profile in a home of its own; runs as an ordinary user")
def test_a_session_above_its_staged_limit_ends_and_keeps_its_files(small_service: Service) -> None:
    workspace = small_service.folder()
    script = "for i in $(seq 40); do head -c 4M /dev/zero > f$i; sleep 0.05; done; echo not reached"
    result = small_service.run("run", "-p", "small", "--", "bash", "-c", script, cwd=workspace)
    assert result.returncode == 137
    assert b"not reached" not in result.stdout
    assert b"the profile allows 32 MiB" in result.stderr
    assert small_service.changes()
    assert not list(workspace.iterdir())


def test_one_file_above_the_limit_is_refused_at_once(service: Service, workspace: Path) -> None:
    script = "dd if=/dev/zero of=big bs=1M seek=65536 count=1 2>&1; echo status $?"
    result = service.run("run", "--", "bash", "-c", script, cwd=workspace)
    assert b"status 0" not in result.stdout
    assert not (workspace / "big").exists()


def test_a_fork_bomb_ends_at_its_limit_and_the_daemon_answers_meanwhile(service: Service, workspace: Path) -> None:
    bomb = "import os, time\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(0.2)\n"
    session = service.start_session("--pids", "100", "--", "/usr/bin/python3", "-c", bomb, cwd=workspace)
    time.sleep(1.0)
    began = time.monotonic()
    result = service.run("run", "--", "echo", "answered", cwd=service.folder())
    assert result.stdout == b"answered\n"
    assert time.monotonic() - began < 20
    inside = service.json("ps")
    assert session in [item["id"] for item in inside]
    assert service.run("kill", session).returncode == 0
    assert service.session(session)["state"] == "ended"


def test_memory_beyond_the_limit_is_refused_to_the_agent(service: Service, workspace: Path) -> None:
    code = "b = bytearray(600 << 20)"
    small = service.run("run", "--memory", "300m", "--", "/usr/bin/python3", "-c", code, cwd=workspace)
    assert small.returncode in (1, 137)
    assert service.run("run", "--memory", "2g", "--", "/usr/bin/python3", "-c", code, cwd=workspace).returncode == 0


def test_a_flag_may_lower_a_limit_but_not_raise_it(service: Service, workspace: Path) -> None:
    result = service.run("run", "--memory", "900g", "--", "true", cwd=workspace)
    assert result.returncode == 126
    assert b"--memory" in result.stderr


def test_a_session_ends_when_its_time_is_over(service: Service, workspace: Path) -> None:
    began = time.monotonic()
    result = service.run("run", "--for", "1s", "--", "sleep", "60", cwd=workspace)
    assert result.returncode == 143
    assert b"its time of 1 s was over" in result.stderr
    assert 0.9 < time.monotonic() - began < 15


def test_a_service_without_open_files_left_refuses_by_name_and_loses_no_session() -> None:
    with serving(prefix=("prlimit", "--nofile=600:600", "--")) as small:
        workspace = small.folder()
        started: list[str] = []
        result = small.run("run", "-d", "--", "sleep", "60", cwd=workspace)
        while result.returncode == 0 and len(started) < 20:
            started.append(result.stdout.decode().strip())
            result = small.run("run", "-d", "--", "sleep", "60", cwd=workspace)
        assert 5 < len(started) < 20
        assert (result.returncode, b"open files for" in result.stderr) == (125, True), result
        assert {item["id"] for item in small.json("ps")} == set(started)
        assert small.run("stop", "--all").returncode == 0
        assert small.json("ps") == []
        assert small.run("run", "--", "true", cwd=workspace).returncode == 0
