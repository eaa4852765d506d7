"""How often an agent may ask: a bucket for each session, a bound on what waits, and a growing pause after each no.

Pure but for the clock that is handed in. Nobody says yes just to make it stop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from supervisor.errors import RefusedError
from supervisor.policy.capability import Capability

RATE_PER_S: Final = 2.0
BURST: Final = 60.0
MAX_WAITING: Final = 16
FIRST_PAUSE_S: Final = 60.0
LONGEST_PAUSE_S: Final = 3600.0
# Different things that were refused; beyond that the oldest is forgotten, the bucket still holds.
_MOST_REFUSALS: Final = 256


@dataclass(slots=True)
class Pacing:
    """The pace of one session.

    Args:
        now_s: A clock that counts suspend and is never set back.
    """

    now_s: Callable[[], float]
    _tokens: float = BURST
    _filled_at: float = field(init=False)
    _refused: dict[Capability, tuple[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._filled_at = self.now_s()

    def take(self, waiting: int) -> None:
        """Count one question.

        Raises:
            RefusedError: Too many in too short a time, or too many wait for an answer.
        """
        now = self.now_s()
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) * RATE_PER_S)
        self._filled_at = now
        if self._tokens < 1:
            raise RefusedError("too many requests", f"wait; {RATE_PER_S:.0f} a second are heard")
        self._tokens -= 1
        if waiting >= MAX_WAITING:
            raise RefusedError(f"{waiting} of your requests wait for an answer", "wait for one, or cancel one")

    def check(self, capability: Capability) -> None:
        """Refuse what a person refused a moment ago.

        Raises:
            RefusedError: The pause is not over.
        """
        count, until = self._refused.get(capability, (0, 0.0))
        if count and (left := until - self.now_s()) > 0:
            raise RefusedError(
                f"this was refused {count} time{'s' if count > 1 else ''}; asking again is open in {left:.0f} s",
                "do without it, or ask for something narrower",
            )

    def refused(self, capability: Capability) -> None:
        """Note that a person said no."""
        count = self._refused.pop(capability, (0, 0.0))[0] + 1
        pause = min(FIRST_PAUSE_S * 2 ** min(count - 1, 10), LONGEST_PAUSE_S)
        self._refused[capability] = (count, self.now_s() + pause)
        while len(self._refused) > _MOST_REFUSALS:
            del self._refused[next(iter(self._refused))]
