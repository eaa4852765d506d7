"""The processes of one sandbox, through its own /proc: who holds a mount, stop them, kill them.

A process is held by its open directory of /proc, never by its number: what is read and what is signalled is the same
process, however fast numbers are used again (pidfd_send_signal(2) takes such a descriptor). Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from supervisor.errors import LaunchError
from supervisor.linux import mountinfo, statx
from supervisor.linux.clone import CloneFlags, setns
from supervisor.linux.statfs import fs_type

INIT: Final = 1
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LINKS: Final = ("cwd", "root", "exe")
# States of /proc/PID/stat in which a process runs no further: stopped, traced, dead.
_AT_REST: Final = "TtZX"
_DEAD: Final = ("Z", "X")
_NAMESPACE: Final = "mnt:["
_MAPS_FIELDS: Final = 6


@dataclass(frozen=True, slots=True)
class Sought:
    """What holders are sought of.

    Attributes:
        mounts: Mount id → where it is mounted now.
        contents: Device and root of the mounts, as another mount namespace would show copies of them.
        below: Devices of what the mounts cover; a mapping of a file there is no holder.
        namespace: Inode of the sandbox's own mount namespace.
    """

    mounts: dict[int, bytes]
    contents: frozenset[tuple[tuple[int, int], bytes]]
    below: frozenset[tuple[int, int]]
    namespace: int

    def may_be(self, link: bytes) -> bool:
        """Return whether a link of /proc reads like something in one of the mounts."""
        return any(link.startswith(point) and link[len(point) :][:1] in (b"", b"/", b" ") for point in self.points)

    @property
    def points(self) -> list[bytes]:
        return list(self.mounts.values())

    @property
    def starts(self) -> tuple[str, ...]:
        """How a link begins that may lead to one of the mounts, or keep another mount namespace."""
        return (*(os.fsdecode(point) for point in self.points), _NAMESPACE)


class Depth(Enum):
    """How closely a process is looked at.

    Attributes:
        LINKS: Its descriptors, directory, root and program; of the first thread, as the next one.
        MAPPINGS: Its mappings too.
        THREADS: Each thread: one may have descriptors or a directory of its own (unshare(2)). One that cannot be
            looked at counts as a holder then: without root, a process can close its own (prctl(2)).
    """

    LINKS = 0
    MAPPINGS = 1
    THREADS = 2


class Processes:
    """The processes that the /proc of the session shows whose mount namespace the caller has joined."""

    def __init__(self) -> None:
        self._fd = os.open("/proc", _DIRECTORY)
        if fs_type(self._fd) != "proc":
            raise LaunchError("look at the session's processes", 0, f"its /proc is a {fs_type(self._fd)}")

    def close(self) -> None:
        os.close(self._fd)

    def numbers(self) -> list[int]:
        """Return the numbers of all processes, as the sandbox counts."""
        return [int(name) for name in os.listdir(self._fd) if name.isdigit()]

    @contextlib.contextmanager
    def opened(self, number: int) -> Iterator[int]:
        """Give the process's directory; -1 when it has ended."""
        try:
            fd = os.open(str(number), _DIRECTORY, dir_fd=self._fd)
        except OSError:
            yield -1
            return
        try:
            yield fd
        finally:
            os.close(fd)

    def states(self) -> dict[int, str]:
        """Return the state letter of each process (proc_pid_stat(5))."""
        found = {}
        for number in self.numbers():
            with self.opened(number) as fd:
                state = _state(fd) if fd >= 0 else ""
            if state:
                found[number] = state
        return found

    def kill_where(self, is_holder: Callable[[int], bool]) -> tuple[set[int], bool]:
        """Kill each process that *is_holder* says so of; returns them, and whether the sandbox's init is one."""
        killed: set[int] = set()
        for number in self.numbers():
            with self.opened(number) as fd:
                if fd < 0 or not is_holder(fd):
                    continue
                if number == INIT:
                    return killed, True
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    killed.add(number)
        return killed, False

    def is_alive(self, number: int) -> bool:
        """Return whether a thread of the process is left."""
        with self.opened(number) as fd:
            try:
                return fd >= 0 and any(_state(fd, f"task/{name}/") not in _DEAD for name in _names(fd, "task"))
            except OSError:
                return False

    def resume(self, numbers: set[int]) -> None:
        """Send SIGCONT to those of *numbers* that are left."""
        for number in numbers:
            with self.opened(number) as fd, contextlib.suppress(OSError):
                if fd >= 0:
                    signal.pidfd_send_signal(fd, signal.SIGCONT)


def is_at_rest(state: str) -> bool:
    """Return whether a process of this state goes no further; one that waits in the kernel (D) will, and is not."""
    return state in _AT_REST


def holds(fd: int, sought: Sought, depth: Depth) -> bool:
    """Return whether the process of /proc directory *fd* holds one of the mounts; the first finding ends the search.

    Args:
        depth: How closely to look, since mappings cost as much as all the rest.
    """
    if is_elsewhere(fd, sought):
        return True
    try:
        # The first thread may have ended before the others.
        deep = depth is Depth.THREADS or _state(fd) in _DEAD
        tasks = [f"task/{name}/" for name in _names(fd, "task")] if deep else [""]
    except OSError:  # it has ended
        return False
    for task in tasks:
        try:
            if _links_hold(fd, task, sought) or (depth is not Depth.LINKS and _maps(fd, task, sought)):
                return True
        except PermissionError:
            if depth is Depth.THREADS and _state(fd, task) not in _DEAD:
                return True
        except OSError:
            continue
    return False


def is_elsewhere(fd: int, sought: Sought) -> bool:
    """Return whether the process lives in a mount namespace of its own that has copies of the mounts."""
    try:
        if os.stat("ns/mnt", dir_fd=fd).st_ino == sought.namespace:
            return False
        return any((entry.device, entry.root) in sought.contents for entry in mountinfo.read_at(fd))
    except OSError:  # it has ended: a zombie has no namespaces
        return False


def holds_namespace(fd: int, sought: Sought) -> bool:
    """Return whether a descriptor of the process keeps another mount namespace, where copies may be."""
    try:
        tasks = _names(fd, "task")
    except OSError:
        return False
    for task in tasks:
        try:
            links = [link for _name, link, _table in _descriptors(fd, f"task/{task}/fd")]
        except OSError:
            continue
        if any(_is_namespace(link, sought) for link in links):
            return True
    return False


def _links_hold(fd: int, task: str, sought: Sought) -> bool:
    points = sought.starts
    for name in _LINKS:
        try:
            link = os.readlink(task + name, dir_fd=fd)
        except OSError:
            continue
        if link.startswith(points) and _lies_on(fd, task + name, sought):
            return True
    for name, link, table in _descriptors(fd, f"{task}fd"):
        if link.startswith(points) and (_is_namespace(link, sought) or _lies_on(table, name, sought)):
            return True
    return False


def _is_namespace(link: str, sought: Sought) -> bool:
    return link.startswith(_NAMESPACE) and link != f"{_NAMESPACE}{sought.namespace}]"


def _descriptors(fd: int, path: str) -> Iterator[tuple[str, str, int]]:
    """Yield name and target of each descriptor, and the open directory that both are in."""
    table = os.open(path, _DIRECTORY, dir_fd=fd)
    try:
        for name in os.listdir(table):
            try:
                yield name, os.readlink(name, dir_fd=table), table
            except FileNotFoundError:
                continue
    finally:
        os.close(table)


def _lies_on(dir_fd: int, name: str, sought: Sought) -> bool:
    try:
        return statx.mount_id(dir_fd, name) in sought.mounts
    except OSError:
        return False


def _maps(fd: int, task: str, sought: Sought) -> bool:
    """Look for a mapping by path and device: maps names no mounts (proc_pid_maps(5))."""
    with open(os.open(f"{task}maps", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd), "rb") as file:
        text = file.read()
    if not any(point.replace(b"\n", b"\\012") in text for point in sought.points):
        return False
    for line in text.splitlines():
        fields = line.split(None, 5)
        if len(fields) == _MAPS_FIELDS and sought.may_be(fields[5].replace(b"\\012", b"\n")):
            major, _, minor = fields[3].partition(b":")
            if (int(major, 16), int(minor, 16)) not in sought.below:
                return True
    return False


def _names(fd: int, path: str) -> list[str]:
    directory = os.open(path, _DIRECTORY, dir_fd=fd)
    try:
        return os.listdir(directory)
    finally:
        os.close(directory)


def _state(fd: int, task: str = "") -> str:
    try:
        with open(os.open(f"{task}stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd), "rb") as file:
            return chr(file.read(4096).rpartition(b")")[2].split()[0][0])
    except OSError:
        return "X"


def signal_all_inside(pidfd: int, number: int) -> None:
    """Signal every process of the pid namespace of *pidfd* but its init, in one kernel pass (kill(2), pid -1)."""
    pid = os.fork()
    if pid == 0:
        try:
            setns(pidfd, CloneFlags.NEWPID)
            inner = os.fork()
            if inner == 0:
                with contextlib.suppress(OSError):
                    os.kill(-1, number)
                os._exit(0)
            os.waitpid(inner, 0)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
