"""Bytes held in reserve on the state's disk, and given back when it is full: so that what frees space has some.

Taking changes off the list writes a small note, removing staged files may need a block for names, and the database a
page for each deletion. Whoever is still writing can take what is given back: end those sessions first.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

SIZE_BYTES: Final = 2 << 20


class Ballast:
    """One file of `SIZE_BYTES`; held only while the disk has several times as much left."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._held = False

    def hold(self) -> None:
        """Take the reserve, when there is none and the disk has room for it."""
        if self._held:
            return
        with contextlib.suppress(OSError):
            self._held = os.stat(self._path).st_size == SIZE_BYTES
        if self._held or free_bytes(os.path.dirname(self._path)) < 4 * SIZE_BYTES:
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, SIZE_BYTES)
            finally:
                os.close(fd)
            self._held = True
        except OSError:
            self.release()

    def release(self) -> bool:
        """Give the reserve back; returns whether there was one."""
        self._held = False
        try:
            os.unlink(self._path)
        except OSError:
            return False
        return True


def free_bytes(path: str) -> int:
    """Return what its owner may still write to the disk of *path*; 0 when it has no inodes left."""
    status = os.statvfs(path)
    if status.f_files and not status.f_favail:
        return 0
    return status.f_bavail * status.f_frsize
