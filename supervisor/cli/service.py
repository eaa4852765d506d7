"""The way to the daemon: find its socket, or start the caller's own. Standard library only; imported by every run.

`begin` says the first words with the C modules below `socket` and `json`, which take 8 ms to import: the daemon works
meanwhile.
"""

from __future__ import annotations

import _socket
import os
import sys
import time
from _json import encode_basestring_ascii

from supervisor.config import Places, rootless_places, system_places
from supervisor.errors import RefusedError, ServiceError, from_wire

TYPE_CHECKING = False  # typing.TYPE_CHECKING without typing, which takes 3 ms to import
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping
    from typing import Any

MANAGED_POLICIES = "/etc/deskwarden/policies/managed"
# A daemon that the CLI started ends after this long without sessions.
IDLE_EXIT_S = 120
_START_DEADLINE_S = 30.0
_LOG_BYTES = 1 << 20
# A larger request travels in a memfd, which `seqpacket` knows how to make.
_PLAIN_BYTES = 65536


def connect(start: bool = True) -> socket.socket:
    """Connect to the system service, else to the caller's own; *start* one when there is neither.

    Raises:
        RefusedError: The machine is managed and its system service does not run.
        ServiceError: None runs and none could be started.
    """
    return _whole(_connect(start))


def begin(request: Mapping[str, Any]) -> socket.socket:
    """Connect as `connect` does and send *request*; only then import what the rest of the conversation needs."""
    sock = _connect(start=True)
    payload = encode(request).encode()
    if len(payload) <= _PLAIN_BYTES:
        sock.sendmsg([payload], [], _socket.MSG_NOSIGNAL)
        return _whole(sock)
    from supervisor.linux import seqpacket

    whole = _whole(sock)
    seqpacket.send_json(whole, dict(request))
    return whole


def encode(value: object) -> str:
    """Return *value* as JSON, as `json.dumps` does with the shortest separators.

    Raises:
        TypeError: It holds what no request holds.
    """
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(map(encode, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{encode_basestring_ascii(key)}:{encode(item)}" for key, item in value.items()) + "}"
    raise TypeError(f"{type(value).__name__} in a request: {value!r}")


def _whole(sock: _socket.socket) -> socket.socket:
    import socket

    return socket.socket(fileno=sock.detach())


def _connect(start: bool) -> _socket.socket:
    environment = os.environ
    system = system_places(environment)
    own = system if os.geteuid() == 0 else rootless_places(environment, os.geteuid())
    sock = _try(system) or _try_own(own)
    if sock is not None:
        return sock
    if _is_managed():
        raise RefusedError(
            "this machine is managed and its Deskwarden service is not running", "systemctl start deskwarden"
        )
    if not start:
        raise ServiceError("no Deskwarden service is running", "deskwarden run -- CMD… starts one")
    try:
        _start_daemon(own)
    except OSError as error:
        raise ServiceError(
            f"a daemon cannot keep its state in {own.state}: {error.strerror}", "set HOME or XDG_STATE_HOME"
        ) from error
    deadline = time.monotonic() + _START_DEADLINE_S
    while time.monotonic() < deadline:
        sock = _try_own(own)
        if sock is not None:
            return sock
        time.sleep(0.02)
    raise ServiceError(f"the daemon does not answer on {_holder(own).launch_socket}", f"see {own.state}/daemon.log")


def _try_own(own: Places) -> _socket.socket | None:
    """Connect to the caller's own daemon: where it would listen now, else where the one that runs was told to.

    XDG_RUNTIME_DIR differs between a login and cron, and a name in /tmp that somebody else took may be free again.
    """
    sock = _try(own)
    if sock is not None:
        return sock
    holder = _holder(own)
    return _try(holder) if holder != own else None


def _holder(own: Places) -> Places:
    """Return where the daemon that holds the state listens: with another XDG_RUNTIME_DIR that is elsewhere."""
    try:
        with open(f"{own.state}/socket", encoding="utf-8", errors="surrogateescape") as file:
            path = file.read()
    except OSError:
        return own
    return Places(os.path.dirname(path), own.state) if path.endswith("/launch.sock") else own


def _try(places: Places) -> _socket.socket | None:
    path = places.launch_socket
    if os.geteuid() != 0 and not _is_trusted(path):
        return None
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
        return sock
    except OSError:
        sock.close()
        return None


def _is_trusted(path: str) -> bool:
    """Return whether the socket's directory belongs to root or to the caller: /tmp is anybody's."""
    try:
        owner = os.lstat(os.path.dirname(path)).st_uid
    except OSError:
        return False
    return owner in (0, os.geteuid())


def _is_managed() -> bool:
    try:
        return any(name.endswith(".json") for name in os.listdir(MANAGED_POLICIES))
    except OSError:
        return False


def _start_daemon(places: Places) -> None:
    """Start a daemon for the caller and wait until it is ready or says why not."""
    import contextlib
    import json
    import subprocess

    args = ["--idle-exit", str(os.environ.get("DESKWARDEN_IDLE_EXIT", IDLE_EXIT_S))]
    if os.geteuid() == 0:
        args += ["--system", "--only-uid", "0"]
    ready_r, ready_w = os.pipe()
    path = [part for part in sys.path if part]
    start = (
        f"import sys; sys.path[:] = {path!r}; from supervisor.daemon.main import main; "
        f"sys.exit(main({[*args, '--ready-fd', str(ready_w)]!r}))"
    )
    os.makedirs(places.state, mode=0o700, exist_ok=True)
    log = _open_log(f"{places.state}/daemon.log")
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, log)
        stack.callback(os.close, ready_r)
        try:
            subprocess.Popen(
                [sys.executable, "-IS", "-c", start],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(ready_w,),
                start_new_session=True,
            )
        finally:
            os.close(ready_w)
        answer = _read_answer(ready_r)
    if answer and answer != b"ready\n":
        error = from_wire(json.loads(answer))
        if "another daemon already uses" not in error.message:  # that one will answer
            raise error


def _open_log(path: str) -> int:
    """Open the daemon's log; what has grown large becomes the one before it."""
    import contextlib

    with contextlib.suppress(FileNotFoundError):
        if os.lstat(path).st_size > _LOG_BYTES:
            os.replace(path, f"{path}.1")
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _read_answer(fd: int) -> bytes:
    import select

    deadline = time.monotonic() + _START_DEADLINE_S
    answer = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([fd], [], [], left)[0]:
            break
        data = os.read(fd, 65536)
        if not data:
            break
        answer += data
        if answer == b"ready\n":
            break
    return answer


def stream(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Send one request and yield the messages that come, until the daemon ends or nobody takes more.

    Raises:
        DeskwardenError: What the daemon answered.
    """
    from supervisor.linux import seqpacket

    with connect() as sock:
        seqpacket.send_json(sock, dict(request))
        while (received := seqpacket.receive_json(sock)) is not None:
            message, fds = received
            seqpacket.close_all(fds)
            if message.get("event") == "error":
                raise from_wire(message["error"])
            yield message
    raise ServiceError("the daemon hung up", "deskwarden status")


def ask(request: Mapping[str, Any], start: bool = True) -> tuple[dict[str, Any], bytes]:
    """Send one request and return the last message, and the bytes that came before it.

    Raises:
        DeskwardenError: What the daemon answered.
    """
    from supervisor.linux import seqpacket

    body = bytearray()
    with connect(start) as sock:
        seqpacket.send_json(sock, dict(request))
        while True:
            payload, fds = seqpacket.receive(sock)
            if not payload:
                seqpacket.close_all(fds)
                raise ServiceError("the daemon hung up", "run the command again; see daemon.log in the state directory")
            if payload[:1] not in (b"{", b"@"):
                body += payload[1:]
                continue
            message, fds = seqpacket.decode_json(payload, fds)
            seqpacket.close_all(fds)
            if message.get("event") == "error":
                raise from_wire(message["error"])
            return message, bytes(body)
