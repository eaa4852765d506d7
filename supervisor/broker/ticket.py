"""One request on its way, from the question to the end of its grant; in memory while it lives, rows in broker.db."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from supervisor.broker.ask import Ask, SessionParty
from supervisor.broker.grant import Grant
from supervisor.broker.transition import State, is_final
from supervisor.broker.vote import Vote
from supervisor.policy.decision import Clause, Decision, Reason
from supervisor.policy.request import CapabilityRequest


@dataclass(frozen=True, slots=True)
class Status:
    """What is told about a request at one moment.

    Attributes:
        details: Of a grant in force: where it is shown.
    """

    id: str
    state: State
    reasons: tuple[Reason, ...]
    next_steps: tuple[str, ...]
    waits_for: tuple[Clause, ...]
    expires_ns: int
    details: dict[str, str]


@dataclass(slots=True)
class Ticket:
    """A request that is being worked on; changed by the broker alone."""

    id: str
    ask: Ask
    party: SessionParty
    state: State = State.SUBMITTED
    request: CapabilityRequest | None = None
    decision: Decision | None = None
    reasons: tuple[Reason, ...] = ()
    next_steps: tuple[str, ...] = ()
    waits_for: tuple[Clause, ...] = ()
    votes: list[Vote] = field(default_factory=list)
    grant: Grant | None = None
    details: dict[str, str] = field(default_factory=dict)
    lapses_at_ns: int = 0
    used: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def move(self, state: State, reasons: tuple[Reason, ...] = (), next_steps: tuple[str, ...] = ()) -> None:
        """Take the step that is on record, and tell everybody who watches."""
        self.state = state
        self.reasons = reasons or self.reasons
        self.next_steps = next_steps or self.next_steps
        if state is not State.WAITING:
            self.waits_for = ()
        self.touch()

    def touch(self) -> None:
        """Tell everybody who watches that something changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    def status(self) -> Status:
        """Return how it stands now."""
        expires = self.grant.expires_ns if self.grant else 0
        return Status(self.id, self.state, self.reasons, self.next_steps, self.waits_for, expires, dict(self.details))

    @property
    def is_settled(self) -> bool:
        """Whether the asker has an answer: a grant in force, or none to come."""
        return self.state is State.ACTIVE or is_final(self.state)

    async def changed(self) -> None:
        """Wait for the next change, also after it was settled."""
        await self._changed.wait()

    async def watch(self) -> AsyncIterator[Status]:
        """Yield how it stands now and after every change, until it is settled."""
        while True:
            changed = self._changed
            yield self.status()
            if self.is_settled:
                return
            await changed.wait()
