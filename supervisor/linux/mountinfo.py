"""proc_pid_mountinfo(5): the mounts of a namespace, as values."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo; paths as bytes with the kernel's octal escapes undone."""

    mount_id: int
    parent_id: int
    root: bytes
    mount_point: bytes
    options: tuple[str, ...]
    fs_type: str
    source: bytes
    super_options: tuple[str, ...]
    device: tuple[int, int] = (0, 0)


def unescape(field: bytes) -> bytes:
    """Undo the octal escapes of mountinfo (space, tab, newline, backslash)."""
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)


def parse(text: bytes, only: frozenset[int] | None = None) -> tuple[Mount, ...]:
    """Parse the text of a mountinfo file; *only* keeps the mounts with these ids."""
    mounts = []
    for line in text.splitlines():
        if only is not None and int(line[: line.index(b" ")]) not in only:
            continue
        fields = line.split(b" ")
        dash = fields.index(b"-", 6)
        mounts.append(
            Mount(
                mount_id=int(fields[0]),
                parent_id=int(fields[1]),
                root=unescape(fields[3]),
                mount_point=unescape(fields[4]),
                options=tuple(fields[5].decode(errors="replace").split(",")),
                fs_type=fields[dash + 1].decode(errors="replace"),
                source=unescape(fields[dash + 2]),
                super_options=tuple(fields[dash + 3].decode(errors="replace").split(",")),
                device=_device(fields[2]),
            )
        )
    return tuple(mounts)


def _device(field: bytes) -> tuple[int, int]:
    major, _, minor = field.partition(b":")
    return int(major), int(minor)


def read_at(proc_fd: int, only: frozenset[int] | None = None) -> tuple[Mount, ...]:
    """Return the mounts of the process whose directory of /proc is *proc_fd*, as seen from the caller's root."""
    fd = os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd)
    with open(fd, "rb") as file:
        return parse(file.read(), only)


def read(pid: int | str = "self", only: frozenset[int] | None = None) -> tuple[Mount, ...]:
    """Return the mounts that process *pid* sees; *only* keeps those with these ids."""
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        return parse(file.read(), only)


def mount_id_of(fd: int) -> int:
    """Return the mount id of what *fd* refers to (fdinfo, proc(5))."""
    info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for line in os.read(info, 4096).splitlines():
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    finally:
        os.close(info)
    raise OSError(2, f"fdinfo of descriptor {fd} names no mnt_id")
