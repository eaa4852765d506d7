"""Removing a session's staged files, by descriptors, whatever an agent left: any depth, any names, any modes.

Standard library only: runs in the launcher's child.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
from collections.abc import Iterator
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_session(sessions_fd: int, name: str) -> None:
    """Remove ``NAME/`` and ``NAME-aN.json`` (what was discarded) from an owner's store; what is not there is no error.

    Raises:
        ValueError: *name* is no session's id.
        OSError: Something of it could not be removed.
    """
    if not name.isalnum():
        raise ValueError(f"session id {name!r}: expected letters and digits")
    with contextlib.suppress(FileNotFoundError):
        remove_tree(sessions_fd, name)
    notes = re.compile(rf"{name}-a[0-9]+\.json")
    for entry in os.listdir(sessions_fd):
        if notes.fullmatch(entry):
            os.unlink(entry, dir_fd=sessions_fd)


def remove_tree(parent_fd: int, name: str) -> None:
    """Remove the directory *name* with everything below; symlinks are removed, never followed.

    A directory is first moved to the top of the tree, so that nothing is ever deeper than two levels: depth costs
    neither descriptors nor stack.
    """
    top = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        # Names that nobody below can have guessed.
        names = (f"{secrets.token_hex(16)}-{number}" for number in itertools.count())
        _flatten(top, top, names)
        while below := os.listdir(top):
            for entry in below:
                fd = os.open(entry, _DIRECTORY, dir_fd=top)
                try:
                    _flatten(fd, top, names)
                finally:
                    os.close(fd)
                os.rmdir(entry, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent_fd)


def _flatten(fd: int, top: int, names: Iterator[str]) -> None:
    """Unlink the files in *fd*, and move its directories to *top* under the next *names*."""
    with os.scandir(fd) as listing:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing]
    for name, is_directory in entries:
        if is_directory:
            os.rename(name, next(names), src_dir_fd=fd, dst_dir_fd=top)
        else:
            os.unlink(name, dir_fd=fd)
