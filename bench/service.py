"""A daemon for benchmarks alone, in directories of its own, with the time of each launch as it sees it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final

from bench import place
from bench.process import FailedError
from supervisor.config import SERVICE_ACCOUNT, Places, rootless_places, system_places
from supervisor.linux import seqpacket

_START_DEADLINE_S: Final = 60.0
_STOP_DEADLINE_S: Final = 30.0


@dataclass(slots=True)
class Service:
    """A running daemon; `environment` leads the CLI to it."""

    pid: int
    environment: dict[str, str]
    places: Places
    stamps: IO[str]
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def deskwarden(self) -> str:
        """The CLI of this checkout."""
        return os.path.join(place.CHECKOUT, ".venv/bin/deskwarden")

    def run(self, argv: Sequence[str], workspace: str, profile: str = "coding") -> tuple[str, float, float]:
        """Run a command as a client does, without the CLI's own start.

        Returns:
            The session's id; ms from the daemon's request to the launcher until the exit event; ms from connecting to
            the last message.

        Raises:
            FailedError: It did not end with 0.
        """
        request = {
            "verb": "run",
            "argv": list(argv),
            "workspace": workspace,
            "environment": self.environment,
            "profile": profile,
        }
        start = time.perf_counter_ns()
        message = self.ask(request)
        whole_ms = (time.perf_counter_ns() - start) / 1e6
        if message.get("code") != 0:
            raise FailedError(f"deskwarden run {' '.join(argv)}: {message}")
        for line in self.stamps:  # written before the last message was sent
            stamp = json.loads(line)
            self.plan = stamp.get("plan", self.plan)
            if stamp["id"] == message["id"]:
                return message["id"], stamp["launch_ms"], whole_ms
        raise FailedError(f"session {message['id']} has left no stamp")

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request, with an empty standard input after it; returns the last message."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(self.places.launch_socket)
            seqpacket.send_json(sock, request)
            with contextlib.suppress(BrokenPipeError):
                seqpacket.send(sock, b"i")
            while True:
                payload, fds = seqpacket.receive(sock)
                if not payload:
                    raise FailedError(f"the daemon hung up: see {self.places.state}/daemon.log")
                if payload[:1] not in (b"{", b"@"):
                    continue
                message, fds = seqpacket.decode_json(payload, fds)
                seqpacket.close_all(fds)
                if message.get("event") != "started":
                    return message

    def processes(self) -> dict[str, int]:
        """Return the pids of the daemon, the launcher and the caller's hand."""
        launcher = next(pid for pid in _children(self.pid) if b"sandbox.launcher" in _command_line(pid))
        hands = [pid for pid in _children(launcher) if b"workspace.hand" in _command_line(pid)]
        return {"daemon": self.pid, "launcher": launcher} | {f"hand {pid}": pid for pid in hands}


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def _command_line(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


@contextlib.contextmanager
def running() -> Iterator[Service]:
    """Start a daemon as the caller may (root: system mode; a user: rootless); stop it and remove its files."""
    base = tempfile.mkdtemp(prefix="deskwarden-bench-", dir="/var/tmp")
    os.chmod(base, 0o711)  # noqa: S103 (the service's own account has to pass)
    middle = "SYSTEM_" if os.geteuid() == 0 else ""
    environment = place.environment()
    environment[f"DESKWARDEN_{middle}RUNTIME_DIR"] = f"{base}/run"
    environment[f"DESKWARDEN_{middle}STATE_DIR"] = f"{base}/state"
    try:
        with open(f"{base}/daemon.log", "wb") as log, open(f"{base}/stamps", "ab") as stamps:
            process = _start(environment, log, stamps.fileno())
        try:
            places = system_places(environment) if middle else rootless_places(environment, os.geteuid())
            with open(f"{base}/stamps", encoding="utf-8") as stamps_read:
                yield Service(process.pid, environment, places, stamps_read)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_DEADLINE_S)
    finally:
        _remove(base)


def _remove(base: str) -> None:
    """Remove the service's files; the overlays' own directories (mode 000) are opened for that first."""
    for folder, names, _files in os.walk(base):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(base)


def _start(environment: dict[str, str], log: IO[bytes], stamps: int) -> subprocess.Popen[bytes]:
    ready_r, ready_w = os.pipe()
    arguments = ["--ready-fd", str(ready_w)] + (["--system", "--only-uid", "0"] if os.geteuid() == 0 else [])
    start = (
        f"import sys; sys.path[:] = {[part for part in sys.path if part]!r}; "
        f"from bench.timed_daemon import main; main({stamps}, {arguments!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-IS", "-c", start],
        env=environment,
        cwd="/",
        pass_fds=(ready_w, stamps),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    os.close(ready_w)
    answer = b""
    while not answer.endswith(b"ready\n") and select.select([ready_r], [], [], _START_DEADLINE_S)[0]:
        data = os.read(ready_r, 65536)
        if not data:
            break
        answer += data
    os.close(ready_r)
    if answer != b"ready\n":
        process.kill()
        process.wait()
        with open(log.name, encoding="utf-8", errors="replace") as file:
            said = file.read()[-500:]
        raise FailedError(f"the daemon did not start (account {SERVICE_ACCOUNT}?): {answer.decode()}{said}")
    return process
