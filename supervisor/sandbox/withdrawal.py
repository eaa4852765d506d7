"""Taking mounts of a running sandbox back, with a proof: umount2(2) without MNT_DETACH returned 0.

As long as anybody holds a mount (a descriptor, O_PATH, a mapping, a directory he stands in, a descriptor on its way
through a socket) the call says EBUSY. Then the session is frozen, who holds it is killed, and at the end, if nothing
else helps, the session. What can copy mounts into a namespace of its own (nested sandboxes) is a holder too.
Standard library only: runs in the launcher's child.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

from supervisor.errors import LaunchError, RefusedError
from supervisor.linux import cgroup, mount, mountinfo, seqpacket, statx, ustat
from supervisor.linux.mountinfo import Mount
from supervisor.linux.openat2 import openat2
from supervisor.sandbox import child
from supervisor.sandbox.live_tree import enter, own_devices, writable
from supervisor.sandbox.processes import (
    INIT,
    Depth,
    Processes,
    Sought,
    holds,
    holds_namespace,
    is_at_rest,
    is_elsewhere,
    signal_all_inside,
)
from supervisor.sandbox.root_tree import RESOLVE_STRICT, parts_of

# How long a freeze may take before the search begins all the same: unmounting is exact with or without it.
FREEZE_S: Final = 0.02
# How long killed holders get to be gone, and a whole killed session; a kill that takes longer hangs in the kernel.
GONE_S: Final = 2.0
SESSION_GONE_S: Final = 10.0
# How long it may be held by nobody that can be found, such as a helper of ours that is about to end.
TRANSIENT_S: Final = 0.01
# Searches before the session is given up; whom the last one kills is waited for.
ROUNDS: Final = (Depth.LINKS, Depth.MAPPINGS, Depth.THREADS, Depth.THREADS)
_PAUSE_S: Final = 0.0003
_HASTE: Final = 10


@dataclass(frozen=True, slots=True)
class Site:
    """The session to work on, as the launcher knows it.

    Attributes:
        group_fd: Its control group, or -1.
        is_frozen: It was before, and stays so.
    """

    pidfd: int
    group_fd: int
    is_frozen: bool


def start_withdrawal(sock: socket.socket, site: Site) -> NoReturn:
    """Take back the mounts that the message on *sock* names; answer how it ended. The launcher thaws afterwards."""

    def body() -> None:
        with contextlib.suppress(OSError):  # rootless it may not: the bound is for a busy machine too
            os.nice(-_HASTE)
        child.reset({sock.fileno(), site.pidfd, *([site.group_fd] if site.group_fd >= 0 else [])})
        plan, fds = child.receive_plan(sock)
        seqpacket.close_all(list(fds.values()))
        start = time.monotonic()
        wanted = _check(plan)
        proc_fd = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        enter(site.pidfd, proc_fd)
        withdrawal = Withdrawal(site, proc_fd, wanted)
        answer = withdrawal.run()
        answer["took_ms"] = (time.monotonic() - start) * 1000
        seqpacket.send_json(sock, answer, tuple(withdrawal.kept))
        withdrawal.resume()

    child.run_guarded(sock, body)


def _check(plan: dict[str, Any]) -> dict[int, tuple[int, int]]:
    """Return mount id → device of what is to be taken back."""
    raw = plan.get("mounts")
    try:
        if not isinstance(raw, list) or not raw:
            raise ValueError("names no mounts")
        wanted = {}
        for item in raw:
            numbers = [item["id"], *item["device"]]
            if [type(number) for number in numbers] != [int, int, int]:
                raise ValueError(f"mount {item!r:.80}: want an id and a device of two numbers")
            wanted[numbers[0]] = (numbers[1], numbers[2])
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError(f"launcher refused the withdrawal: {error}") from error
    return wanted


class Withdrawal:
    """One go at a set of mounts; `kept` are descriptors of staged ones, whose disk the last holder writes back."""

    def __init__(self, site: Site, proc_fd: int, wanted: dict[int, tuple[int, int]]) -> None:
        self._site = site
        self._proc_fd = proc_fd
        self._processes = Processes()
        self._namespace = os.stat("ns/mnt", dir_fd=proc_fd).st_ino
        self._own = own_devices(proc_fd)
        self._all = self._find(wanted)
        self._wanted = frozenset(wanted)
        self._left = [entry.mount_id for entry in self._all]
        self._stopped: set[int] = set()
        self._killed: set[int] = set()
        self._ended = "unmounted"
        self.kept: list[int] = []

    def run(self) -> dict[str, Any]:
        """Take everything back; returns only when nothing of it is held.

        Raises:
            LaunchError: Even the session's end did not let go.
        """
        if not (self._unmount() and self._is_proved()):
            self._freeze()
            self._take_by_force()
        also = [entry.mount_id for entry in self._all if entry.mount_id not in self._wanted]
        return {"event": "withdrawn", "ended": self._ended, "killed": len(self._killed), "also": also}

    # ---- what is mounted ----

    def _find(self, wanted: dict[int, tuple[int, int]]) -> list[Mount]:
        """Return the mounts and what lies on them, the uppermost first; one that is gone is not looked for."""
        entries = mountinfo.read_at(self._proc_fd)
        found = {entry.mount_id: entry for entry in entries if wanted.get(entry.mount_id) == entry.device}
        order = list(found.values())
        for entry in order:  # grows meanwhile: what lies on what lies on it
            for other in entries:
                if other.parent_id == entry.mount_id and other.mount_id not in found:
                    found[other.mount_id] = other
                    order.append(other)
        depth = {entry.mount_id: _depth(entry, found) for entry in order}
        self._devices = {entry.mount_id: entry.device for entry in entries}
        return sorted(order, key=lambda entry: -depth[entry.mount_id])

    def _unmount(self) -> bool:
        """Unmount what nobody holds; returns whether that was all of it."""
        if self._left:
            now = {entry.mount_id: entry for entry in mountinfo.read_at(self._proc_fd, frozenset(self._left))}
            self._left = [number for number in self._left if number in now and not self._unmount_one(now[number])]
        return not self._left

    def _unmount_one(self, entry: Mount) -> bool:
        """Unmount by a directory that is held and a name that cannot move: nobody renames a mount point."""
        above, _, name = entry.mount_point.rpartition(b"/")
        kept = -1
        try:
            directory = openat2(self._root_fd(), parts_of(os.fsdecode(above)) or b".", os.O_PATH, RESOLVE_STRICT)
            try:
                os.fchdir(directory)
            finally:
                os.close(directory)
            place = openat2(mount.AT_FDCWD, name, os.O_PATH, RESOLVE_STRICT)
            try:
                if statx.mount_id(place) != entry.mount_id:
                    return False  # moved meanwhile, or something lies on it
                if _is_staged(entry):
                    kept = mount.clone_tree(place)
            finally:
                os.close(place)
            mount.umount2(name, mount.UMOUNT_NOFOLLOW)
            self._remove_place(name)
        except OSError as error:
            if kept >= 0:
                os.close(kept)
            if error.errno in (errno.EBUSY, errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.EXDEV):
                return False
            raise
        finally:
            os.chdir("/")
        if kept >= 0:
            self.kept.append(kept)
        return True

    def _remove_place(self, name: bytes) -> None:
        """Remove what the mount lay on in the working directory: an empty file would look like an answer.

        Only what the grant made is empty, on the sandbox's own tmpfs and no stub; anything else stays.
        """
        with contextlib.suppress(OSError):
            if os.stat(".").st_dev not in self._own:
                return
            place = os.stat(name, follow_symlinks=False)
            if not stat.S_IMODE(place.st_mode) or (place.st_size and stat.S_ISREG(place.st_mode)):
                return
            here = openat2(mount.AT_FDCWD, b".", os.O_PATH, RESOLVE_STRICT)
            try:
                with writable(here) as directory:
                    (os.rmdir if stat.S_ISDIR(place.st_mode) else os.unlink)(name, dir_fd=directory)
            finally:
                os.close(here)

    def _root_fd(self) -> int:
        os.chdir("/")
        return mount.AT_FDCWD

    # ---- who holds it ----

    def _sought(self) -> Sought:
        now = {entry.mount_id: entry for entry in mountinfo.read_at(self._proc_fd, frozenset(self._left))}
        return Sought(
            {number: entry.mount_point for number, entry in now.items()},
            frozenset((entry.device, entry.root) for entry in self._all),
            frozenset(self._devices.get(entry.parent_id, (-1, -1)) for entry in self._all),
            self._namespace,
        )

    def _is_proved(self) -> bool:
        """Return whether no copy is left in another mount namespace: the kernel says so, or nobody is in any."""
        unsure = [entry for entry in self._all if not _has_gone(entry)]
        if not unsure:
            return True
        sought = self._sought()
        return not any(self._each(lambda fd: is_elsewhere(fd, sought) or holds_namespace(fd, sought)))

    def _each(self, ask: Callable[[int], bool]) -> list[bool]:
        answers = []
        for number in self._processes.numbers():
            with self._processes.opened(number) as fd:
                answers.append(fd >= 0 and ask(fd))
        return answers

    def _take_by_force(self) -> None:
        for turn, depth in enumerate(ROUNDS):
            if self._is_done():
                return
            sought = self._sought()
            killed, is_init = self._processes.kill_where(partial(holds, sought=sought, depth=depth))
            if killed:
                self._killed |= killed
                self._ended = "holders killed"
            if is_init:
                break
            if self._wait_done(GONE_S if killed else TRANSIENT_S * turn, killed):
                return
        self._end_session()

    def _is_done(self) -> bool:
        return self._unmount() and self._is_proved()

    def _wait_done(self, timeout_s: float, killed: Iterable[int] = ()) -> bool:
        """Wait until all is proved; not longer than *killed* are dying, if somebody was."""
        deadline = time.monotonic() + timeout_s
        while True:
            dying = not killed or any(self._processes.is_alive(number) for number in killed)
            if self._is_done():
                return True
            if not dying or time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_S)

    def _end_session(self) -> None:
        self._ended = "session killed"
        if self._site.group_fd >= 0:
            cgroup.kill(self._site.group_fd)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._site.pidfd, signal.SIGKILL)
        if not self._wait_done(SESSION_GONE_S):
            places = ", ".join(os.fsdecode(entry.mount_point) for entry in self._all if entry.mount_id in self._left)
            raise LaunchError(f"take back {places}", errno.EBUSY, "the session was killed and it is still held")

    # ---- still ----

    def _freeze(self) -> None:
        if self._site.is_frozen:
            return
        if self._site.group_fd >= 0:
            cgroup.set_frozen(self._site.group_fd, True, FREEZE_S)
            return
        before = {number for number, state in self._processes.states().items() if is_at_rest(state)}
        deadline = time.monotonic() + FREEZE_S
        while True:
            signal_all_inside(self._site.pidfd, signal.SIGSTOP)
            states = {number: state for number, state in self._processes.states().items() if number != INIT}
            if all(map(is_at_rest, states.values())) or time.monotonic() > deadline:
                break
        self._stopped = states.keys() - before

    def resume(self) -> None:
        """Let go on what was stopped here; a control group is thawed by the launcher, who knows what else holds it."""
        if self._stopped and self._ended != "session killed":
            self._processes.resume(self._stopped)


def _depth(entry: Mount, known: dict[int, Mount]) -> int:
    depth = 0
    while entry.parent_id in known:
        entry = known[entry.parent_id]
        depth += 1
    return depth


def _is_staged(entry: Mount) -> bool:
    return entry.fs_type == "overlay" and any(option.startswith("upperdir=") for option in entry.super_options)


def _has_gone(entry: Mount) -> bool:
    """Return whether the kernel says that nothing is left of the mount anywhere: its own file system is dead."""
    return entry.fs_type == "overlay" and not _is_staged(entry) and ustat.is_alive(entry.device) is False
