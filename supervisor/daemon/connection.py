"""An agent's connection, carried on to the gRPC server from a socket whose name says whose it is.

Nothing reaches gRPC before the HTTP/2 preface is complete (RFC 9113, section 3.4).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final, Protocol

from supervisor.daemon.splice import CLOSING_S, Budget, Side
from supervisor.session.tasks import Tasks

_logger = logging.getLogger(__name__)

PREFACE_S: Final = 5.0
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Port(Protocol):
    """What a connection needs of the relay that accepted it."""

    tasks: Tasks

    def refuse(self, session: str, reason: str) -> None:
        """Count a refused connection, and tell."""

    def bind(self, session: str) -> tuple[socket.socket, str]:
        """Return a socket with a new name of its own, known from now on."""

    async def reach(self, upstream: socket.socket) -> None:
        """Connect it to the server."""

    def forget(self, name: str) -> None:
        """Let a name mean nobody."""


class Connection:
    """One connection: the agent's end and the server's.

    Args:
        budget: Of the bytes that its session may send, shared by the connections of it.
        on_end: Called once, as soon as either end closes.
    """

    def __init__(self, port: Port, session: str, budget: Budget, on_end: Callable[[Connection], None]) -> None:
        self._port = port
        self._on_end = on_end
        self._session = session
        self._name = ""
        self._head = bytearray()
        self._over = False
        self._loop = asyncio.get_running_loop()
        self._agent = Side(self._from_agent, self._lost, budget)
        self._server = Side(self._from_server, self._lost)
        self._timer = self._loop.call_later(PREFACE_S, self._late)

    async def start(self, sock: socket.socket) -> None:
        """Begin to read what the agent sends."""
        try:
            await self._loop.connect_accepted_socket(lambda: self._agent, sock)
        except OSError:  # it went away meanwhile
            sock.close()
            self.abort()
        self._abort_if_over()

    def _abort_if_over(self) -> None:
        """Close what was connected while the other end, or the session, ended."""
        if self._over:
            self.abort()

    def _late(self) -> None:
        self._port.refuse(self._session, f"no HTTP/2 preface within {PREFACE_S:.0f} s")
        self.abort()

    def _from_agent(self, data: bytes) -> None:
        if self._server.is_connected:
            self._server.write(data)
            return
        begun = len(self._head) >= len(PREFACE)
        self._head += data
        seen = bytes(self._head[: len(PREFACE)])
        if not PREFACE.startswith(seen):
            self._port.refuse(self._session, f"what was sent is no HTTP/2: {seen[:8]!r}")
            self.abort()
        elif len(seen) == len(PREFACE) and not begun:
            self._timer.cancel()
            self._agent.hold("connecting")
            self._port.tasks.spawn(self._connect(), "agent connection", may_fail=True)

    async def _connect(self) -> None:
        upstream, self._name = self._port.bind(self._session)
        try:
            await self._port.reach(upstream)
            if self._over:
                raise ConnectionAbortedError
            await self._loop.create_unix_connection(lambda: self._server, sock=upstream)
        except OSError as error:
            upstream.close()
            if not self._over:
                _logger.warning("agent service: %s", error)
            self.abort()
            return
        self._server.write(bytes(self._head))
        self._head.clear()
        self._server.attach(self._agent)
        self._agent.attach(self._server)
        self._agent.go_on("connecting")
        self._abort_if_over()

    def _from_server(self, data: bytes) -> None:
        self._agent.write(data)

    def _lost(self) -> None:
        """One end closed: the other gets what is under way to it, and is closed."""
        if not self._over:
            self._end()
            self._agent.close()
            self._server.close()
            self._loop.call_later(CLOSING_S, self.abort)

    def abort(self) -> None:
        """Close both ends at once."""
        self._end()
        self._agent.abort()
        self._server.abort()

    def _end(self) -> None:
        """Forget whose connection it is, before the server can learn that it ended."""
        self._timer.cancel()
        self._port.forget(self._name)
        if not self._over:
            self._over = True
            self._on_end(self)
