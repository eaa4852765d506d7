"""Sandboxes cloned ahead of their session: a bare one, and those that have built a base (ADR 6).

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from supervisor.errors import LaunchError
from supervisor.linux import seqpacket
from supervisor.linux.clone import NEW_SANDBOX, clone3
from supervisor.sandbox import child
from supervisor.sandbox.session_groups import Group, SessionGroups

# How many profiles (with their limits) are held ready, and how long a session waits for a base that is being built.
BASES: Final = 3
BASE_WAIT_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Spare:
    """A cloned sandbox that waits for its plan; the socket arrives through `gate`."""

    pid: int
    pidfd: int
    gate: socket.socket
    group: Group

    def is_alive(self) -> bool:
        """Return whether nobody killed it: the kernel, out of memory, or an administrator."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)


class Spares:
    """What is held ready; *start* is what a clone does with its gate."""

    def __init__(self, groups: SessionGroups, start: Callable[[socket.socket], NoReturn]) -> None:
        self._groups = groups
        self._start = start
        self._bare: Spare | None = None
        self._bases: dict[str, Spare] = {}

    @property
    def has_bare(self) -> bool:
        """Whether a clone without a base waits."""
        return self._bare is not None

    def make_bare(self) -> None:
        """Clone the next sandbox ahead of its plan: new namespaces cost more than most of what follows."""
        with contextlib.suppress(LaunchError):  # the next session asks again, and hears why
            self._bare = self._clone()

    def build(self, base: str, plan_fd: int) -> None:
        """Have a spare build *base*, which the socket *plan_fd* brings; the oldest of more than `BASES` goes."""
        if base in self._bases:
            return
        spare = self._bases[base] = self._take_bare()
        with contextlib.suppress(OSError):  # it died: `take` finds out
            seqpacket.send(spare.gate, child.BASE, (plan_fd,))
        while len(self._bases) > BASES:
            self.drop(self._bases.pop(next(iter(self._bases))))

    def take(self, base: str) -> tuple[Spare, bool]:
        """Return a spare for a session, and whether it has built *base*."""
        spare = self._bases.pop(base, None)
        if spare is not None:
            if _has_built(spare):
                return spare, True
            self.drop(spare)
        return self._take_bare(), False

    def drop(self, spare: Spare) -> None:
        """End a spare; waits until nothing of it is left."""
        spare.gate.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(spare.pidfd, signal.SIGKILL)
        os.waitpid(spare.pid, 0)
        os.close(spare.pidfd)
        self._groups.drop(spare.group)

    def drop_bases(self) -> None:
        """End the spares that have built, or are building, a base."""
        while self._bases:
            self.drop(self._bases.popitem()[1])

    def drop_all(self) -> None:
        """End every spare."""
        self.drop_bases()
        if self._bare is not None:
            self.drop(self._bare)
            self._bare = None

    def _take_bare(self) -> Spare:
        spare, self._bare = self._bare, None
        if spare is not None and not spare.is_alive():
            self.drop(spare)
            spare = None
        return spare or self._clone()

    def _clone(self) -> Spare:
        """Clone one that has seen no session; it waits on its gate, and exits when that closes with the launcher."""
        group = self._groups.new()
        ours, theirs = seqpacket.pair()
        try:
            pid, pidfd = clone3(NEW_SANDBOX, group.fd if group else None)
        except OSError as error:
            ours.close()
            theirs.close()
            self._groups.drop(group)
            raise LaunchError("create namespaces", error.errno or 0) from error
        if pid == 0:
            self._start(theirs)
        theirs.close()
        return Spare(pid, pidfd, ours, group)


def _has_built(spare: Spare) -> bool:
    """Return whether a spare's base stands, waiting a moment for one that is at it."""
    spare.gate.settimeout(BASE_WAIT_S)
    try:
        said, _fds = seqpacket.receive(spare.gate)
    except OSError:
        return False
    spare.gate.settimeout(None)
    return said == child.BASE and spare.is_alive()
