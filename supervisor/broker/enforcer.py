"""Whatever can be granted is an Enforcer: it puts one kind of grant into force and takes it back, with a proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from supervisor.broker.grant import Grant


@dataclass(frozen=True, slots=True)
class Effected:
    """What was done, as it is recorded.

    Attributes:
        took_ms: From the call to the effect, measured.
        details: What the agent and the record are told: where it is shown, what was killed to take it back.
    """

    took_ms: float
    details: dict[str, str]


class Enforcer(Protocol):
    """One kind of capability."""

    async def apply(self, grant: Grant) -> Effected:
        """Put *grant* into force.

        Raises:
            DeskwardenError: It could not be; nothing of it is left.
        """

    async def withdraw(self, grant: Grant, reason: str) -> Effected:
        """Take *grant* back: on return nobody holds anything of it. Ends the session where that is the only way."""
