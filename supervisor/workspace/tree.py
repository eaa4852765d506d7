"""Visit everything below a directory, however deep an agent nested it: few descriptors, no recursion, no path.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from supervisor.workspace.entry import open_directory

# Below the usual 1,024 descriptors; levels further down are left by `..`.
_HELD: Final = 256


@dataclass(slots=True)
class _Level:
    """A directory on the way; `fd` is -1 while it is not held, `left` are the directories in it to visit."""

    fd: int
    identity: tuple[int, int]
    left: list[bytes]


def files_below(root_fd: int) -> Iterator[os.stat_result]:
    """Yield what `lstat` says of each entry that is no directory; what can't be opened or moves away is passed over."""
    stack: list[_Level] = []
    try:
        yield from _entered(root_fd, b".", stack)
        while stack:
            level = stack[-1]
            if level.left and level.fd != -1:
                yield from _entered(level.fd, level.left.pop(), stack)
            else:
                _leave(stack)
    finally:
        for level in stack:
            _close(level)


def _entered(dir_fd: int, name: bytes, stack: list[_Level]) -> Iterator[os.stat_result]:
    try:
        fd = open_directory(dir_fd, name)
    except OSError:
        return
    status = os.fstat(fd)
    level = _Level(fd, (status.st_dev, status.st_ino), [])
    if len(stack) > _HELD:
        _close(stack[-1])
    stack.append(level)
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                level.left.append(os.fsencode(entry.name))
                continue
            with contextlib.suppress(FileNotFoundError):
                yield entry.stat(follow_symlinks=False)


def _leave(stack: list[_Level]) -> None:
    level = stack.pop()
    if stack and stack[-1].fd == -1 and level.fd != -1:
        with contextlib.suppress(OSError):
            fd = open_directory(level.fd, b"..")
            status = os.fstat(fd)
            stack[-1].fd = fd
            if (status.st_dev, status.st_ino) != stack[-1].identity:  # moved meanwhile: on with what is held
                _close(stack[-1])
    _close(level)


def _close(level: _Level) -> None:
    if level.fd != -1:
        os.close(level.fd)
        level.fd = -1
