"""The command that prints a secret: bounded, alone, and silent about what it printed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from supervisor.errors import RefusedError
from supervisor.workspace.secret_command import MAX_BYTES, answer_secret_command, run


def test_its_output_comes_through_a_pipe_without_its_last_newline(tmp_path: Path) -> None:
    answer, (fd,) = answer_secret_command({"command": "printf 'a\\nb\\n\\n'", "home": str(tmp_path)}, [])
    assert answer == {"size": 4}
    assert os.read(fd, 100) == b"a\nb\n"
    os.close(fd)


def test_as_much_as_a_pipe_holds_is_taken_and_not_a_byte_more(tmp_path: Path) -> None:
    command = f"head -c {MAX_BYTES} /dev/zero"
    answer, (fd,) = answer_secret_command({"command": command, "home": str(tmp_path)}, [])
    os.close(fd)
    assert answer == {"size": MAX_BYTES}
    with pytest.raises(RefusedError, match="more than"):
        run("yes", str(tmp_path))


def test_what_it_printed_is_in_no_error(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="failed with 3") as caught:
        run("echo hush; echo hush >&2; exit 3", str(tmp_path))
    assert "hush" not in f"{caught.value.message} {caught.value.next_step}"


def test_one_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(RefusedError, match="longer"):
        run(f"sleep 60 & echo $! > {tmp_path}/pid; sleep 60", str(tmp_path), 0.5)
    assert time.monotonic() - start < 20
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists() and "Z" not in state_of(pid):
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or "Z" in state_of(pid)


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_one_that_prints_nothing_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="nothing"):
        run("true", str(tmp_path))


def test_it_sees_an_environment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_OF_THE_DAEMON", "x")
    names = {line.partition(b"=")[0] for line in run("env", str(tmp_path)).splitlines()}
    assert b"HOME" in names
    assert b"LD_PRELOAD_OF_THE_DAEMON" not in names
