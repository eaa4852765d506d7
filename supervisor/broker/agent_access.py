"""The broker as an agent sees it: `AgentDoor`, for the session that the door says is calling."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Final

from supervisor.broker.agent_door import (
    Child,
    ChildAsk,
    DeniedError,
    Description,
    Explanation,
    Held,
    Phase,
    RequestState,
    SecretUse,
)
from supervisor.broker.ask import Ask
from supervisor.broker.broker import Broker
from supervisor.broker.people import OWNER_TEAM
from supervisor.broker.ticket import Ticket
from supervisor.broker.transition import IN_FORCE, OPEN, State
from supervisor.broker.uses import Uses
from supervisor.errors import UsageError
from supervisor.policy.capability import Capability
from supervisor.policy.decision import Reason

# What an agent gets that does not say how long; policy may give less.
DEFAULT_DURATION_S: Final = 1200
_PHASES: Final = {
    State.SUBMITTED: Phase.SUBMITTED,
    State.APPROVED: Phase.SUBMITTED,
    State.ISSUED: Phase.SUBMITTED,
    State.ACTIVE: Phase.GRANTED,
    State.WITHDRAWN: Phase.WITHDRAWN,
    State.LAPSED: Phase.LAPSED,
}
_NOT_YET: Final = Reason("not-here", "this service cannot do that")


class AgentAccess:
    """Implements `agent_door.AgentDoor` on a broker.

    Args:
        askable: What a session's manifest declares, by session id.
        uses: Gives the values of secrets; None where there are none.
    """

    def __init__(
        self, broker: Broker, askable: Callable[[str], tuple[Capability, ...]], uses: Uses | None = None
    ) -> None:
        self._broker = broker
        self._askable = askable
        self._uses = uses

    async def describe(self, session: str) -> Description:
        """Return what *session* has and may ask for."""
        tickets = self._broker.tickets_of(session)
        party = self._broker.party_of(session)
        return Description(
            agent=party.agent,
            purpose=party.purpose,
            workspace=party.project,
            network="off",
            grants=tuple(held_of(one) for one in tickets if one.grant is not None and one.state in IN_FORCE),
            open_requests=tuple(state_of(one) for one in tickets if one.state in OPEN),
            askable=self._askable(session),
            attended=True,
        )

    async def request(self, session: str, ask: Ask) -> AsyncGenerator[RequestState, None]:
        """Record *ask* and yield its states until a final one."""
        wanted = replace(ask, duration_s=ask.duration_s or DEFAULT_DURATION_S)
        ticket = self._broker.ask(session, wanted)
        async for _status in ticket.watch():
            yield state_of(ticket)

    async def follow(self, session: str, request_id: str) -> AsyncGenerator[RequestState, None]:
        """Yield the present state of a request, then the next ones until a final one."""
        ticket = self._ticket(session, request_id)
        async for _status in ticket.watch():
            yield state_of(ticket)

    async def cancel(self, session: str, request_id: str) -> None:
        """Withdraw a request that is not decided."""
        await self._broker.cancel(session, request_id)

    async def release(self, session: str, grant_id: str) -> None:
        """Take a grant back."""
        await self._broker.release(session, grant_id)

    async def use_secret(self, session: str, grant_id: str) -> SecretUse:
        """Count one use, and return it."""
        if self._uses is None:
            raise DeniedError(_NOT_YET, ("ask for files instead",))
        return await self._uses.use(session, grant_id)

    async def start_child(self, session: str, ask: ChildAsk) -> Child:
        """Refuse: no agent is started by another yet."""
        raise DeniedError(_NOT_YET, ("do the work in this session",))

    async def why(self, session: str, subject_id: str) -> Explanation:
        """Explain a request or a grant; an empty id is the last refusal."""
        ticket = self._ticket(session, subject_id) if subject_id else self._last_refusal(session)
        decision = ticket.decision
        return Explanation(
            id=ticket.id,
            capability=capability_of(ticket),
            phase=state_of(ticket).phase,
            reasons=ticket.reasons,
            next_steps=ticket.next_steps,
            rules=decision.rules if decision else (),
            policy_revision=decision.policy_revision if decision else "",
            decided_ns=ticket.request.created_ns if ticket.request else 0,
        )

    def _ticket(self, session: str, word: str) -> Ticket:
        for ticket in self._broker.tickets_of(session):
            if word in (ticket.id, ticket.grant.id if ticket.grant else ""):
                return ticket
        raise UsageError(f"no request or grant {word!r} of yours", "deskwarden-agent have")

    def _last_refusal(self, session: str) -> Ticket:
        refused = [one for one in self._broker.tickets_of(session) if state_of(one).phase is Phase.DENIED]
        if not refused:
            raise UsageError("nothing was refused in this session", "deskwarden-agent have")
        return refused[-1]


def capability_of(ticket: Ticket) -> Capability:
    """Return what a ticket is about: in canonical form when it was resolved, else as it was typed."""
    if ticket.request is not None:
        return ticket.request.capability
    return Capability(ticket.ask.kind, ticket.ask.target, ticket.ask.operations)


def held_of(ticket: Ticket) -> Held:
    """Return a grant as its holder sees it."""
    grant = ticket.grant
    if grant is None:
        raise UsageError(f"request {ticket.id} has no grant")
    shown = tuple(filter(None, ticket.details.get("shown", "").split("\n")))
    left = max(0, grant.max_uses - ticket.used)
    return Held(grant.id, grant.capability, shown, grant.copy, grant.expires_ns, grant.max_uses, left)


def state_of(ticket: Ticket) -> RequestState:
    """Return how a request stands, as its agent may know it: for whom it waits by team, not by name."""
    teams = {party.team for clause in ticket.waits_for for party in clause.any_of}
    waiting = Phase.AWAITING_OWNER if teams <= {OWNER_TEAM} else Phase.AWAITING_REVIEW
    phase = waiting if ticket.state is State.WAITING else _PHASES.get(ticket.state, Phase.DENIED)
    state = RequestState(
        id=ticket.id,
        phase=phase,
        risk=ticket.decision.risk if ticket.decision else "",
        reasons=ticket.reasons,
        next_steps=ticket.next_steps,
        waiting_for=tuple(sorted(teams)),
        pending_until_ns=ticket.lapses_at_ns if ticket.state is State.WAITING else 0,
    )
    return replace(state, grant=held_of(ticket)) if phase is Phase.GRANTED else state
