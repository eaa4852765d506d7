"""The launcher as reference monitor: it refuses plans that keep anything, names the step that fails, leaves nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
_ROOT = Path(__file__).parents[3]


class Drive:
    """Requests to one driver process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, *argv: str, **fields: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"argv": argv or ("true",), **fields}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the driver ended; see its messages"
        answer: dict[str, Any] = json.loads(line)
        return answer


@pytest.fixture(scope="module")
def drive() -> Iterator[Drive]:
    with tempfile.TemporaryDirectory(prefix="dw-launch-") as base:
        for name in ("store", "work", "home"):
            (Path(base) / name).mkdir()
        (Path(base) / "work" / "old.txt").write_text("old\n")
        process = subprocess.Popen(
            [sys.executable, __file__.replace("test_launcher", "launch_driver"), f"{base}/store", f"{base}/work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(_ROOT), "HOME": f"{base}/home", "PATH": os.environ["PATH"]},
        )
        try:
            yield Drive(process)
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()
            assert process.wait(timeout=20) == 0


def _error(answer: dict[str, Any]) -> dict[str, Any]:
    errors = [message["error"] for message in answer["said"] if message["event"] == "error"]
    assert errors, answer
    error: dict[str, Any] = errors[0]
    return error


def test_a_whole_plan_starts_the_command_without_any_capability(drive: Drive) -> None:
    answer = drive("sh", "-c", "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; cat old.txt")
    assert answer["status"] == 0, answer
    values = dict(line.split(":\t") for line in answer["output"].splitlines()[:-1])
    assert {values[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert values["NoNewPrivs"] == "1"
    assert values["Seccomp"] == "2"
    assert answer["output"].endswith("old\n")
    assert not answer["leftovers_changed"], answer["before_and_after"]


def test_the_agent_has_a_pid_namespace_and_no_other_process_in_sight(drive: Drive) -> None:
    answer = drive("sh", "-c", "ls /proc | grep -c '^[0-9]'; ls /sys 2>&1 | wc -l")
    assert int(answer["output"].split()[0]) <= 5  # init, sh, ls, grep


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"agent": {"uid": 0, "gid": 0, "inner_userns": os.geteuid() != 0}}, "never root"),
        ({"agent": {"gid": 5}}, "no agent uid"),
        ({"agent": {"uid": "1000", "gid": 1000}}, "no agent uid"),
        ({"agent": {"uid": True, "gid": 1000}}, "no agent uid"),
        ({"agent": {"uid": 1000, "gid": 1000, "inner_userns": os.geteuid() == 0}}, "mode"),
        ({"no_new_privs": False}, "no_new_privs"),
        ({"no_new_privs": 1}, "no_new_privs"),
        ({"capabilities": ["CAP_SYS_ADMIN"]}, "keeps capabilities"),
        ({"capabilities": None}, "keeps capabilities"),
        ({"seccomp": ""}, "no seccomp filter"),
        ({"seccomp": "AAAA"}, "no seccomp filter"),
        ({"operations": []}, "no operations"),
        ({"operations": [{"op": "shell", "path": "/bin/sh"}]}, "unknown operation"),
        ({"operations": [{"op": "bind", "source": "/etc/shadow", "path": "/x", "origin": "/x"}]}, "descriptor's index"),
        ({"operations": [{"op": "bind", "source": 4000, "path": "/x", "origin": "/x"}]}, "descriptor's index"),
        ({"operations": [{"op": "bind", "source": True, "path": "/x", "origin": "/x"}]}, "descriptor's index"),
        ({"operations": [{"op": "overlay", "lower": ["/etc"], "path": "/x", "origin": "/x", "options": {}}]}, "index"),
        ({"landlock": [["/", "everything"]]}, "unknown access"),
        ({"command": {"argv": ["sh"], "stdio": [0, 1]}}, "neither a terminal nor three descriptors"),
    ],
)
def test_a_plan_that_keeps_or_names_too_much_is_refused(drive: Drive, change: dict[str, Any], words: str) -> None:
    answer = drive("true", change=change)
    error = _error(answer)
    assert error["kind"] == "RefusedError", error
    assert words in error["message"]
    assert answer["status"] == 125
    assert not answer["alive"]
    assert not answer["leftovers_changed"]


@pytest.mark.parametrize("name", ["agent", "no_new_privs", "capabilities", "seccomp", "operations", "command"])
def test_a_plan_without_a_part_is_refused(drive: Drive, name: str) -> None:
    answer = drive("true", drop=[name])
    assert _error(answer)["kind"] == "RefusedError"
    assert not answer["leftovers_changed"]


def test_a_path_where_a_descriptor_belongs_is_refused(drive: Drive) -> None:
    answer = drive("true", path_source="/usr")
    assert "descriptor's index" in _error(answer)["message"]


def test_each_step_that_fails_is_named_and_leaves_nothing(drive: Drive) -> None:
    total = sum(drive("true")["steps"])
    assert total > 30
    seen = set()
    for number in range(total):
        answer = drive("true", fail_at=number)
        error = _error(answer)
        assert error["kind"] == "LaunchError"
        assert error["errno"] == errno.EIO
        assert "EIO" in error["message"]
        seen.add(error["step"])
        assert answer["status"] == 125
        assert not answer["alive"], error
        assert not answer["leftovers_changed"], error
    assert len(seen) > total * 0.9  # steps say what they are about


def test_each_step_on_a_base_that_was_built_ahead_fails_as_well(drive: Drive) -> None:
    base, own = drive("true", ahead=True)["steps"]
    assert own > 10
    for number in range(base, base + own):
        answer = drive("true", ahead=True, fail_at=number)
        assert answer["had_base"]
        assert _error(answer)["errno"] == errno.EIO
        assert answer["status"] == 125
        assert not answer["leftovers_changed"], answer


def test_a_sandbox_on_a_base_built_ahead_shows_the_same(drive: Drive) -> None:
    look = (
        "cut -d' ' -f4- /proc/self/mountinfo | sed 's,/proc/self/fd/[0-9]*,FD,g; s, 0:[0-9]*,,' | sort;"
        "ls -laR /etc /dev | sed 's/..:..//'; id; hostname | wc -c; cat /etc/passwd old.txt; ulimit -a"
    )
    ahead, plain = drive("sh", "-c", look, ahead=True), drive("sh", "-c", look)
    assert ahead["had_base"]
    assert not plain["had_base"]
    assert ahead["output"] == plain["output"]
    assert "old\n" in ahead["output"]


def test_a_base_that_cannot_be_built_ahead_is_built_with_the_session(drive: Drive) -> None:
    answer = drive("cat", "old.txt", ahead=True, base={"base": [{"op": "root"}, {"op": "teleport"}, {"op": "pivot"}]})
    assert not answer["had_base"]
    assert answer["output"] == "old\n"
    assert not answer["leftovers_changed"], answer


def test_a_base_from_before_the_machines_mounts_changed_is_not_used(drive: Drive) -> None:
    assert drive("true", ahead=True)["had_base"]
    answer = drive("cat", "old.txt", ahead=True, mount=True)
    assert not answer["had_base"]
    assert answer["output"] == "old\n"
    assert not answer["leftovers_changed"], answer


def test_spares_that_somebody_killed_do_not_fail_the_next_launch(drive: Drive) -> None:
    for ahead in (True, False):
        answer = drive("cat", "old.txt", ahead=ahead, kill_spares=True)
        assert answer["output"] == "old\n"
        assert not answer["had_base"]
        assert not answer["leftovers_changed"], answer


def test_a_missing_command_is_told_apart_from_one_that_is_not_executable(drive: Drive) -> None:
    assert _error(drive("no-such-command"))["kind"] == "NotFoundError"
    assert _error(drive("/etc/passwd"))["kind"] == "RefusedError"
    assert _error(drive("./old.txt"))["kind"] == "RefusedError"


def test_the_exit_status_is_the_agents_own(drive: Drive) -> None:
    assert drive("sh", "-c", "exit 7")["status"] == 7
    assert drive("sh", "-c", "kill -TERM $$")["status"] == 128 + 15
