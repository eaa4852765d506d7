"""ustat(2): whether a file system instance is still alive anywhere on the machine, by its device number."""

from __future__ import annotations

import ctypes
import errno
import os

from supervisor.linux.libc import SYSCALLS, syscall


def is_alive(device: tuple[int, int]) -> bool | None:
    """Return whether a superblock has *device*; None where the machine lacks the call (arm64).

    As long as one mount, one descriptor or one mapping of it is left in any namespace, it is alive.
    """
    if "ustat" not in SYSCALLS:
        return None
    buffer = ctypes.create_string_buffer(64)  # struct ustat has 32 bytes
    try:
        syscall("ustat", ctypes.c_uint(encode_device(*device)), buffer)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        if error.errno == errno.ENOSYS:  # a file system without statfs, or a kernel without the call
            return None
        raise
    return True


def encode_device(major: int, minor: int) -> int:
    """Return a device number as the kernel passes it in 32 bits (new_encode_dev, linux/kdev_t.h)."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def device_of(fd: int) -> tuple[int, int]:
    """Return the device of what *fd* refers to."""
    number = os.fstat(fd).st_dev
    return os.major(number), os.minor(number)
