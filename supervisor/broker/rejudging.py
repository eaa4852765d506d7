"""After a change of policy: every grant in force is judged again, and what is now denied is taken back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from supervisor.broker.broker import Broker
from supervisor.broker.ticket import Ticket
from supervisor.broker.transition import State
from supervisor.errors import DeskwardenError
from supervisor.policy.decision import Effect, Reason

# Less than the policy worker takes at once: new questions are answered meanwhile.
AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Rejudged:
    """How many were judged, how many of them taken back, and how long it took until nobody held those."""

    judged: int
    revoked: int
    took_ms: float


async def rejudge(broker: Broker, why: str) -> Rejudged:
    """Judge all grants in force; one on which no answer can be had is taken back too."""
    start = time.monotonic()
    room = asyncio.Semaphore(AT_ONCE)

    async def one(ticket: Ticket) -> bool:
        async with room:
            said = await _denial(broker, ticket)
            if said is not None:
                await broker.grants.end(ticket, State.REVOKED, f"{why}: {said}")
            return said is not None

    outcomes = await asyncio.gather(*(one(ticket) for ticket in broker.grants.in_force()))
    return Rejudged(len(outcomes), sum(outcomes), (time.monotonic() - start) * 1000)


async def _denial(broker: Broker, ticket: Ticket) -> str | None:
    """Return why a grant cannot stay, or None. A worker that is late or just dying gets a second chance."""
    reasons: tuple[Reason, ...] = ()
    for _ in range(2):
        try:
            decision = await broker.judge_again(ticket)
        except DeskwardenError as error:
            reasons = (Reason("engine:error", error.message),)
            continue
        if decision is None or decision.effect is not Effect.DENY:
            return None
        reasons = decision.reasons
        if not any(reason.code.startswith("engine:") for reason in reasons):
            break
    return "; ".join(reason.text for reason in reasons) or "denied"
