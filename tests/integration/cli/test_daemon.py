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
