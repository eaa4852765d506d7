"""Plans: a daemon that was taken over cannot make the launcher start an agent with more than nothing."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.errors import RefusedError
from supervisor.linux import seqpacket
from supervisor.sandbox.confine import check_base, check_builds_on_base, check_operations, check_plan
from tests.service import CHECKOUT, PYTHON

FDS = range(4)
GOOD: dict[str, Any] = {
    "base": [
        {"op": "root", "size_bytes": 1 << 20},
        {"op": "bind", "source": 0, "path": "/usr", "origin": "/usr"},
        {"op": "pivot"},
    ],
    "operations": [
        {"op": "keyring"},
        {"op": "bind", "source": 0, "path": "/usr", "origin": "/usr"},
        {"op": "overlay", "lower": [1], "path": "/w", "origin": "/w", "options": {}, "stage": 2},
        {"op": "seal"},
    ],
    "agent": {"uid": 1_900_000_001, "gid": 1_900_000_001, "inner_userns": False},
    "no_new_privs": True,
    "capabilities": [],
    "seccomp": base64.b64encode(bytes(8)).decode(),
    "landlock": [["/", "list"]],
    "command": {"argv": ["true"], "environment": {}, "directory": "/", "stdio": [0, 1, 2]},
}


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of the plan: the last of *path* is the value, the rest leads to its place."""
    *keys, last, value = path

    def change(plan: dict[str, Any]) -> None:
        place: Any = plan
        for key in keys:
            place = place[key]
        place[last] = value

    return change


def _without(*path: Any) -> Callable[[dict[str, Any]], None]:
    *keys, last = path

    def change(plan: dict[str, Any]) -> None:
        place: Any = plan
        for key in keys:
            place = place[key]
        del place[last]

    return change


BAD: dict[str, Callable[[dict[str, Any]], None]] = {
    "no agent": _without("agent"),
    "no uid": _without("agent", "uid"),
    "uid 0": _set("agent", "uid", 0),
    "negative uid": _set("agent", "uid", -1),
    "uid as text": _set("agent", "uid", "1000"),
    "uid as truth": _set("agent", "uid", True),
    "uid with a fraction": _set("agent", "uid", 1000.5),
    "gid 0": _set("agent", "gid", 0),
    "negative gid": _set("agent", "gid", -1),
    "uid that does not fit": _set("agent", "uid", 1 << 32),
    "uid that setresuid ignores": _set("agent", "uid", 0xFFFF_FFFF),
    "gid that setresgid ignores": _set("agent", "gid", 0xFFFF_FFFF),
    "other mode": _set("agent", "inner_userns", True),
    "no no_new_privs": _without("no_new_privs"),
    "no_new_privs off": _set("no_new_privs", False),
    "no_new_privs almost": _set("no_new_privs", 1),
    "no capabilities field": _without("capabilities"),
    "one capability": _set("capabilities", ["CAP_SYS_ADMIN"]),
    "capabilities as number": _set("capabilities", 0),
    "no seccomp": _without("seccomp"),
    "empty seccomp": _set("seccomp", ""),
    "half an instruction": _set("seccomp", base64.b64encode(bytes(7)).decode()),
    "seccomp as list": _set("seccomp", [0] * 8),
    "no operations": _without("operations"),
    "empty operations": _set("operations", []),
    "operations as mapping": _set("operations", {}),
    "an operation as text": _set("operations", 0, "root"),
    "unknown operation": _set("operations", 0, {"op": "shell", "command": "id"}),
    "unknown field": _set("operations", 1, "follow", True),
    "path as source": _set("operations", 1, "source", "/etc"),
    "path as bytes of a list": _set("operations", 2, "lower", ["/etc"]),
    "path as stage": _set("operations", 2, "stage", "/tmp"),
    "path as mapping": _set("operations", 1, "idmap", "/proc/1/ns/user"),
    "descriptor not sent": _set("operations", 1, "source", len(FDS)),
    "negative descriptor": _set("operations", 1, "source", -1),
    "descriptor as truth": _set("operations", 1, "source", True),
    "descriptor with a fraction": _set("operations", 1, "source", 0.0),
    "lower descriptor not sent": _set("operations", 2, "lower", [1, 99]),
    "overlay options that name paths": _set("operations", 2, "options", {"lowerdir": "/etc"}),
    "overlay upper by path": _set("operations", 2, "options", {"upperdir": "/etc", "workdir": "/tmp"}),
    "mount of a disk": _set(
        "operations", 1, {"op": "mount", "fs_type": "ext4", "path": "/x", "options": {"source": "/dev/vda"}}
    ),
    "mount of a tmpfs with a source": _set(
        "operations", 1, {"op": "mount", "fs_type": "tmpfs", "path": "/x", "options": {"source": "/dev/vda"}}
    ),
    "setting of the whole machine": _set(
        "operations", 1, {"op": "sysctl", "name": "kernel.core_pattern", "value": "|/tmp/evil"}
    ),
    "landlock as text": _set("landlock", "/"),
    "unknown landlock access": _set("landlock", [["/", "everything"]]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_plan_that_gives_more_is_refused(name: str) -> None:
    check_plan(copy.deepcopy(GOOD), FDS, rootless=False)
    plan = copy.deepcopy(GOOD)
    BAD[name](plan)
    with pytest.raises(RefusedError) as caught:
        check_plan(plan, FDS, rootless=False)
    assert "launcher refused the plan" in caught.value.message


_BIND, _LIMITS = GOOD["operations"][1], {"op": "limits", "values": {"core": 1}}
BAD_BASE: dict[str, Callable[[dict[str, Any]], None]] = {
    "no base": _without("base"),
    "an empty base": _set("base", []),
    "nothing but limits": _set("base", [_LIMITS]),
    "no new root": _without("base", 0),
    "no pivot": _without("base", 2),
    "two roots": _set("base", [GOOD["base"][0], *GOOD["base"]]),
    "something after the pivot": _set("base", [*GOOD["base"], _BIND]),
    "a path as source in the base": _set("base", 1, "source", "/etc"),
    "an owner's overlay in the base": _set("base", 1, GOOD["operations"][2]),
    "limits in the base": _set("base", 1, _LIMITS),
}
NO_ROOT: dict[str, Callable[[dict[str, Any]], None]] = BAD_BASE | {
    "a root of the session's own": _set("operations", 0, GOOD["base"][0]),
    "a pivot of the session's own": _set("operations", 0, {"op": "pivot"}),
    "no seal": _without("operations", 3),
    "something after the seal": _set("operations", [*GOOD["operations"], _BIND]),
    "a seal too early": _set("operations", 0, {"op": "seal"}),
}


def _check_root(plan: dict[str, Any]) -> None:
    check_base(plan, FDS)
    check_builds_on_base(check_operations(plan, FDS))


@pytest.mark.parametrize("name", NO_ROOT)
def test_a_session_in_the_hosts_own_tree_is_refused(name: str) -> None:
    _check_root(GOOD)
    plan = copy.deepcopy(GOOD)
    NO_ROOT[name](plan)
    with pytest.raises(RefusedError):
        _check_root(plan)


def test_a_rootless_plan_needs_the_inner_user_namespace() -> None:
    with pytest.raises(RefusedError):
        check_plan(copy.deepcopy(GOOD), FDS, rootless=True)
    plan = copy.deepcopy(GOOD)
    plan["agent"]["inner_userns"] = True
    check_plan(plan, FDS, rootless=True)


def test_a_review_takes_no_path_either() -> None:
    overlay = {"op": "overlay", "lower": ["/etc"], "path": "/", "origin": "/", "options": {}, "detached": True}
    with pytest.raises(RefusedError):
        check_operations({"operations": [overlay]}, range(1))


# ---- the real launcher ----


@pytest.fixture(scope="module")
def launcher() -> Iterator[socket.socket]:
    """A launcher of our own, and this test as its daemon: one that was taken over."""
    ours, theirs = seqpacket.pair()
    rootless = os.geteuid() != 0
    start = (
        f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); from supervisor.sandbox.launcher import main; "
        f"main({theirs.fileno()}, {rootless})"
    )
    prefix = ["unshare", "--user", "--map-root-user", "--mount"] if rootless else []
    with subprocess.Popen([*prefix, PYTHON, "-IS", "-c", start], pass_fds=(theirs.fileno(),)) as running:
        theirs.close()
        ready = seqpacket.receive_json(ours)
        assert ready is not None
        assert ready[0]["event"] == "ready"
        yield ours
        seqpacket.send_json(ours, {"seq": 0, "do": "farewell"})
        ours.close()
        running.wait(30)


def _start(launcher: socket.socket, plan: dict[str, Any], key: str, fds: tuple[int, ...]) -> dict[str, Any]:
    """Send a plan as the daemon does; returns the child's answer."""
    ours, theirs = seqpacket.pair()
    with ours:
        seqpacket.send_json(launcher, {"seq": 1, "do": "session", "id": key}, (theirs.fileno(),))
        theirs.close()
        while True:
            received = seqpacket.receive_json(launcher)
            assert received is not None
            message, pidfds = received
            seqpacket.close_all(pidfds)
            if message.get("seq") == 1:
                break
        assert "error" not in message, message
        base = {"base": plan.pop("base")} if "base" in plan else {}
        seqpacket.send_json(ours, plan, fds)
        with contextlib.suppress(BrokenPipeError):  # refused already
            seqpacket.send_json(ours, base, fds)
        answer = seqpacket.receive_json(ours)
        assert answer is not None
        return answer[0]


@pytest.mark.parametrize("name", [*BAD, *NO_ROOT])
def test_the_launcher_starts_nothing_for_such_a_plan(launcher: socket.socket, tmp_path: Path, name: str) -> None:
    plan = copy.deepcopy(GOOD)
    plan["agent"]["inner_userns"] = os.geteuid() != 0
    (BAD | NO_ROOT)[name](plan)
    if name == "other mode":
        plan["agent"]["inner_userns"] = os.geteuid() == 0
    if name == "gid 0" and os.geteuid() != 0:
        plan["agent"]["gid"] = -1  # without root there is no root's group to be in
    marker = tmp_path / "ran"
    plan["command"]["argv"] = ["touch", str(marker)]
    fd = os.open(tmp_path, os.O_PATH)
    try:
        answer = _start(launcher, plan, f"bad{abs(hash(name))}", (fd,) * len(FDS))
    finally:
        os.close(fd)
    assert answer["event"] == "error", answer
    assert "launcher refused the plan" in answer["error"]["message"], json.dumps(answer)
    assert not marker.exists()


@pytest.mark.parametrize("name", BAD_BASE)
def test_a_base_that_is_refused_ahead_is_never_lent(launcher: socket.socket, tmp_path: Path, name: str) -> None:
    """Whatever a spare made of it, a session that wants it starts from nothing."""
    plan = copy.deepcopy(GOOD)
    BAD_BASE[name](plan)
    fd = os.open(tmp_path, os.O_PATH)
    ours, theirs = seqpacket.pair()
    with ours:
        seqpacket.send_json(ours, {"base": plan.get("base")}, (fd,) * len(FDS))
        seqpacket.send_json(launcher, {"seq": 3, "do": "build", "base": name}, (theirs.fileno(),))
        theirs.close()
        assert _answer(launcher, 3) == {"seq": 3}
        one, other = seqpacket.pair()
        with one, other:
            key = f"lent{abs(hash(name))}"
            seqpacket.send_json(launcher, {"seq": 4, "do": "session", "id": key, "base": name}, (other.fileno(),))
            assert _answer(launcher, 4)["has_base"] is False
    os.close(fd)


def _answer(launcher: socket.socket, number: int) -> dict[str, Any]:
    while True:
        received = seqpacket.receive_json(launcher)
        assert received is not None
        seqpacket.close_all(received[1])
        if received[0].get("seq") == number:
            return received[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's hand is that user's own process")
def test_nothing_can_be_taken_from_a_hand_by_its_owner(launcher: socket.socket) -> None:
    """Its socket leads to the daemon: whoever has it can answer in its place."""
    ours, theirs = seqpacket.pair()
    with ours, theirs:
        seqpacket.send_json(launcher, {"seq": 5, "do": "hand", "uid": 1}, (theirs.fileno(),))
        pid = int(_answer(launcher, 5)["pid"])
        code = (
            "import os, sys, time\n"
            "end, taken = time.monotonic() + 0.5, 0\n"
            "while time.monotonic() < end:\n"
            " for what in ('fd', 'environ', 'mem', 'maps'):\n"
            "  try:\n"
            f"   path = f'/proc/{pid}/{{what}}'\n"
            "   taken += len(os.listdir(path)) if what == 'fd' else len(open(path, 'rb').read(1))\n"
            "  except OSError: pass\n"
            "sys.exit(taken > 0)"
        )
        as_owner = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups", PYTHON, "-IS", "-c", code]
        assert subprocess.run(as_owner, check=False).returncode == 0
        assert os.stat(f"/proc/{pid}/fd").st_uid == 0  # not dumpable: ptrace(2) and pidfd_getfd(2) are refused too
        assert f"\nUid:\t{1}\t" in Path(f"/proc/{pid}/status").read_text()


def test_the_launcher_lends_no_uid_outside_its_pool(launcher: socket.socket) -> None:
    """An id mapping to another user would let an agent act as that user."""
    for agent in (0, 1000, 1_899_999_999, 1_900_065_536):
        seqpacket.send_json(launcher, {"seq": 7, "do": "idmap", "owner": [1000, 1000], "agent": [agent, agent]})
        while True:
            received = seqpacket.receive_json(launcher)
            assert received is not None
            message, fds = received
            seqpacket.close_all(fds)
            if message.get("seq") == 7:
                break
        assert message["error"]["kind"] == "RefusedError", message
        assert fds == []


@pytest.mark.parametrize(
    "request_",
    [{"do": "shell"}, {"do": "session", "id": "../x"}, {"do": "session", "id": ""}, {"do": "kill", "id": "1"}],
)
def test_the_launcher_refuses_what_it_does_not_know(launcher: socket.socket, request_: dict[str, Any]) -> None:
    seqpacket.send_json(launcher, request_ | {"seq": 9})
    while True:
        received = seqpacket.receive_json(launcher)
        assert received is not None
        if received[0].get("seq") == 9:
            assert received[0]["error"], received
            return
