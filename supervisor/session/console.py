"""What an agent reads and prints: its pipes or its terminal, the log on disk, and the client that watches.

The bytes are copied, never parsed, here; whoever shows them on a terminal filters them (`cli.terminal`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from typing import Final

from supervisor import protocol
from supervisor.errors import ServiceError
from supervisor.linux import seqpacket
from supervisor.session.channel import Channel, wait_readable, wait_writable

# Two files of this size are kept: the newest output of a session, at least this much of it.
LOG_BYTES: Final = 8 << 20
# How much of it a client that attaches sees at once: a few screens.
REPLAY_BYTES: Final = 16384
_INPUT_CHUNKS: Final = 4 * protocol.INPUT_AHEAD


class Log:
    """The newest output, in ``PATH`` and the file before it, ``PATH.1``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        self.lost_bytes = 0

    def write(self, data: bytes) -> None:
        """Append *data*; a full disk loses it, counted, and never stops the agent."""
        written = 0
        with contextlib.suppress(OSError):
            if self._size + len(data) > LOG_BYTES:
                self._rotate()
            written = os.write(self._fd, data)
        self._size += written
        self.lost_bytes += len(data) - written

    def _rotate(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # renamed the last time, and then there was no room for a new one
            os.replace(self.path, self.path + ".1")
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.close(self._fd)
        self._fd, self._size = fd, 0

    def tail(self, size_bytes: int) -> bytes:
        """Return the last bytes written."""
        with open(self.path, "rb") as file:
            file.seek(max(0, self._size - size_bytes))
            return file.read()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class LogReader:
    """Reads a log from where it last stopped; starts over when the file was rotated."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._position = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield what has come since the last call; nothing when there is no such file."""
        try:
            file = open(self._path, "rb")  # noqa: SIM115 - opened apart, so that only its absence is passed over
        except FileNotFoundError:
            return
        with file:
            if file.seek(0, os.SEEK_END) < self._position:
                self._position = 0
            file.seek(self._position)
            while data := file.read(protocol.FRAME_BYTES):
                self._position += len(data)
                yield data


def chunks_of(fd: int) -> Iterator[bytes]:
    """Yield the contents of the memfd *fd*, and close it.

    Raises:
        ServiceError: It is none: a hand is its owner's process, and reading anything else could block.
    """
    with open(fd, "rb", buffering=0):
        try:
            seqpacket.check_memfd(fd)
        except ValueError:
            raise ServiceError("your hand process answered with something else than a patch", "try again") from None
        at, size = 0, os.fstat(fd).st_size  # as of now: it may still be growing
        while at < size and (data := os.pread(fd, min(protocol.FRAME_BYTES, size - at), at)):
            yield data
            at += len(data)


class Console:
    """The agent's ends of things, held by the daemon; at most one client is attached."""

    def __init__(self, log: Log | None) -> None:
        self._log = log
        self._outputs: dict[int, bytes] = {}
        self._input = -1
        self._pumps: list[asyncio.Task[None]] = []
        self._pending: asyncio.Queue[bytes] = asyncio.Queue(_INPUT_CHUNKS)
        self.client: Channel | None = None
        self.is_terminal = False
        self.output_bytes = 0

    def make_pipes(self) -> tuple[int, int, int]:
        """Make three pipes; returns the agent's ends, which the caller closes once they were handed on."""
        agent_in, self._input = os.pipe2(os.O_CLOEXEC)
        out_r, agent_out = os.pipe2(os.O_CLOEXEC)
        err_r, agent_err = os.pipe2(os.O_CLOEXEC)
        self._outputs = {out_r: protocol.STDOUT, err_r: protocol.STDERR}
        for fd in (self._input, out_r, err_r):
            os.set_blocking(fd, False)
        return agent_in, agent_out, agent_err

    def take_terminal(self, master: int) -> None:
        """Take over the terminal's master."""
        os.set_blocking(master, False)
        self.is_terminal = True
        self._outputs = {master: protocol.STDOUT}
        self._input = os.dup(master)
        os.set_blocking(self._input, False)

    def start(self) -> None:
        """Start copying."""
        self._pumps = [asyncio.create_task(self._pump_output(fd, kind)) for fd, kind in self._outputs.items()]
        self._writer = asyncio.create_task(self._pump_input())

    async def drained(self, timeout_s: float) -> None:
        """Wait until all output was copied, after the agent has ended."""
        if self._pumps:
            await asyncio.wait(self._pumps, timeout=timeout_s)

    async def _pump_output(self, fd: int, kind: bytes) -> None:
        try:
            while True:
                try:
                    data = os.read(fd, protocol.FRAME_BYTES)
                except BlockingIOError:
                    await wait_readable(fd)
                    continue
                except OSError:  # EIO: the terminal's last user is gone
                    return
                if not data:
                    return
                self.output_bytes += len(data)
                if self._log:
                    self._log.write(data)
                await self._show(kind + data)
        finally:
            os.close(fd)

    async def _show(self, frame: bytes) -> None:
        client = self.client
        if client is None:
            return
        try:
            await client.send(frame)
        except OSError:
            if self.client is client:
                self.client = None

    async def feed(self, data: bytes) -> None:
        """Queue input for the agent; empty means end of file. Waits while the agent does not read."""
        await self._pending.put(data)

    async def _pump_input(self) -> None:
        while True:
            data = await self._pending.get()
            if not data:
                if not self.is_terminal:
                    self._close_input()
                continue
            await self._write(data)
            await self._show(protocol.TAKEN)

    async def _write(self, data: bytes) -> None:
        while data and self._input >= 0:
            try:
                data = data[os.write(self._input, data) :]
            except BlockingIOError:
                await wait_writable(self._input)
            except OSError:  # EPIPE, EIO: nobody reads any more
                self._close_input()

    def _close_input(self) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; the kernel sends SIGWINCH."""
        if self.is_terminal and self._input >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def foreground_stopped(self, parent_pid: int) -> bool:
        """Return whether the terminal's foreground job is stopped, and is the command itself.

        A shell's job has the shell as its parent, which takes the terminal back; the command has *parent_pid* (the
        init, or 0 for any).
        """
        if not self.is_terminal or self._input < 0:
            return False
        try:
            group = struct.unpack("i", fcntl.ioctl(self._input, termios.TIOCGPGRP, b"\0" * 4))[0]
            with open(f"/proc/{group}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            return False
        return state == b"T" and parent_pid in (0, int(parent))

    def replay(self) -> bytes:
        """Return the newest output, for a client that attaches."""
        return self._log.tail(REPLAY_BYTES) if self._log else b""

    async def close(self) -> None:
        """Close everything; queued input is dropped."""
        for task in [*self._pumps, self._writer] if self._pumps else []:
            task.cancel()
        self._close_input()
        if self._log:
            self._log.close()
