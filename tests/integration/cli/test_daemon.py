"""The daemon's socket and log: what an ordinary user may throw at them, and what an end leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service import Service, is_gone, wait_until

NONSENSE: list[Any] = [None, True, 5, -1, 2**70, 1e308, "", "x", "\0", "\udcff", "\ud800", [], ["a"], [1], [["a"]], {}]
NONSENSE += [{"a": 1}, {"a": "\ud800"}, {"": None}, {"a=b": "c"}, "a" * 5000]
FIELDS = {
    "run": "argv workspace environment profile mode name reads writes overrides limits terminal umask for_s",
    "plan": "argv workspace environment profile mode name reads writes overrides limits terminal umask for_s",
    "exec": "session argv environment overrides terminal",
    "attach": "session terminal",
    "ps": "all",
    "show": "session",
    "logs": "session",
    "stop": "sessions",
    "prune": "all",
    "changes": "session paths cwd held",
    "diff": "session paths cwd held",
    "apply": "session paths cwd held",
    "discard": "session paths cwd",
    "undo": "list step session paths cwd",
}

# What each field must be, and the name by which a refusal calls it.
WANTED = {
    "argv": ("words", "command"),
    "workspace": ("word", "-C"),
    "environment": ("names", "environment"),
    "profile": ("word", "--profile"),
    "mode": ("word", "--mode"),
    "name": ("word", "--name"),
    "reads": ("words", "--read"),
    "writes": ("words", "--write"),
    "overrides": ("overrides", "--env"),
    "limits": ("limits", ""),
    "terminal": ("terminal", ""),
    "umask": ("number", "umask"),
    "for_s": ("number", "--for"),
    "detach": ("flag", "--detach"),
    "session": ("word", "SESSION"),
    "sessions": ("words", "SESSION"),
    "all": ("flag", "--all"),
    "now": ("flag", "now"),
    "follow": ("flag", "--follow"),
    "held": ("flag", "--held"),
    "list": ("flag", "--list"),
    "step": ("number", "--step"),
    "paths": ("words", "PATH"),
    "cwd": ("word", "cwd"),
}
WRONG: dict[str, list[Any]] = {
    "word": [5, 0, 1.5, True, False, [], ["x"], {}, "\ud800", "a\0b"],
    "words": [5, 1.5, True, "x", {}, {"a": 1}, [5], [None], [["x"]], ["\ud800"], ["a\0b"]],
    "flag": [0, 1, 1.5, "", "true", [], {}],
    "number": [True, False, 1.5, "1", "", [], [1], {}, -1, 2**70],
    "names": [5, True, "x", [], ["A=b"]],
    "overrides": [5, True, "x", [], ["A=b"], {"A": 5}, {"A": ["b"]}, {"A": "\ud800"}, {"\ud800": None}, {"A": "a\0b"}],
    "limits": [5, True, "x", [], {"memory_bytes": True}, {"memory_bytes": "1g"}, {"pids": 9.5}, {"pids": None}],
    "terminal": [5, 0, True, False, "", "x", {}, [], [24], [True, 80], [24.5, 80], ["24", "80"], [24, 80, 1]],
}


@pytest.fixture
def own() -> Iterator[Service]:
    """A service that a test may end."""
    service = Service()
    yield service
    service.close()


def _ask(service: Service, payload: bytes) -> dict[str, Any]:
    """Send one packet; returns the last message."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(30)
        sock.connect(f"{service.runtime}/launch.sock")
        sock.send(payload)
        while True:
            answer = sock.recv(1 << 20)
            assert answer, payload[:200]
            if answer[:1] == b"{" and json.loads(answer)["event"] != "started":
                value: dict[str, Any] = json.loads(answer)
                return value


def test_a_request_of_nonsense_is_refused_by_name_and_leaves_no_line_in_the_log(own: Service) -> None:
    """Each field of each verb with each kind of value: an internal error would be a trace in the log each time."""
    base = {"argv": ["true"], "workspace": str(own.folder()), "environment": {}, "detach": True, "session": "none"}
    before = own.log()
    for verb, fields in FIELDS.items():
        for field in fields.split():
            for value in NONSENSE:
                answer = _ask(own, json.dumps(base | {"verb": verb, field: value}).encode())
                assert "internal error" not in json.dumps(answer), (verb, field, value, answer)
    for payload in (b"x", b"{", b"[]", b"@memfd", b"\xff", b"{}", b'{"verb":[]}', b"[" * 100_000):
        assert _ask(own, payload)["error"]["kind"] == "UsageError"
    assert own.log() == before


def test_each_field_of_a_wrong_type_is_refused_by_its_name(own: Service) -> None:
    """Never guessed: ``step: true`` is not step 1, ``all: "no"`` is not yes."""
    base: dict[str, Any] = {"argv": ["true"], "workspace": str(own.folder()), "environment": {}, "detach": True}
    more = {"run": " detach", "logs": " follow", "stop": " all now"}
    own.start_session("--name", "kept", "--", "sleep", "300", cwd=base["workspace"])
    before = own.log()
    for verb, fields in FIELDS.items():
        for field in (fields + more.get(verb, "")).split():
            kind, name = WANTED[field]
            for value in WRONG[kind]:
                answer = _ask(own, json.dumps(base | {"verb": verb, field: value}).encode())
                error = answer.get("error", {})
                assert error.get("kind") == "UsageError", (verb, field, value, answer)
                assert name in error["message"], (verb, field, value, answer)
                assert "internal error" not in error["message"], (verb, field, value, answer)
    assert own.log() == before
    assert [one["name"] for one in own.json("ps", "--all")] == ["kept"]


@pytest.mark.parametrize("verb", ["status", "ps", "attach", "exec", "stop", "kill"])
def test_a_daemon_is_found_from_another_runtime_directory(own: Service, verb: str) -> None:
    """XDG_RUNTIME_DIR differs between a login and cron; a name in /tmp may be taken at one time and free at another."""
    folder = own.folder()
    own.start_session("--name", "here", "--", "sh", "-c", "echo out; sleep 1000 & wait", cwd=folder)
    moved = {f"DESKWARDEN_{which}RUNTIME_DIR": f"{own.base}/elsewhere" for which in ("", "SYSTEM_")}
    words = {"exec": ["here", "--", "true"], "stop": ["here"], "kill": ["here"]}
    if verb == "attach":
        running = own.spawn("attach", "here", env=moved)
        assert running.stdout is not None
        assert running.stdout.readline() == b"out\n"  # what was printed before comes first
        own.run("kill", "here")
        assert running.wait(20) == 137
        return
    result = own.run(verb, "--json", *words.get(verb, []), env=moved)
    assert (result.returncode, b"no Deskwarden service" in result.stdout) == (0, False), result
    assert not os.path.exists(f"{own.base}/elsewhere")
    if verb == "status":
        assert json.loads(result.stdout)["pid"] == own.status()["pid"]


def test_an_orderly_end_takes_the_socket_away(own: Service) -> None:
    path = Path(own.runtime) / "launch.sock"
    assert stat.S_ISSOCK(path.lstat().st_mode)
    own.signal_daemon(signal.SIGTERM)
    assert own.wait_daemon() == 0
    assert not path.exists()


def test_a_socket_that_a_killed_daemon_left_is_replaced() -> None:
    service = Service(daemon=False)
    try:
        folder = service.folder()
        assert service.run("run", "--", "true", cwd=folder).returncode == 0
        first, path = service.status()["pid"], Path(service.runtime) / "launch.sock"
        os.kill(first, signal.SIGKILL)
        wait_until("it is gone", lambda: is_gone(first))
        assert path.exists()
        assert service.run("status").returncode == 125  # a stale socket is no service
        assert service.run("run", "--", "true", cwd=folder).returncode == 0
        assert service.status()["pid"] != first
    finally:
        service.close()


def test_a_later_daemons_socket_is_left_alone(own: Service) -> None:
    path = Path(own.runtime) / "launch.sock"
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as later:
        later.bind(os.fspath(path))
        own.signal_daemon(signal.SIGTERM)
        assert own.wait_daemon() == 0
        assert path.exists()


def test_the_sockets_directory_is_trusted_and_nobody_elses(own: Service) -> None:
    directory, path = os.lstat(own.runtime), os.lstat(f"{own.runtime}/launch.sock")
    assert directory.st_uid == os.geteuid()
    assert not directory.st_mode & stat.S_IWOTH
    assert stat.S_IMODE(path.st_mode) == (0o666 if own.is_system else 0o600)
    if not own.is_system:
        assert stat.S_IMODE(directory.st_mode) == 0o700
