"""The clocks, by what they are for."""

from __future__ import annotations

import time


def now_ns() -> int:
    """Return the wall clock, for people and records."""
    return time.time_ns()


def boottime_ns() -> int:
    """Return CLOCK_BOOTTIME, for deadlines: it counts suspend and nobody can set it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
