"""openat2(2): open below a directory descriptor, with symlinks and magic links refused by the kernel."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from supervisor.linux.libc import Path, encode, syscall

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

AT_FDCWD: Final = -100


class OpenHow(ctypes.Structure):
    """struct open_how, linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(dir_fd: int, path: Path, flags: int, resolve: int, mode: int = 0) -> int:
    """Open *path* relative to *dir_fd*; the caller owns the returned descriptor (close-on-exec).

    Raises:
        OSError: ELOOP for a symlink under RESOLVE_NO_SYMLINKS, EXDEV for leaving under RESOLVE_BENEATH.
    """
    how = OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return syscall(
        "openat2",
        ctypes.c_int(dir_fd),
        ctypes.c_char_p(encode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(24),
        path=path,
    )


def open_beneath(dir_fd: int, path: Path, flags: int, mode: int = 0) -> int:
    """Open *path* strictly below *dir_fd*: no symlink, no magic link, no way out."""
    return openat2(dir_fd, path, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS, mode)
