"""syncfs(2): write back everything of one file system; cheaper than an fsync(2) for each of many files."""

from __future__ import annotations

import ctypes

from supervisor.linux.libc import check, libc


def syncfs(fd: int) -> None:
    """Make all data and metadata of the file system that holds *fd* durable.

    Raises:
        OSError: EIO, ENOSPC, EDQUOT of a write-back that failed (reported since 5.8).
    """
    check(libc.syncfs(ctypes.c_int(fd)), "syncfs")
