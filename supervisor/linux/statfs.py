"""statfs(2): the type of a file system, by the magic numbers of linux/magic.h."""

from __future__ import annotations

import ctypes
from typing import Final

from supervisor.linux.libc import check, libc

NAMES: Final = {
    0xEF53: "ext4",
    0x9123683E: "btrfs",
    0x58465342: "xfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlay",
    0x65735546: "fuse",
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x01021997: "9p",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
    0x5346544E: "ntfs",
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0xF2F52010: "f2fs",
    0x2FC12FC1: "zfs",
    0xCA451A4E: "bcachefs",
    0x73717368: "squashfs",
    0x9660: "iso9660",
}


class Statfs(ctypes.Structure):
    """struct statfs of 64-bit machines, bits/statfs.h (120 bytes)."""

    _fields_ = (
        ("f_type", ctypes.c_long),
        ("f_bsize", ctypes.c_long),
        ("f_blocks", ctypes.c_ulong),
        ("f_bfree", ctypes.c_ulong),
        ("f_bavail", ctypes.c_ulong),
        ("f_files", ctypes.c_ulong),
        ("f_ffree", ctypes.c_ulong),
        ("f_fsid", ctypes.c_int * 2),
        ("f_namelen", ctypes.c_long),
        ("f_frsize", ctypes.c_long),
        ("f_flags", ctypes.c_long),
        ("f_spare", ctypes.c_long * 4),
    )


def fs_type(fd: int) -> str:
    """Return the file system's name, or its magic number in hex when it is not in the table."""
    buffer = Statfs()
    check(libc.fstatfs(ctypes.c_int(fd), ctypes.byref(buffer)), "fstatfs")
    magic = buffer.f_type & 0xFFFFFFFF
    return NAMES.get(magic, f"0x{magic:x}")
