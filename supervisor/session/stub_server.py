"""Answers for the names of a session that can be asked for: everything is refused at once, and told.

What is granted below such a name has to be walked to: `admit` makes its names known, each for the time of its grant.
An agent that asks faster than `RATE_PER_S` waits for its answers; what waits can be killed, and others are not held up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Mapping
from typing import Final

from supervisor.linux import fuse
from supervisor.linux.fuse import Node, Opcode, Request
from supervisor.sandbox.profile import is_within
from supervisor.sandbox.stubs import FIRST_FREE, node_of

_logger = logging.getLogger(__name__)

RATE_PER_S: Final = 2000
_WINDOW_S: Final = 0.02
_IN_A_WINDOW: Final = int(RATE_PER_S * _WINDOW_S)
_OPENED: Final = frozenset({Opcode.LOOKUP, Opcode.OPEN, Opcode.OPENDIR})

Opened = Callable[[str, str, int], None]


class StubServer:
    """Serves one session's stubs until `close`.

    Args:
        device_fd: The connection; owned from now on.
        paths: Where each stub is shown, by its node's number.
        on_opened: Called with the stub's path, the path that was wanted, and the pid inside the sandbox.
    """

    def __init__(self, device_fd: int, paths: Mapping[int, str], on_opened: Opened) -> None:
        self._fd = device_fd
        self._paths = dict(paths)
        self._on_opened = on_opened
        # What lies in a stub and is known, while something granted is reached through it: (parent, name) → node.
        self._known: dict[tuple[int, bytes], Node] = {}
        self._users: dict[tuple[int, bytes], int] = {}
        self._next = FIRST_FREE
        self._loop = asyncio.get_running_loop()
        self._left = _IN_A_WINDOW
        self._turn: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._fd, self._serve)

    def close(self) -> None:
        """Stop: whoever opens a stub from now on hears ENOTCONN."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._turn is not None:
            self._turn.cancel()

    # ---- what is granted below a stub ----

    def admit(self, path: str, kind: str) -> None:
        """Let *path*, a directory or file to be mounted there, be found below its stub; nothing for other paths."""
        steps = self._steps(path)
        for depth, (parent_path, name) in enumerate(steps, 1):
            parent = self._number_at(parent_path)
            is_directory = depth < len(steps) or kind == "directory"
            node = Node(self._next, stat.S_IFDIR if is_directory else stat.S_IFREG)
            if (parent, name) not in self._known:
                self._known[parent, name] = node
                self._next += 1
            self._users[parent, name] = self._users.get((parent, name), 0) + 1

    def forget(self, path: str) -> None:
        """Take *path* back, once nothing is mounted there."""
        with contextlib.suppress(KeyError):  # it was never admitted
            keys = [(self._number_at(parent_path), name) for parent_path, name in self._steps(path)]
            self._forget(keys)

    def _forget(self, keys: list[tuple[int, bytes]]) -> None:
        for parent, name in reversed(keys):
            left = self._users.get((parent, name), 0) - 1
            if left > 0:
                self._users[parent, name] = left
            elif self._users.pop((parent, name), 0):
                del self._known[parent, name]
                with contextlib.suppress(OSError):  # nobody has looked for it, or the session has ended
                    os.write(self._fd, fuse.forget_entry(parent, name))

    def _steps(self, path: str) -> list[tuple[str, bytes]]:
        """Return (folder, name) for each part of *path* below the stub that it lies in."""
        stub = next((one for one in self._paths.values() if _is_below(path, one)), None)
        if stub is None:
            return []
        steps, above = [], stub
        for name in path[len(stub) + 1 :].split("/"):
            steps.append((above, os.fsencode(name)))
            above = f"{above}/{name}"
        return steps

    def _number_at(self, path: str) -> int:
        found, stub = next(one for one in self._paths.items() if is_within(os.fsencode(path), os.fsencode(one[1])))
        for name in filter(None, os.fsencode(path[len(stub) + 1 :]).split(b"/")):
            found = self._known[found, name].number
        return found

    # ---- answering ----

    def _serve(self) -> None:
        if self._turn is None:
            self._left = _IN_A_WINDOW
            self._turn = self._loop.call_later(_WINDOW_S, self._begin_turn)
        while self._left:
            try:
                data = os.read(self._fd, fuse.BUFFER_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno == errno.ENOENT:  # whoever asked was interrupted before it was read
                    continue
                self.close()  # ENODEV: the session's last mount of it is gone
                return
            self._left -= 1
            self._answer(fuse.parse(data))
        self._loop.remove_reader(self._fd)

    def _begin_turn(self) -> None:
        self._turn = None
        if self._fd >= 0 and not self._left:
            self._loop.add_reader(self._fd, self._serve)

    def _answer(self, request: Request) -> None:
        if request.opcode in fuse.UNANSWERED:
            return
        with contextlib.suppress(OSError):  # ENOENT: it was interrupted meanwhile
            os.write(self._fd, self._reply(request))

    def _reply(self, request: Request) -> bytes:
        if request.opcode == Opcode.GETATTR:
            return fuse.attr_answer(request, self._node(request.node))
        if request.opcode == Opcode.STATFS:
            return fuse.statfs_answer(request)
        if request.opcode in (Opcode.RELEASEDIR, Opcode.RELEASE):
            return fuse.answer(request)
        if request.opcode == Opcode.LOOKUP and (node := self._known.get((request.node, request.name))):
            return fuse.answer(request, node.entry)
        leads_on = any(parent == request.node for parent, _name in self._known)
        if request.opcode == Opcode.ACCESS and leads_on and not request.mask & (os.R_OK | os.W_OK):
            return fuse.answer(request)
        if request.opcode in _OPENED:
            self._tell(request)
        return fuse.refusal(request, errno.EACCES)

    def _node(self, number: int) -> Node:
        return next((node for node in self._known.values() if node.number == number), None) or node_of(number)

    def _tell(self, request: Request) -> None:
        number, below = request.node, [request.name] if request.opcode == Opcode.LOOKUP else []
        by_number = {node.number: key for key, node in self._known.items()}
        while number in by_number:
            number, name = by_number[number]
            below.insert(0, name)
        stub = self._paths.get(number)
        if stub is not None:
            self._on_opened(stub, "/".join([stub, *(os.fsdecode(name) for name in below)]), request.pid)


def _is_below(path: str, stub: str) -> bool:
    return path != stub and is_within(os.fsencode(path), os.fsencode(stub))
