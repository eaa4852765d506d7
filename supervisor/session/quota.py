"""The limit on staged files, where the file system has no quota to set: watched, and the session ended above it.

A walk of an upper directory costs time, so it is made only when the disk's free space fell by more than half of what a
session has left. One file alone is bounded by RLIMIT_FSIZE at once. The report calls this ``watched``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import Final, Protocol

from supervisor.errors import DeskwardenError
from supervisor.session.session import Session

_logger = logging.getLogger(__name__)

POLL_S: Final = 0.5
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
    used_bytes: int = 0
    free_bytes: int = 0


async def watch(service: Watched, stores_fd: int) -> None:
    """Watch all sessions until cancelled."""
    measures: dict[str, _Measure] = {}
    while True:
        await asyncio.sleep(POLL_S)
        status = os.statvfs(stores_fd)
        free = status.f_bfree * status.f_frsize
        living = {session.record.id: session for session in service.living()}
        measures = {key: value for key, value in measures.items() if key in living}
        for key, session in living.items():
            try:
                await _look(service, session, measures.setdefault(key, _Measure(0, free)), free)
            except DeskwardenError as error:
                _logger.warning("staged files of %s could not be measured: %s", key, error)


async def _look(service: Watched, session: Session, measure: _Measure, free: int) -> None:
    most = session.profile.limits.staged_bytes
    if most is None or measure.free_bytes - free <= (most - measure.used_bytes) // 2:
        return
    measure.used_bytes, measure.free_bytes = await service.staged_bytes(session), free
    if measure.used_bytes > most:
        await service.kill(
            session, f"its staged files reached {measure.used_bytes >> 20} MiB; the profile allows {most >> 20} MiB"
        )
