"""renameat2(2), with the flags that the `os` module lacks."""

from __future__ import annotations

import ctypes
from typing import Final

from supervisor.linux.libc import Path, check, encode, libc

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2


def renameat2(old_dir_fd: int, old: Path, new_dir_fd: int, new: Path, flags: int = 0) -> None:
    """Rename *old* to *new*, each relative to its directory descriptor.

    Raises:
        OSError: EEXIST under RENAME_NOREPLACE; EINVAL when the file system lacks the flag.
    """
    result = libc.renameat2(
        ctypes.c_int(old_dir_fd),
        ctypes.c_char_p(encode(old)),
        ctypes.c_int(new_dir_fd),
        ctypes.c_char_p(encode(new)),
        ctypes.c_uint(flags),
    )
    check(result, "renameat2", new)
