"""clone3(2), unshare(2), setns(2), pidfd_open(2): new processes and namespaces.

`clone3` by raw system call is safe from a single-threaded Python only: the child runs on a copy of the same stack
and must end in exec or `os._exit`.
"""

from __future__ import annotations

import ctypes
import os
import signal
from enum import IntFlag
from typing import Final

from supervisor.linux.libc import check, libc, syscall


class CloneFlags(IntFlag):
    """CLONE_*, linux/sched.h."""

    NEWTIME = 0x80
    PIDFD = 0x1000
    NEWNS = 0x20000
    NEWCGROUP = 0x2000000
    NEWUTS = 0x4000000
    NEWIPC = 0x8000000
    NEWUSER = 0x10000000
    NEWPID = 0x20000000
    NEWNET = 0x40000000
    INTO_CGROUP = 0x200000000


# Without NEWNS: the child clones the plan's descriptors in the launcher's mount namespace first (sandbox.operations).
NEW_SANDBOX: Final = (
    CloneFlags.NEWPID | CloneFlags.NEWNET | CloneFlags.NEWIPC | CloneFlags.NEWUTS | CloneFlags.NEWCGROUP
)


class CloneArgs(ctypes.Structure):
    """struct clone_args, linux/sched.h (CLONE_ARGS_SIZE_VER2, 88 bytes)."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


def clone3(flags: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Fork with *flags*; returns (pid, pidfd) in the parent and (0, -1) in the child.

    Raises:
        OSError: EPERM without privilege for the namespaces, EBUSY or EACCES from the cgroup.
    """
    pidfd = ctypes.c_int(-1)
    args = CloneArgs(flags=flags | CloneFlags.PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=signal.SIGCHLD)
    if cgroup_fd is not None:
        args.flags |= CloneFlags.INTO_CGROUP
        args.cgroup = cgroup_fd
    pid = syscall("clone3", ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args)))
    if pid == 0:
        return 0, -1
    return pid, pidfd.value


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    check(libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, flags: int = 0) -> None:
    """Join the namespaces of *fd*: one namespace file, or a pidfd with CLONE_NEW* flags."""
    check(libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), "setns")


def map_own_ids(uid_inside: int, uid_outside: int, gid_inside: int, gid_outside: int) -> None:
    """Write the one-line maps of a user namespace that this process has just made (user_namespaces(7))."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid_inside} {uid_outside} 1"),
        ("gid_map", f"{gid_inside} {gid_outside} 1"),
    ):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def new_id_mapping(uid_map: str, gid_map: str) -> int:
    """Return a user namespace descriptor with these maps, for MOUNT_ATTR_IDMAP; nobody ever runs in it.

    Args:
        uid_map: ``<id on disk> <id seen through the mount> <count>`` lines; likewise *gid_map*.
    """
    ready_r, ready_w = os.pipe2(os.O_CLOEXEC)
    done_r, done_w = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            unshare(CloneFlags.NEWUSER)
            os.write(ready_w, b"x")
            os.close(done_w)
            os.read(done_r, 1)
        finally:
            os._exit(0)
    os.close(ready_w)
    os.close(done_r)
    try:
        if not os.read(ready_r, 1):
            raise OSError(1, "unshare user namespace for an id mapping")
        for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_r)
        os.close(done_w)
        os.waitpid(pid, 0)
