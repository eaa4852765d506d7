"""Side by side: run each candidate once a round, drop the warm-up, take medians.

Interleaved, because a machine that is busy for a while is then busy for all candidates.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

Sample = Callable[[], float]


def interleave(
    candidates: Mapping[str, Sample], rounds: int, warm_up: int = 1, pause_s: float = 0.0
) -> dict[str, list[float]]:
    """Call every candidate once a round, in an order that turns, and return the values without the warm-up rounds.

    *pause_s* before each sample lets what the one before left to do come to its end, for every candidate alike.

    Raises:
        ValueError: No round would be left to count.
    """
    if rounds < 1:
        raise ValueError(f"rounds: got {rounds}, expected at least 1")
    values: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in range(warm_up + rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:  # nobody always runs right after the same neighbour
            time.sleep(pause_s)
            value = candidates[name]()
            if number >= warm_up:
                values[name].append(value)
    return values


def medians(values: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each list."""
    return {name: statistics.median(items) for name, items in values.items()}


def geometric_mean(ratios: Iterable[float]) -> float:
    """Return the geometric mean.

    Raises:
        ValueError: There is no ratio, or one that is not positive.
    """
    items = list(ratios)
    if not items or min(items) <= 0:
        raise ValueError(f"geometric mean of {items}: expected positive numbers")
    return math.exp(math.fsum(map(math.log, items)) / len(items))
