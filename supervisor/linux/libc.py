"""The C library, loaded once, and the one helper that turns -1 into `OSError`.

Standard library only; imported in the launcher's child before exec.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

libc: Final = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

# From 424 on, every architecture uses the same number (include/uapi/asm-generic/unistd.h).
_COMMON: Final = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "openat2": 437,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
_BY_MACHINE: Final = {
    "x86_64": {"pivot_root": 155, "keyctl": 250, "seccomp": 317, "execveat": 322, "capset": 126, "ustat": 136},
    "aarch64": {"pivot_root": 41, "keyctl": 219, "seccomp": 277, "execveat": 281, "capset": 91},
}
SYSCALLS: Final[dict[str, int]] = _COMMON | _BY_MACHINE.get(platform.machine(), {})

Path = str | bytes


def check(result: int, what: str, path: Path | None = None) -> int:
    """Return *result*, or raise `OSError` from errno when it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        text = f"{what}: {os.strerror(number)}"
        raise OSError(number, text, path) if path is not None else OSError(number, text)
    return result


def syscall(name: str, *args: object, path: Path | None = None) -> int:
    """Make the system call *name*.

    Raises:
        OSError: errno of the call; ENOSYS when this machine has no number for it.
    """
    number = SYSCALLS.get(name)
    if number is None:
        raise OSError(38, f"{name}: no system call number for {platform.machine()}")
    return check(libc.syscall(ctypes.c_long(number), *args), name, path)


def encode(path: Path) -> bytes:
    """Return *path* as the bytes that the kernel sees; a NUL is an error, never a cut."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError(f"path holds a NUL byte: {raw!r}")
    return raw
