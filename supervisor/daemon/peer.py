"""Whether a process that connected to a session's socket is in that session, by the kernel's word alone.

Steps: 1. its uid; 2. hold it by pidfd, so that its number cannot pass to another; 3. its control group, where the
session has one; 4. its pid namespace, where it may be read (ptrace(2), access mode checking: not from another uid),
else its ancestors; 5. it is still the same process. unix(7) SO_PEERCRED and SO_PEERPIDFD tell who it was at connect().
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from supervisor.errors import RefusedError
from supervisor.linux import cgroup, seqpacket

# Deeper than any tree of processes that a session may have.
_MAX_ANCESTORS: Final = 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session's processes are.

    Attributes:
        pid_namespace: The inode of its pid namespace; 0 where the daemon could not read it.
        cgroup: The path of its control group in the hierarchy (cgroups(7)), or "" without one.
        roots: Its first process and that of each later `exec` in it, as pids here. The owner may add to it.
    """

    session: str
    agent_uid: int
    pid_namespace: int
    cgroup: str
    roots: Collection[int]


def check(sock: socket.socket, place: Place) -> int:
    """Check who is at the other end of *sock*; returns its pid.

    Raises:
        RefusedError: It is not in that session, or nobody can tell.
    """
    peer = seqpacket.peer_of(sock)
    if peer.uid != place.agent_uid:
        raise RefusedError(f"peer has uid {peer.uid}, want {place.agent_uid}")
    pidfd = _hold(sock)
    try:
        before = 0 if pidfd is not None else _start_time(peer.pid)
        _check_group(peer.pid, place)
        _check_namespace(peer.pid, place)
        same = _is_alive(pidfd) if pidfd is not None else _start_time(peer.pid) == before
    except OSError as error:
        raise RefusedError(f"peer {peer.pid} cannot be looked at: {os.strerror(error.errno or 0)}") from error
    finally:
        if pidfd is not None:
            os.close(pidfd)
    if not same:
        raise RefusedError(f"peer {peer.pid} ended while it was looked at")
    return int(peer.pid)


def _hold(sock: socket.socket) -> int | None:
    """Return a pidfd of the peer, or None on a kernel before 6.5.

    Raises:
        RefusedError: The peer is gone already: its number may belong to another by now.
    """
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, seqpacket.SO_PEERPIDFD, 4)
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return None
        raise RefusedError("peer is gone") from error
    pidfd: int = struct.unpack("=i", raw)[0]
    return pidfd


def _is_alive(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def _check_group(pid: int, place: Place) -> None:
    if not place.cgroup:
        return
    group = cgroup.own_group(pid)
    if group != place.cgroup and not group.startswith(f"{place.cgroup}/"):
        raise RefusedError(f"peer {pid} is in the control group {group!r}, want {place.cgroup!r}")


def _check_namespace(pid: int, place: Place) -> None:
    """Accept the session's namespace, and one nested in it; without leave to read it, who descends from the session."""
    namespace = 0
    with contextlib.suppress(PermissionError):
        namespace = os.stat(f"/proc/{pid}/ns/pid").st_ino
    if place.pid_namespace and namespace == place.pid_namespace:
        return
    if not _descends(pid, place.roots):
        raise RefusedError(f"peer {pid} is outside the session's pid namespace")


def _descends(pid: int, roots: Collection[int]) -> bool:
    """Return whether *pid* is one of *roots* or below one: who loses its parent gets its namespace's first process."""
    for _ in range(_MAX_ANCESTORS):
        if pid in roots:
            return True
        if pid <= 1:
            return False
        pid = int(_stat_fields(pid)[1])
    return False


def _start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot."""
    return int(_stat_fields(pid)[19])


def _stat_fields(pid: int) -> list[str]:
    """Return proc_pid_stat(5) from its third field on; the second, a name in brackets, may hold anything."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()
