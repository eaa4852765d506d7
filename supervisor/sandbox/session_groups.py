"""The control groups of a launcher's sessions: one directory each, to kill, freeze and limit a session whole.

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from supervisor.linux import cgroup

_LIMITS: Final = ("memory.max", "memory.swap.max", "pids.max", "cpu.weight", "io.weight")
# A group whose last process has just been reaped may stay busy for a moment.
_BUSY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Group:
    """A session's group; without one (`fd` -1) its tree is known by its pid namespace alone."""

    fd: int = -1
    name: str = ""

    def __bool__(self) -> bool:
        return self.fd >= 0

    def limit(self, limits: Mapping[str, Any]) -> None:
        """Write the limits that the daemon may set; others are passed over.

        Raises:
            OSError: A controller is not there, or refuses the value.
        """
        for key, value in limits.items() if self else ():
            if key in _LIMITS:
                cgroup.set_limit(self.fd, key, str(int(value)))


NO_GROUP: Final = Group()


class SessionGroups:
    """A directory of its own in the launcher's group; `finding` says why there is none."""

    def __init__(self) -> None:
        self._fd, self.finding = _open_own()
        self._count = 0

    def __bool__(self) -> bool:
        return self._fd >= 0

    @property
    def controllers(self) -> tuple[str, ...]:
        """The controllers that limit each session as a whole."""
        return cgroup.available_controllers(self._fd) if self else ()

    def new(self) -> Group:
        """Make a group for one more session."""
        if not self:
            return NO_GROUP
        self._count += 1
        name = f"c{self._count}"
        os.mkdir(name, 0o755, dir_fd=self._fd)
        return Group(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd), name)

    def drop(self, group: Group) -> None:
        """Remove a group whose processes are gone."""
        if not group:
            return
        os.close(group.fd)
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                os.rmdir(group.name, dir_fd=self._fd)
                return
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    return
                time.sleep(0.001)

    def close(self) -> None:
        """Remove the directory, at the launcher's end."""
        if self:
            path = os.readlink(f"/proc/self/fd/{self._fd}")
            with contextlib.suppress(OSError):
                os.rmdir(path)
            os.close(self._fd)
            self._fd = -1


def _open_own() -> tuple[int, str]:
    root = cgroup.hierarchy()
    if root is None:
        return -1, "no cgroup v2 hierarchy is mounted"
    parent = f"{root}{cgroup.own_group().rstrip('/')}"
    path = f"{parent}/deskwarden-{os.getpid()}"
    _sweep(parent)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
        fd = cgroup.open_dir(path)
    except OSError as error:
        return -1, f"no delegated cgroup directory ({path}: {os.strerror(error.errno or 0)})"
    if parent != root:
        with contextlib.suppress(OSError):  # without controllers the limits are rlimits, and the report says so
            _enable_controllers(parent, fd)
    return fd, ""


def _enable_controllers(parent: str, sessions_fd: int) -> None:
    """Have the kernel limit the groups below *sessions_fd*, as far as *parent* was given controllers (Delegate=yes).

    Only a group without processes hands controllers on (cgroups(7), "no internal processes"): the daemon and this
    launcher move to one of their own. A group that somebody else runs in, such as a login's, is left as it is.
    """
    parent_fd = cgroup.open_dir(parent)
    try:
        wanted = cgroup.offered_controllers(parent_fd)
        if not set(wanted) <= set(cgroup.available_controllers(parent_fd)):
            members = cgroup.processes(parent_fd)
            if members <= {os.getpid(), os.getppid()}:
                with contextlib.suppress(FileExistsError):
                    os.mkdir("service", 0o755, dir_fd=parent_fd)
                service_fd = cgroup.open_dir(f"{parent}/service")
                try:
                    for pid in members:
                        cgroup.move(service_fd, pid)
                finally:
                    os.close(service_fd)
                cgroup.enable_controllers(parent_fd, wanted)
        cgroup.enable_controllers(sessions_fd, cgroup.available_controllers(parent_fd))
    finally:
        os.close(parent_fd)


def _sweep(parent: str) -> None:
    """Remove the groups of launchers that were killed; one that still holds a process stays (EBUSY)."""
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            prefix, _, pid = name.partition("-")
            if prefix == "deskwarden" and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                for below in [entry.path for entry in os.scandir(f"{parent}/{name}") if entry.is_dir()]:
                    with contextlib.suppress(OSError):
                        os.rmdir(below)
                with contextlib.suppress(OSError):
                    os.rmdir(f"{parent}/{name}")
