"""cgroups(7), version 2: one directory a session; kill and freeze need no controller."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Final

from supervisor.linux.mountinfo import read

CONTROLLERS: Final = ("memory", "pids", "cpu", "io")


def hierarchy() -> str | None:
    """Return where the version 2 hierarchy is mounted, or None."""
    for mount in read():
        if mount.fs_type == "cgroup2":
            return os.fsdecode(mount.mount_point)
    return None


def own_group(pid: int | str = "self") -> str:
    """Return the version 2 cgroup path of a process, e.g. ``/user.slice/…`` (the line ``0::``)."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.startswith("0::"):
                return line[3:].rstrip("\n")
    return "/"


def open_dir(path: str) -> int:
    """Return a descriptor of a cgroup directory, as CLONE_INTO_CGROUP wants it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _write(dir_fd: int, name: str, value: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read_file(dir_fd: int, name: str) -> str:
    """Return the text of an interface file."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        return os.read(fd, 65536).decode()
    finally:
        os.close(fd)


def kill(dir_fd: int) -> None:
    """Send SIGKILL to the whole tree (cgroup.kill, Linux 5.14)."""
    _write(dir_fd, "cgroup.kill", "1")


def set_frozen(dir_fd: int, frozen: bool, timeout_s: float = 1.0) -> bool:
    """Freeze or thaw the tree; returns whether the kernel reported it done within *timeout_s*."""
    _write(dir_fd, "cgroup.freeze", "1" if frozen else "0")
    wanted = f"frozen {int(frozen)}"
    deadline = time.monotonic() + timeout_s
    while wanted not in read_file(dir_fd, "cgroup.events"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def is_populated(dir_fd: int) -> bool:
    """Return whether a living process is in the tree."""
    return "populated 1" in read_file(dir_fd, "cgroup.events")


def available_controllers(dir_fd: int) -> tuple[str, ...]:
    """Return the controllers that children of this directory may use."""
    return tuple(read_file(dir_fd, "cgroup.subtree_control").split())


def offered_controllers(dir_fd: int) -> tuple[str, ...]:
    """Return those of `CONTROLLERS` that this directory was given and could hand on to its children."""
    offered = read_file(dir_fd, "cgroup.controllers").split()
    return tuple(name for name in CONTROLLERS if name in offered)


def enable_controllers(dir_fd: int, names: Iterable[str]) -> None:
    """Hand controllers on to the children of this directory.

    Raises:
        OSError: EBUSY while a process is in the directory itself, ENOENT for one that it was not given.
    """
    words = " ".join(f"+{name}" for name in names if name in CONTROLLERS)
    if words:
        _write(dir_fd, "cgroup.subtree_control", words)


def processes(dir_fd: int) -> set[int]:
    """Return the processes in this directory, not below it; 0 for one of another pid namespace."""
    return {int(word) for word in read_file(dir_fd, "cgroup.procs").split()}


def move(dir_fd: int, pid: int) -> None:
    """Move a process into this directory."""
    _write(dir_fd, "cgroup.procs", str(pid))


def oom_kills(dir_fd: int) -> int:
    """Return how many processes of the tree the kernel killed for want of memory (memory.events); 0 without memory."""
    try:
        lines = read_file(dir_fd, "memory.events").splitlines()
    except FileNotFoundError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def set_limit(dir_fd: int, name: str, value: str) -> None:
    """Write one interface file such as ``memory.max``."""
    _write(dir_fd, name, value)
