"""Carry a running command's input and output between this terminal (or these pipes) and the daemon.

What comes from the agent reaches a terminal only through `terminal.OutputFilter`; a pipe or a file gets it as it is.
Standard library only; imported by every run, while the daemon already works on it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, NoReturn

from supervisor import protocol
from supervisor.cli import window
from supervisor.cli.late import LateError
from supervisor.cli.terminal import OutputFilter
from supervisor.errors import DeskwardenError, ServiceError, from_wire
from supervisor.linux import seqpacket

# For the verbs that are not in such a hurry.
is_interactive = window.is_interactive
window_size = window.window_size

_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# After SIGHUP nobody reads or types any more; a command that saves its work and ends is waited for this long.
_HANG_UP_S: Final = 2.0
# Ctrl-] then d leaves a session running.
_DETACH_PREFIX: Final = 0x1D
_DETACH_KEY: Final = ord("d")


class HungUpError(DeskwardenError):
    """The terminal went away (SIGHUP) and the command did not end with it."""

    exit_code = 128 + signal.SIGHUP


class Conversation:
    """One command, from ``started`` to its end.

    Args:
        left: What becomes of the command when the client leaves it behind; None when it stays as it is.
    """

    def __init__(
        self,
        sock: socket.socket,
        interactive: bool,
        on_started: Callable[[dict[str, Any]], None] = lambda _message: None,
        left: str | None = "it gets 10 s to end in order, then it is killed; staged changes are kept",
    ) -> None:
        self._sock = sock
        self._interactive = interactive
        self._filters = {fd: OutputFilter(interactive=interactive) if os.isatty(fd) else None for fd in (1, 2)}
        self._selector = selectors.DefaultSelector()
        self._saved: list[Any] | None = None
        self._prefixed = False
        self._reading = True
        self._polled = True
        self._ahead = 0
        self._on_started = on_started
        self._left = left
        self._hung_up = False
        self._has_started = False
        self.detached = False

    def carry(self) -> dict[str, Any]:
        """Carry until the end; returns the last message (``exit`` or ``result``).

        Raises:
            DeskwardenError: What the daemon answered; ServiceError when it hung up.
            LateError: The same, once the command had started.
        """
        try:
            return self._carry()
        except DeskwardenError as error:
            if self._has_started:
                raise LateError(error) from error
            raise

    def _carry(self) -> dict[str, Any]:
        self._selector.register(self._sock, selectors.EVENT_READ)
        try:
            self._selector.register(0, selectors.EVENT_READ)
        except PermissionError:  # a regular file: always readable, so epoll refuses it
            self._polled = False
        with self._signals(), self._raw(), self._settled():
            if not self._polled:
                self._go_on_reading()
            try:
                return self._until_the_end()
            except OSError:  # a terminal that is gone takes no output
                if self._hung_up:
                    self._leave()
                raise

    def _until_the_end(self) -> dict[str, Any]:
        while True:
            for key, _events in self._selector.select():
                if key.fd == 0:
                    self._read_input()
                    continue
                message = self._read_daemon()
                if message is not None:
                    return message

    @contextlib.contextmanager
    def _settled(self) -> Iterator[None]:
        """At the end, show what was held back and give the terminal back as it was."""
        try:
            yield
        finally:
            for fd, one in self._filters.items():
                if one is not None and not self._hung_up:
                    write_all(fd, one.flush() + one.restore())

    def _read_daemon(self) -> dict[str, Any] | None:
        payload, fds = seqpacket.receive(self._sock)
        if not payload:
            raise ServiceError(
                "the daemon is gone; the session is frozen and ends within 10 s, staged work is kept",
                "deskwarden ps --all",
            )
        kind = payload[:1]
        if kind == protocol.STDOUT:
            self._show(1, payload[1:])
        elif kind == protocol.STDERR:
            self._show(2, payload[1:])
        elif kind == protocol.TAKEN:
            self._ahead = max(0, self._ahead - 1)
            self._go_on_reading()
        elif kind == protocol.SUSPENDED:
            self._suspend()
        else:
            message, fds = seqpacket.decode_json(payload, fds)
            seqpacket.close_all(fds)
            if message.get("event") == "error":
                raise from_wire(message["error"])
            if message.get("event") != "started":
                return message
            self._has_started = True
            self._on_started(message)
        return None

    def _show(self, fd: int, data: bytes) -> None:
        one = self._filters[fd]
        write_all(fd, one.feed(data) if one else data)

    def _read_input(self) -> None:
        try:
            data = os.read(0, protocol.FRAME_BYTES)
        except OSError:
            data = b""
        if self._interactive and data:
            data = self._look_for_detach(data)
            if not data:
                return
        self._send(protocol.STDIN + data)
        self._reading = bool(data)
        self._ahead += 1
        if self._polled and (not self._reading or self._ahead == protocol.INPUT_AHEAD):
            self._selector.unregister(0)

    def _go_on_reading(self) -> None:
        """Read more input while the agent takes it."""
        if self._polled:
            if self._reading and 0 not in self._selector.get_map():
                self._selector.register(0, selectors.EVENT_READ)
            return
        while self._reading and self._ahead < protocol.INPUT_AHEAD:
            self._read_input()

    def _look_for_detach(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self._prefixed:
                self._prefixed = False
                if byte == _DETACH_KEY:
                    self.detached = True
                    self._send(protocol.DETACH)
                    return b""
                out.append(_DETACH_PREFIX)
            if byte == _DETACH_PREFIX:
                self._prefixed = True
            else:
                out.append(byte)
        return bytes(out)

    def _send(self, frame: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            seqpacket.send(self._sock, frame)

    # ---- terminal ----

    @contextlib.contextmanager
    def _raw(self) -> Iterator[None]:
        if not self._interactive:
            yield
            return
        self._saved = termios.tcgetattr(0)
        tty.setraw(0)
        try:
            yield
        finally:
            # Drained: what was typed ahead, or answered by the terminal, must not reach the owner's shell. After a
            # hang-up there may be no terminal any more, or one whose output stands still and is not waited for.
            with contextlib.suppress(termios.error):
                termios.tcsetattr(0, termios.TCSANOW if self._hung_up else termios.TCSAFLUSH, self._saved)

    def _suspend(self) -> None:
        """Ctrl-Z stopped the job inside: stop here too, and go on together."""
        if not self._interactive or self._saved is None:
            return
        termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
        os.kill(0, signal.SIGTSTP)  # the whole job, as the terminal itself would
        tty.setraw(0)
        self._send_window()
        self._send(protocol.SUSPENDED)

    def _send_window(self) -> None:
        self._send(protocol.WINDOW + struct.pack("HH", *window_size()))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def forward(number: int, _frame: FrameType | None) -> None:
            self._send(protocol.SIGNAL + bytes([number]))

        def resize(_number: int, _frame: FrameType | None) -> None:
            self._send_window()

        handlers: dict[int, Callable[[int, FrameType | None], object]] = dict.fromkeys(_FORWARDED, forward)
        handlers |= {signal.SIGHUP: self._hang_up, signal.SIGALRM: self._leave}
        if self._interactive:
            handlers[signal.SIGWINCH] = resize
        before = {}
        for number, handler in handlers.items():
            if (
                number == signal.SIGALRM or signal.getsignal(number) is not signal.SIG_IGN
            ):  # nohup, a script's job in the background
                before[number] = signal.signal(number, handler)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, old in before.items():
                signal.signal(number, old)

    def _hang_up(self, number: int, _frame: FrameType | None) -> None:
        """Tell the command that its terminal is gone, and leave it soon; one that only attached leaves at once."""
        self._hung_up = True
        if self._left is None:
            self._leave()
        signal.setitimer(signal.ITIMER_REAL, _HANG_UP_S)
        self._send(protocol.SIGNAL + bytes([number]))

    def _leave(self, *_signal: object) -> NoReturn:
        raise HungUpError(f"hung up; {self._left or 'the session goes on'}", "deskwarden ps --all")


def write_all(fd: int, data: bytes) -> None:
    """Write everything; a reader that went away ends this program as it would end any other in a pipe."""
    while data:
        data = data[os.write(fd, data) :]
