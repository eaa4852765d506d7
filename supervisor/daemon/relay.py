"""In front of the one gRPC server: a socket for each session, whose peers are checked, and whose name says whose it is.

gRPC for Python shows no credentials of a peer, but the name that the other end of a Unix socket is bound to. So each
accepted connection is carried on by a socket bound to a fresh abstract name, which `session_of` maps to the session
until either end closes. Nothing that an agent sends reaches gRPC before the HTTP/2 preface is complete (RFC 9113,
section 3.4); what it sends later is limited by bytes a second, so that no flood of frames starves other sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from supervisor.daemon.connection import Connection
from supervisor.daemon.peer import Place, check
from supervisor.daemon.splice import Budget
from supervisor.errors import LaunchError, RefusedError
from supervisor.session.tasks import Tasks

_logger = logging.getLogger(__name__)

# More than the tools of one agent ask at a time; a connection costs two descriptors and at most 200 KB.
MAX_CONNECTIONS: Final = 32
# A start of the command is one connection; a loop of starts gets 32 a second, after a burst.
ACCEPTS: Final = (32.0, 64.0)
# A call is about 200 bytes, with its reason 1 KB: a hundred a second, after a burst.
BYTES: Final = (131072.0, 1048576.0)
_BACKLOG: Final = 64
_PEER: Final = "unix-abstract:"


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the start; *connections* is now."""

    connections: int = 0
    accepted: int = 0
    refused: int = 0
    throttled: int = 0


class Relay:
    """All sessions' sockets. Lives in one event loop; nothing here waits for anybody.

    Args:
        directory: The daemon's own, 0700: the sockets in it are open to every uid, since only a bind mount into a
            sandbox shows one of them.
        internal: The path of the gRPC server's socket, in a directory of that kind.
        on_refused: Told a session and why a connection to its socket was refused.
    """

    def __init__(self, directory: str, internal: str, on_refused: Callable[[str, str], None] | None = None) -> None:
        self._directory = directory
        self._internal = internal
        self._on_refused = on_refused or _log_refused
        self._doors: dict[str, _Door] = {}
        self._listening: dict[str, socket.socket] = {}
        self._sessions: dict[str, str] = {}
        self.tasks = Tasks()
        self.statistics = Statistics()

    def listen(self, session: str) -> str:
        """Make the socket of a session; returns its path, which somebody mounts into the sandbox.

        Who connects waits until `open` says where the session's processes are.

        Raises:
            LaunchError: The socket cannot be made, or that session has one.
        """
        path = f"{self._directory}/{session}.sock"
        if session in self._doors or session in self._listening:
            raise LaunchError(f"listen on {path}", 0, "this session has a socket")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, 0o666)  # noqa: S103 - see the class
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise LaunchError(f"listen on {path}", error.errno or 0, str(error)) from error
        self._listening[session] = listener
        return path

    def open(self, place: Place) -> str:
        """Hear the session of *place* from now on; returns the socket's path, which is made if it is not there.

        Raises:
            LaunchError: As `listen`.
        """
        if place.session not in self._listening:
            self.listen(place.session)
        path = f"{self._directory}/{place.session}.sock"
        self._doors[place.session] = _Door(self, place, path, self._listening.pop(place.session))
        return path

    def close(self, session: str) -> None:
        """End a session's socket and its connections: no later call finds the session by them."""
        listener = self._listening.pop(session, None)
        if listener is not None:
            listener.close()
            with contextlib.suppress(OSError):
                os.unlink(f"{self._directory}/{session}.sock")
        door = self._doors.pop(session, None)
        if door:
            door.close()

    def close_all(self) -> None:
        """End every session's."""
        for session in [*self._doors, *self._listening]:
            self.close(session)

    def session_of(self, peer: str) -> str | None:
        """Return whose connection it is that gRPC calls *peer*; None for what did not come through here."""
        return self._sessions.get(peer.removeprefix(_PEER)) if peer.startswith(_PEER) else None

    def refuse(self, session: str, reason: str) -> None:
        """Count a refused connection, and tell."""
        self.count(refused=1)
        self._on_refused(session, reason)

    def count(self, **by: int) -> None:
        """Add to the statistics."""
        now = self.statistics
        self.statistics = replace(now, **{name: getattr(now, name) + step for name, step in by.items()})

    def bind(self, session: str) -> tuple[socket.socket, str]:
        """Return a socket with a new name of its own, known from now on."""
        upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        name = f"deskwarden-{secrets.token_hex(16)}"
        upstream.bind(f"\0{name}")
        self._sessions[name] = session
        return upstream, name

    def forget(self, name: str) -> None:
        """Let a name mean nobody."""
        self._sessions.pop(name, None)

    async def reach(self, upstream: socket.socket) -> None:
        """Connect to the server. A full backlog is EAGAIN, and nothing tells when it is not (unix(7))."""
        for _ in range(200):
            try:
                upstream.connect(self._internal)
                return
            except BlockingIOError:
                await asyncio.sleep(0.01)
        raise TimeoutError("the agent service does not accept")


class _Door:
    """One session's listening socket and its connections."""

    def __init__(self, relay: Relay, place: Place, path: str, listener: socket.socket) -> None:
        self._relay = relay
        self._place = place
        self._path = path
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._accepts = Budget(*ACCEPTS)
        self.budget = Budget(*BYTES)
        self.pairs: set[Connection] = set()
        self._open = True
        self._listen()

    def _listen(self) -> None:
        if self._open:
            self._loop.add_reader(self._listener, self._accept)

    def _rest(self, seconds: float) -> None:
        """Leave who connects in the backlog for a while."""
        self._relay.count(throttled=1)
        self._loop.remove_reader(self._listener)
        self._loop.call_later(seconds, self._listen)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # EMFILE and its kind: give the others time to end
            _logger.warning("accept on %s: %s", self._path, error)
            self._rest(0.2)
            return
        wait = self._accepts.take(1)
        if wait:
            self._rest(wait)
        try:
            if len(self.pairs) >= MAX_CONNECTIONS:
                raise RefusedError(f"{MAX_CONNECTIONS} connections are open")
            check(sock, self._place)
        except RefusedError as error:
            self._relay.refuse(self._place.session, error.message)
            sock.close()
            return
        self._relay.count(accepted=1, connections=1)
        sock.setblocking(False)
        pair = Connection(self._relay, self._place.session, self.budget, self._ended)
        self.pairs.add(pair)
        self._relay.tasks.spawn(pair.start(sock), "agent connection", may_fail=True)

    def _ended(self, pair: Connection) -> None:
        self.pairs.discard(pair)
        self._relay.count(connections=-1)

    def close(self) -> None:
        self._open = False
        self._loop.remove_reader(self._listener)
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        for pair in list(self.pairs):
            pair.abort()


def _log_refused(session: str, reason: str) -> None:
    _logger.warning("session %s: connection refused: %s", session, reason)
