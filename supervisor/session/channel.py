"""A SOCK_SEQPACKET socket for asyncio: whole messages with descriptors, both ways."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from supervisor.linux import seqpacket


async def wait_readable(fd: int) -> None:
    """Wait until *fd* can be read or has ended."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _wake, future)
    try:
        await future
    finally:
        loop.remove_reader(fd)


async def wait_writable(fd: int) -> None:
    """Wait until *fd* takes bytes or has lost its reader."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _wake, future)
    try:
        await future
    finally:
        loop.remove_writer(fd)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Channel:
    """One end of a connection; owns its socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._sending = asyncio.Lock()

    async def receive(self) -> tuple[bytes, list[int]]:
        """Return the next message and its descriptors (the caller's); an empty one is the end."""
        while True:
            try:
                return seqpacket.receive(self.sock)
            except BlockingIOError:
                await wait_readable(self.sock.fileno())
            except ConnectionResetError:
                return b"", []

    async def receive_json(
        self, limit_bytes: int = seqpacket.MAX_BODY_BYTES
    ) -> tuple[dict[str, Any], list[int]] | None:
        """Return the next JSON message, or None at the end.

        Raises:
            ValueError: It is none, or larger than *limit_bytes*.
        """
        payload, fds = await self.receive()
        return seqpacket.decode_json(payload, fds, limit_bytes) if payload else None

    async def send(self, payload: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send one message, waiting for room; messages of several tasks never mix."""
        async with self._sending:
            while True:
                try:
                    seqpacket.send(self.sock, payload, fds)
                    return
                except BlockingIOError:
                    await wait_writable(self.sock.fileno())

    async def send_json(self, value: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send one JSON message."""
        async with self._sending:
            while True:
                try:
                    seqpacket.send_json(self.sock, value, fds)
                    return
                except BlockingIOError:
                    await wait_writable(self.sock.fileno())

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
