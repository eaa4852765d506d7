"""The hand: a small program per owner that opens, reads, compares and applies with the owner's uid and no capability.

The daemon asks over a SOCK_SEQPACKET socket, one JSON message a request; each carries its own answer socket as the
first descriptor, so that answers never mix. ``open`` is answered at once; everything that reads file contents runs in
a forked child, so a slow disk or a huge diff holds up nobody, and a crash takes only its own request with it.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from supervisor.errors import DeskwardenError, LaunchError, ServiceError, to_wire
from supervisor.linux import prctl, seqpacket
from supervisor.workspace import ephemeral_copy, opening, program_copy, resolving, review, secret_command
from supervisor.workspace.configuration import answer_keys, answer_profiles

Handler = Callable[[dict[str, Any], list[int]], tuple[dict[str, Any], list[int]]]

# What an agent can make the hand touch: a file system that hangs takes the child alone with it, at this second. Below
# the daemon's own deadlines, at which it would kill the hand.
_ASKED_BY_AGENTS: Final[dict[str, tuple[Handler, int]]] = {
    "resolve": (resolving.HANDLERS["resolve"], 10),
    "read_items": (resolving.HANDLERS["read_items"], 10),
    "copy": (ephemeral_copy.HANDLERS["copy"], 120),
    "read_copy": (ephemeral_copy.HANDLERS["read_copy"], 10),
    "drop_copy": (ephemeral_copy.HANDLERS["drop_copy"], 60),
    "secret_command": (secret_command.HANDLERS["secret_command"], 20),
    "program": (program_copy.answer_program, program_copy.LIMIT_S),
    "drop_program": (program_copy.answer_drop_program, 10),
}


class Hand:
    """Serve the daemon until it hangs up."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._store_fd = -1
        self._empty_fd = -1

    def serve(self) -> None:
        """Answer requests; the first one brings the owner's store."""
        while True:
            received = seqpacket.receive_json(self._sock)
            if received is None:
                return
            request, fds = received
            try:
                self._answer(request, fds)
            finally:
                seqpacket.close_all(fds)

    def _answer(self, request: dict[str, Any], fds: list[int]) -> None:
        with socket.socket(fileno=fds.pop(0)) as answer_to:
            what = request.get("do")
            if what == "store":
                guarded(answer_to, self._take_store, request, fds)
            elif what == "open":
                guarded(answer_to, self._open, request, fds)
            elif what == "profiles":
                guarded(answer_to, answer_profiles, request, fds)
            elif what == "keys":
                guarded(answer_to, answer_keys, request, fds)
            elif what == "area":
                guarded(answer_to, review.open_area, request, [self._store_fd, *fds])
            elif what in review.HANDLERS:
                self._in_child(answer_to, review.HANDLERS[what], request, fds)
            elif what in _ASKED_BY_AGENTS:
                handler, limit_s = _ASKED_BY_AGENTS[what]
                self._in_child(answer_to, handler, request, fds, limit_s)
            else:
                _send_error(answer_to, ServiceError(f"hand: unknown request {what!r}"))

    def _take_store(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        self._store_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fds[0])
        with contextlib.suppress(FileExistsError):
            os.mkdir("empty", 0o555, dir_fd=self._store_fd)
        program_copy.drop_all(self._store_fd)
        self._empty_fd = os.open("empty", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._store_fd)
        return {}, []

    def _open(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        return opening.open_all(request, self._store_fd, self._empty_fd)

    def _in_child(
        self, answer_to: socket.socket, handler: Handler, request: dict[str, Any], fds: list[int], limit_s: int = 0
    ) -> None:
        if os.fork():
            return
        try:
            self._sock.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            prctl.set_pdeathsig(signal.SIGKILL)
            signal.alarm(limit_s)  # no handler: it ends the child in whatever call it hangs
            guarded(answer_to, handler, request, [self._store_fd, *fds])
        finally:
            os._exit(0)


def guarded(answer_to: socket.socket, handler: Handler, request: dict[str, Any], fds: list[int]) -> None:
    """Call *handler* and send its answer, or the error that it raised."""
    out: list[int] = []
    try:
        answer, out = handler(request, fds)
        seqpacket.send_json(answer_to, {"ok": answer}, tuple(out))
    except DeskwardenError as error:
        _send_error(answer_to, error)
    except OSError as error:
        where = os.fsdecode(error.filename) if error.filename else str(request.get("do"))
        _send_error(answer_to, LaunchError(f"hand: {where}", error.errno or 0, str(error.strerror or "")))
    except Exception as error:  # noqa: BLE001 - the program's boundary: a bug answers this request, serves the next
        _send_error(answer_to, ServiceError(f"hand: {request.get('do')}: {type(error).__name__}: {error}"))
    finally:
        seqpacket.close_all(out)


def _send_error(answer_to: socket.socket, error: DeskwardenError) -> None:
    with contextlib.suppress(OSError):
        seqpacket.send_json(answer_to, {"error": to_wire(error)})


def main(fd: int) -> None:
    """Serve on the inherited socket *fd*."""
    os.set_inheritable(fd, False)
    prctl.set_dumpable(False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children reap themselves
    os.umask(0o077)
    sys.setrecursionlimit(5000)
    Hand(socket.socket(fileno=fd)).serve()
