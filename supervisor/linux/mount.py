"""The mount calls: descriptors in, descriptors out, never a path string as a source.

open_tree(2), move_mount(2), mount_setattr(2), fsopen(2), fsconfig(2), fsmount(2), umount2(2), pivot_root(2).
Standard library only; used in the launcher's child before exec.
"""

from __future__ import annotations

import ctypes
import os
from enum import IntFlag
from typing import Final

from supervisor.linux.libc import Path, check, encode, libc, syscall

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
AT_SYMLINK_NOFOLLOW: Final = 0x100
OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_SET_FD: Final = 5
FSCONFIG_CMD_CREATE: Final = 6
FSOPEN_CLOEXEC: Final = 1
FSMOUNT_CLOEXEC: Final = 1

MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19


class MountAttr(IntFlag):
    """MOUNT_ATTR_*, linux/mount.h."""

    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    NOATIME = 0x10
    NOSYMFOLLOW = 0x200000
    IDMAP = 0x100000


class MountAttrStruct(ctypes.Structure):
    """struct mount_attr, linux/mount.h (version 0, 32 bytes)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def open_tree(dir_fd: int, path: Path, flags: int) -> int:
    """Return a descriptor of the mount at *path*; with OPEN_TREE_CLONE of a detached copy the caller owns."""
    return syscall(
        "open_tree",
        ctypes.c_int(dir_fd),
        ctypes.c_char_p(encode(path)),
        ctypes.c_uint(flags | OPEN_TREE_CLOEXEC),
        path=path,
    )


def clone_tree(fd: int, recursive: bool = False) -> int:
    """Return a detached bind mount of what *fd* (O_PATH will do) refers to."""
    return open_tree(fd, b"", OPEN_TREE_CLONE | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0))


def move_mount(from_fd: int, to_dir_fd: int, to_path: Path = b"") -> None:
    """Attach the detached mount *from_fd* at *to_path*; an empty path means *to_dir_fd* itself."""
    flags = MOVE_MOUNT_F_EMPTY_PATH
    if not to_path:
        flags |= MOVE_MOUNT_T_EMPTY_PATH
    syscall(
        "move_mount",
        ctypes.c_int(from_fd),
        ctypes.c_char_p(b""),
        ctypes.c_int(to_dir_fd),
        ctypes.c_char_p(encode(to_path)),
        ctypes.c_uint(flags),
        path=to_path,
    )


def mount_setattr(
    fd: int, attr_set: int, attr_clr: int = 0, userns_fd: int = 0, recursive: bool = False, propagation: int = 0
) -> None:
    """Change the attributes of the mount *fd*; MOUNT_ATTR_IDMAP takes its mapping from *userns_fd*.

    *propagation* is 0 (as it is) or MS_PRIVATE, MS_SLAVE: a clone is a peer of what it was cloned from.
    """
    attr = MountAttrStruct(attr_set, attr_clr, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(
        "mount_setattr",
        ctypes.c_int(fd),
        ctypes.c_char_p(b""),
        ctypes.c_uint(flags),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )


def fsopen(fs_type: str) -> int:
    """Open a file system context of *fs_type*; the caller owns the descriptor."""
    return syscall("fsopen", ctypes.c_char_p(fs_type.encode()), ctypes.c_uint(FSOPEN_CLOEXEC), path=fs_type)


def fsconfig_set(context_fd: int, key: str, value: Path | None = None) -> None:
    """Set option *key*; *value* None is a flag. Bytes pass through raw (overlay still splits colon and backslash)."""
    if value is None:
        command, raw = FSCONFIG_SET_FLAG, None
    else:
        command, raw = FSCONFIG_SET_STRING, encode(value)
    try:
        syscall(
            "fsconfig",
            ctypes.c_int(context_fd),
            ctypes.c_uint(command),
            ctypes.c_char_p(key.encode()),
            ctypes.c_char_p(raw),
            ctypes.c_int(0),
        )
    except OSError as error:
        raise OSError(
            error.errno, f"option {key}: {_context_log(context_fd) or os.strerror(error.errno or 0)}"
        ) from None


def fsconfig_create(context_fd: int) -> None:
    """Create the superblock of the context."""
    try:
        syscall(
            "fsconfig",
            ctypes.c_int(context_fd),
            ctypes.c_uint(FSCONFIG_CMD_CREATE),
            ctypes.c_char_p(None),
            ctypes.c_char_p(None),
            ctypes.c_int(0),
        )
    except OSError as error:
        raise OSError(error.errno, _context_log(context_fd) or os.strerror(error.errno or 0)) from None


def fsmount(context_fd: int, attributes: int = 0) -> int:
    """Return a detached mount of the created context; the caller owns the descriptor."""
    return syscall("fsmount", ctypes.c_int(context_fd), ctypes.c_uint(FSMOUNT_CLOEXEC), ctypes.c_uint(int(attributes)))


def new_mount(fs_type: str, options: dict[str, Path | None], attributes: int = 0) -> int:
    """Return a detached mount of a new superblock of *fs_type* with *options*."""
    context = fsopen(fs_type)
    try:
        for key, value in options.items():
            fsconfig_set(context, key, value)
        fsconfig_create(context)
        return fsmount(context, attributes)
    finally:
        os.close(context)


def _context_log(context_fd: int) -> str:
    """Read what the file system said; each message is prefixed ``e ``, ``w `` or ``i `` (fsopen(2))."""
    lines = []
    try:
        while True:
            lines.append(os.read(context_fd, 4096).decode(errors="replace").strip())
    except OSError:
        pass
    return "; ".join(line[2:] for line in lines if line.startswith("e "))


def umount2(path: Path, flags: int = 0) -> None:
    """Unmount; with flags 0 EBUSY proves that somebody still holds the mount."""
    check(libc.umount2(ctypes.c_char_p(encode(path)), ctypes.c_int(flags)), "umount2", path)


def pivot_root(new_root: Path, put_old: Path) -> None:
    """Make *new_root* the root of this mount namespace; ``pivot_root(".", ".")`` stacks the old one on top."""
    syscall("pivot_root", ctypes.c_char_p(encode(new_root)), ctypes.c_char_p(encode(put_old)), path=new_root)


def set_propagation(path: Path, flags: int) -> None:
    """Change the propagation of the mount at *path* (MS_SLAVE, MS_PRIVATE, with MS_REC)."""
    result = libc.mount(None, ctypes.c_char_p(encode(path)), None, ctypes.c_ulong(flags), None)
    check(result, "mount --make-*", path)
