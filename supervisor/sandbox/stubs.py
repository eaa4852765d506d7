"""Names that can be asked for, as a file system of ours: every open of one fails at once, and is heard of.

It is built ahead of the session, with more directories and files than any profile names; a session binds some of them
to its names. Who answers while it is built is this process; from then on it is whoever gets the descriptor. With that
process dead the kernel answers ENOTCONN, never with access. Standard library only: runs in the launcher's child.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import select
import stat
from collections.abc import Callable
from typing import Final

from supervisor.linux import fuse
from supervisor.linux.fuse import Node, Opcode, Request
from supervisor.linux.mount import MountAttr

# By this a later child, and the withdrawal, know a mount as one of these.
SOURCE: Final = "deskwarden-ask"
MOUNT_ATTRIBUTES: Final = MountAttr.RDONLY | MountAttr.NOSUID | MountAttr.NODEV | MountAttr.NOEXEC
# More than the shipped profiles name (29); what is beyond stays an empty directory that nobody may open.
DIRECTORIES: Final = 40
FILES: Final = 24
# The first number that no stub has: what lies in one is counted from here.
FIRST_FREE: Final = fuse.ROOT_ID + 1 + DIRECTORIES + FILES
# Of a file system in memory that this process serves itself, so this long means a defect.
_DEADLINE_MS: Final = 2000

ROOT: Final = Node(fuse.ROOT_ID, stat.S_IFDIR | 0o555)


def number_of(kind: str, index: int) -> int:
    """Return the number of the node that is the *index*-th stub of its kind, or 0 when there are not so many."""
    first, count = (fuse.ROOT_ID + 1, DIRECTORIES) if kind == "directory" else (FIRST_FREE - FILES, FILES)
    return first + index if index < count else 0


def node_of(number: int) -> Node:
    """Return the stub with that number."""
    return Node(number, stat.S_IFDIR if number < FIRST_FREE - FILES else stat.S_IFREG)


_NAMES: Final = [(b"%d" % number, node_of(number)) for number in range(fuse.ROOT_ID + 1, FIRST_FREE)]


def hold_all(root_fd: int, device_fd: int) -> dict[int, int]:
    """Return a descriptor (O_PATH, the caller's) of each stub in the file system at *root_fd*, answering for it.

    Raises:
        OSError: The kernel does not take the answers.
    """
    _while_serving(device_fd, lambda: _list(root_fd))
    # All are known to the kernel now: none of these asks.
    return {
        node.number: os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd) for name, node in _NAMES
    }


def _list(root_fd: int) -> None:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        found = os.listdir(fd)
    finally:
        os.close(fd)
    if len(found) != len(_NAMES):
        raise OSError(errno.EPROTO, f"{len(found)} names, expected {len(_NAMES)}")


def _while_serving(device_fd: int, work: Callable[[], None]) -> None:
    """Do *work* in a thread that is gone on return (one that shares the tree bars from other mount namespaces)."""
    outcome: list[OSError | None] = []
    ended_r, ended_w = os.pipe2(os.O_CLOEXEC)

    def run() -> None:
        error = None
        try:
            work()
        except OSError as caught:
            error = caught
        outcome.append(error)
        os.write(ended_w, b".")

    try:
        _thread.start_new_thread(run, ())
        poll = select.poll()
        poll.register(device_fd, select.POLLIN)
        poll.register(ended_r, select.POLLIN)
        while not outcome:
            if not poll.poll(_DEADLINE_MS):
                raise OSError(errno.ETIMEDOUT, "the kernel does not ask")
            _serve_one(device_fd)
        while len(os.listdir("/proc/self/task")) > 1:
            os.sched_yield()
    finally:
        os.close(ended_r)
        os.close(ended_w)
    if outcome[0] is not None:
        raise outcome[0]


def _serve_one(device_fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        request = fuse.parse(os.read(device_fd, fuse.BUFFER_BYTES))
        if request.opcode not in fuse.UNANSWERED:
            os.write(device_fd, _answer(request))


def _answer(request: Request) -> bytes:
    if request.opcode == Opcode.INIT:
        return fuse.init_answer(request)
    if request.node == fuse.ROOT_ID and request.opcode == Opcode.GETATTR:
        return fuse.attr_answer(request, ROOT)
    if request.node == fuse.ROOT_ID and request.opcode == Opcode.OPENDIR:
        return fuse.open_answer(request)
    if request.node == fuse.ROOT_ID and request.opcode == Opcode.READDIRPLUS:
        return fuse.readdirplus_answer(request, _NAMES)
    if request.opcode == Opcode.RELEASEDIR:
        return fuse.answer(request)
    return fuse.refusal(request, errno.EACCES)
