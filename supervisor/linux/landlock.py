"""landlock(7): what a process may open, as deep as this kernel's ABI goes."""

from __future__ import annotations

import ctypes
import os
from enum import IntFlag
from typing import Final

from supervisor.linux.libc import syscall

LANDLOCK_CREATE_RULESET_VERSION: Final = 1
LANDLOCK_RULE_PATH_BENEATH: Final = 1


class AccessFs(IntFlag):
    """LANDLOCK_ACCESS_FS_*, linux/landlock.h."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ: Final = AccessFs.EXECUTE | AccessFs.READ_FILE | AccessFs.READ_DIR
WRITE: Final = READ | (
    AccessFs.WRITE_FILE
    | AccessFs.REMOVE_DIR
    | AccessFs.REMOVE_FILE
    | AccessFs.MAKE_DIR
    | AccessFs.MAKE_REG
    | AccessFs.MAKE_SOCK
    | AccessFs.MAKE_FIFO
    | AccessFs.MAKE_SYM
    | AccessFs.REFER
    | AccessFs.TRUNCATE
)
DEVICE: Final = AccessFs.READ_FILE | AccessFs.WRITE_FILE | AccessFs.IOCTL_DEV | AccessFs.READ_DIR | AccessFs.TRUNCATE
# Rights that mean something on a file; the kernel refuses (EINVAL) any other below a file.
FILE_ONLY: Final = AccessFs.EXECUTE | AccessFs.WRITE_FILE | AccessFs.READ_FILE | AccessFs.TRUNCATE | AccessFs.IOCTL_DEV
_BY_ABI: Final = ((1, (1 << 13) - 1), (2, AccessFs.REFER), (3, AccessFs.TRUNCATE), (5, AccessFs.IOCTL_DEV))


class RulesetAttr(ctypes.Structure):
    """struct landlock_ruleset_attr, linux/landlock.h (ABI 6, 24 bytes)."""

    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class PathBeneathAttr(ctypes.Structure):
    """struct landlock_path_beneath_attr, linux/landlock.h (packed, 12 bytes)."""

    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi_version() -> int:
    """Return the kernel's Landlock ABI, 0 when it has none or it is switched off."""
    try:
        return syscall(
            "landlock_create_ruleset",
            ctypes.c_void_p(None),
            ctypes.c_size_t(0),
            ctypes.c_uint(LANDLOCK_CREATE_RULESET_VERSION),
        )
    except OSError:
        return 0


def handled_access(abi: int) -> AccessFs:
    """Return every file system right that ABI *abi* knows: all of them are handled, so none is open by omission."""
    handled = 0
    for version, rights in _BY_ABI:
        if abi >= version:
            handled |= int(rights)
    return AccessFs(handled)


def create_ruleset(abi: int) -> int:
    """Return a ruleset descriptor that handles every file system right of *abi*."""
    attr = RulesetAttr(int(handled_access(abi)), 0, 0)
    return syscall(
        "landlock_create_ruleset",
        ctypes.byref(attr),
        ctypes.c_size_t(8 if abi < 4 else 16 if abi < 6 else 24),
        ctypes.c_uint(0),
    )


def allow_beneath(ruleset_fd: int, path_fd: int, access: int, abi: int) -> None:
    """Allow *access* on what *path_fd* (O_PATH) refers to and everything below, mounts made later included."""
    attr = PathBeneathAttr(access & int(handled_access(abi)), path_fd)
    syscall(
        "landlock_add_rule",
        ctypes.c_int(ruleset_fd),
        ctypes.c_int(LANDLOCK_RULE_PATH_BENEATH),
        ctypes.byref(attr),
        ctypes.c_uint(0),
    )


def restrict_self(ruleset_fd: int) -> None:
    """Enforce the ruleset on this thread and all its children; needs no_new_privs."""
    syscall("landlock_restrict_self", ctypes.c_int(ruleset_fd), ctypes.c_uint(0))


def open_path(path: str | bytes) -> int:
    """Open *path* as a rule's anchor (O_PATH, no symlink followed)."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
