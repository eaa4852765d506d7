"""A session's workspace as three directories, and what was true when the session started.

Standard library only: the hand imports this as the owner.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

# Two clocks can't be read in one moment; a step smaller than this can't be told from that.
CLOCK_STEP_NS: Final = 10_000_000
# The clock that stamps files; linux/time.h, not in the `time` module.
CLOCK_REALTIME_COARSE: Final = 5


@dataclass(frozen=True, slots=True)
class Area:
    """The three directories of a staged workspace; the caller owns the descriptors.

    Args:
        lower_fd: The real folder.
        upper_fd: What the agent wrote: the upper directory of the overlay, as it lies on disk.
        merged_fd: A read-only overlay mount of both, the folder as the agent sees it.
    """

    lower_fd: int
    upper_fd: int
    merged_fd: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """The session's start, in the clock that stamps files.

    Args:
        started_ns: CLOCK_REALTIME_COARSE, or the ctime of a file touched on the lower's file system.
        realtime_minus_boottime_ns: `realtime_minus_boottime` at the same moment; 0 when unknown.
    """

    started_ns: int
    realtime_minus_boottime_ns: int = 0

    def clock_went_back(self) -> bool:
        """Tell whether CLOCK_REALTIME was set back since: a ctime then proves nothing.

        Both clocks are slewed alike and both count suspend, so their difference moves only by a step. A reboot moves it
        forward, which hides a step back made across it; so does a step forward after a step back.
        """
        if not self.realtime_minus_boottime_ns:
            return False
        return realtime_minus_boottime() < self.realtime_minus_boottime_ns - CLOCK_STEP_NS


def take_baseline() -> Baseline:
    """Return the baseline of a session that starts now."""
    return Baseline(time.clock_gettime_ns(CLOCK_REALTIME_COARSE), realtime_minus_boottime())


def realtime_minus_boottime() -> int:
    """Return CLOCK_REALTIME − CLOCK_BOOTTIME in ns, the tightest of three readings."""
    readings = []
    for _ in range(3):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        real = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        readings.append((after - before, real - (before + after) // 2))
    return min(readings)[1]
