"""What the broker needs of others, as Protocols: who resolves, who judges, who ends a session that cannot be held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from supervisor.broker.ask import Ask, SessionParty
from supervisor.policy.decision import Decision
from supervisor.policy.request import CapabilityRequest, Resource


class Resolver(Protocol):
    """Finds out what a target means on this machine, as the owner: canonical name, files, sensitivity."""

    async def resolve(self, party: SessionParty, ask: Ask) -> Resource:
        """Return it.

        Raises:
            DeskwardenError: There is no such thing for this owner, or it may never be granted.
        """


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the broker knows about a request beyond the request.

    Attributes:
        answer: A standing answer: ``always``, ``never`` or ``none``.
        asked: Questions of this session so far. *denied*: those that were refused.
        parent_covers: Whether the session above has it too; True without one.
    """

    answer: str
    asked: int
    denied: int
    parent_covers: bool
    launch: bool = False


class Judge(Protocol):
    """Decides: policy, with the facts that it gathers itself (manifest, role, posture, ceiling)."""

    async def judge(self, request: CapabilityRequest, party: SessionParty, circumstances: Circumstances) -> Decision:
        """Return the decision; never raises for what a request says."""
