"""What a person may choose about a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """`rounds` replaces each benchmark's own number of samples."""

    rounds: int | None = None

    def rounds_or(self, usual: int) -> int:
        """Return how many samples to take."""
        return self.rounds if self.rounds is not None else usual
