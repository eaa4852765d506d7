"""seccomp(2): load a filter that was compiled elsewhere. Bytes in, no libseccomp here."""

from __future__ import annotations

import ctypes
from typing import Final

from supervisor.linux.libc import syscall

SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER: Final = 8
SOCK_FILTER_SIZE: Final = 8
BPF_MAXINSNS: Final = 4096


class SockFprog(ctypes.Structure):
    """struct sock_fprog, linux/filter.h."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def load_filter(program: bytes, flags: int = 0) -> int:
    """Install *program* (an array of struct sock_filter) on this thread; needs no_new_privs.

    Returns:
        0, or the notification listener's descriptor under SECCOMP_FILTER_FLAG_NEW_LISTENER.

    Raises:
        ValueError: The bytes are no whole number of instructions, none, or too many.
        OSError: EINVAL when the kernel's checker refuses the program.
    """
    count, rest = divmod(len(program), SOCK_FILTER_SIZE)
    if rest or not 0 < count <= BPF_MAXINSNS:
        raise ValueError(f"seccomp program of {len(program)} bytes: want 1 to {BPF_MAXINSNS} instructions of 8 bytes")
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = SockFprog(count, ctypes.cast(buffer, ctypes.c_void_p))
    return syscall("seccomp", ctypes.c_uint(SECCOMP_SET_MODE_FILTER), ctypes.c_uint(flags), ctypes.byref(fprog))
