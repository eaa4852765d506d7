"""The limit on staged files, where the file system has no quota to set: watched, and the session ended above it.

A walk of an upper directory costs time, so it is made only when the disk's free space fell by more than half of what a
session has left. One file alone is bounded by RLIMIT_FSIZE at once. The report calls this ``watched``.

The walk is made by the hand of the session's owner, who can stop that process: nobody's look waits for another owner's,
and a session that cannot be measured is ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol

from supervisor.session.session import Session
from supervisor.session.tasks import Tasks

_logger = logging.getLogger(__name__)


POLL_S: Final = 0.5
# A walk over a hundred thousand files takes about one second.
DEADLINE_S: Final = 5.0
MOST_MISSES: Final = 3
LOOKS_OF_ONE_OWNER: Final = 8
KIND: Final = f"watched every {POLL_S} s, the session ends above it; one file is bounded at once"


class Watched(Protocol):
    """What the watch needs of the service."""

    def living(self) -> list[Session]:
        """Return all living sessions."""

    async def staged_bytes(self, session: Session) -> int:
        """Return how much a session has staged."""

    async def kill(self, session: Session, reason: str) -> None:
        """End a session at once; its staged files are kept."""


@dataclass(slots=True)
class _Measure:
    """What is known of one session, and the look that is under way."""

    used_bytes: int = 0
    free_bytes: int = 0
    look: asyncio.Task[int] | None = None
    next_s: float = 0.0
    misses: int = 0
    is_ended: bool = False


async def watch(service: Watched, stores_fd: int) -> None:
    """Watch all sessions until cancelled."""
    quota = Quota(service)
    while True:
        await asyncio.sleep(POLL_S)
        try:
            status = os.statvfs(stores_fd)
            quota.look_around(status.f_bfree * status.f_frsize)
        except Exception:  # whatever one session brings about, the others are still watched
            _logger.exception("the watch of staged files")


class Quota:
    """The measures of all living sessions. No look is waited for: it is asked whether it is done."""

    def __init__(self, service: Watched) -> None:
        self._service = service
        self._measures: dict[str, _Measure] = {}
        self._tasks = Tasks()

    def look_around(self, free: int) -> None:
        """Begin the looks that are due, take in those that are done, end what is above its limit or out of sight.

        Args:
            free: Bytes free on the disk of the staged files.
        """
        living = {session.record.id: session for session in self._service.living()}
        self._measures = {key: self._measures.get(key) or _Measure(free_bytes=free) for key in living}
        looking = Counter(living[key].record.owner_uid for key, one in self._measures.items() if one.look)
        for key, session in living.items():
            measure, most, uid = self._measures[key], session.profile.limits.staged_bytes, session.record.owner_uid
            if most is None or measure.is_ended:
                continue
            if measure.look is not None:
                self._take_in(session, measure, measure.look, most)
            elif _is_due(measure, most, free) and looking[uid] < LOOKS_OF_ONE_OWNER:
                looking[uid] += 1
                measure.look = self._tasks.spawn(self._service.staged_bytes(session), f"measure {key}", may_fail=True)
                measure.free_bytes, measure.next_s = free, time.monotonic() + DEADLINE_S

    def _take_in(self, session: Session, measure: _Measure, look: asyncio.Task[int], most: int) -> None:
        if look.done() and (why := _failure(look)) is None:
            measure.used_bytes, measure.misses, measure.look, measure.next_s = look.result(), 0, None, 0.0
            if measure.used_bytes > most:
                used = f"its staged files reached {measure.used_bytes >> 20} MiB"
                self._end(session, measure, f"{used}; the profile allows {most >> 20} MiB")
        elif look.done():
            self._miss(session, measure, str(why))
            measure.look = None
        elif time.monotonic() >= measure.next_s:
            # Left to its own end, not cancelled and asked anew: a process that is stopped answers nothing.
            self._miss(session, measure, f"no answer within {DEADLINE_S * (measure.misses + 1):.0f} s")

    def _miss(self, session: Session, measure: _Measure, why: str) -> None:
        measure.misses += 1
        measure.next_s = time.monotonic() + DEADLINE_S
        _logger.warning("staged files of %s could not be measured: %s", session.record.id, why)
        if measure.misses >= MOST_MISSES:
            self._end(
                session, measure, f"its staged files could not be measured {measure.misses} times in a row: {why}"
            )

    def _end(self, session: Session, measure: _Measure, reason: str) -> None:
        measure.is_ended = True
        self._tasks.spawn(self._service.kill(session, reason), f"end {session.record.id}")


def _is_due(measure: _Measure, most: int, free: int) -> bool:
    if measure.misses:
        return time.monotonic() >= measure.next_s
    return measure.free_bytes - free > (most - measure.used_bytes) // 2


def _failure(look: asyncio.Task[int]) -> str | None:
    if look.cancelled():
        return "cancelled"
    error = look.exception()
    return None if error is None else str(error) or type(error).__name__
