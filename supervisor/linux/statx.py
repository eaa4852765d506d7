"""statx(2): the id of the mount that something lies on, without a file system being asked."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from supervisor.linux.libc import Path, check, encode, libc

AT_EMPTY_PATH: Final = 0x1000
# What is known already will do: a network file system that does not answer holds up nobody.
AT_STATX_DONT_SYNC: Final = 0x4000
STATX_MNT_ID: Final = 0x1000  # Linux 5.8

# struct statx, linux/stat.h: 256 bytes, stx_mask first, stx_mnt_id at 144.
_SIZE: Final = 256
_MNT_ID_OFFSET: Final = 144


def mount_id(dir_fd: int, path: Path = b"") -> int:
    """Return the mount id of *path* below *dir_fd*, magic links followed; without a path of *dir_fd* itself.

    Raises:
        OSError: It is gone; ENOSYS where the kernel does not tell mount ids.
    """
    buffer = ctypes.create_string_buffer(_SIZE)
    flags = AT_STATX_DONT_SYNC | (0 if path else AT_EMPTY_PATH)
    name = ctypes.c_char_p(encode(path))
    check(
        libc.statx(ctypes.c_int(dir_fd), name, ctypes.c_int(flags), ctypes.c_uint(STATX_MNT_ID), buffer), "statx", path
    )
    (mask,) = struct.unpack_from("=I", buffer, 0)
    if not mask & STATX_MNT_ID:
        raise OSError(38, f"statx tells no mount id on Linux {os.uname().release}; since 5.8")
    (number,) = struct.unpack_from("=Q", buffer, _MNT_ID_OFFSET)
    return int(number)
