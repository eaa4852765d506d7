"""The broker: the one component that turns decisions into grants, and takes them back.

Each request is worked on by one task under its own lock. What is decided is committed before it takes effect; what
cannot be decided, recorded or carried out is a denial that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from supervisor import strict_json
from supervisor.broker import approvals, journal, records, rulebook
from supervisor.broker import ask as asking
from supervisor.broker.ask import Ask, SessionParty
from supervisor.broker.doors import Circumstances, Judge, Resolver
from supervisor.broker.enforcer import Enforcer
from supervisor.broker.grant import Grant, grant_of
from supervisor.broker.grants import Grants
from supervisor.broker.journal import Entry
from supervisor.broker.pacing import Pacing
from supervisor.broker.people import Directory, Person
from supervisor.broker.rulebook import Rulebook
from supervisor.broker.store import Store
from supervisor.broker.ticket import Ticket
from supervisor.broker.transition import OPEN, State, is_final
from supervisor.broker.vote import Vote
from supervisor.clock import boottime_ns, now_ns
from supervisor.errors import DeskwardenError, RefusedError, ServiceError, UsageError
from supervisor.ids import new_id
from supervisor.policy.capability import Capability, Kind
from supervisor.policy.decision import Decision, Effect, Reason
from supervisor.policy.request import CapabilityRequest

_logger = logging.getLogger(__name__)

# How long people have to answer, unless the daemon is told otherwise.
PENDING_S: Final = 300.0
# Settled requests of a session that are kept in memory, for `why`; all of them are in the journal.
MAX_SETTLED: Final = 200
# Decisions that are read at once; a writer waits no longer than that takes.
PAGE: Final = 50


@dataclass(slots=True)
class _Desk:
    """What the broker keeps of one running session."""

    party: SessionParty
    pacing: Pacing
    tickets: dict[str, Ticket] = field(default_factory=dict)
    asked: int = 0
    denied: int = 0


class Broker:
    """Requests, votes and grants of all sessions.

    Args:
        end_session: Kills a session of which a grant could not be taken back.
        pending_s: How long a request waits for people.
    """

    def __init__(
        self,
        store: Store,
        judge: Judge,
        resolvers: Mapping[Kind, Resolver],
        enforcers: Mapping[Kind, Enforcer],
        directory: Directory,
        end_session: Callable[[str, str], Awaitable[None]],
        pending_s: float = PENDING_S,
    ) -> None:
        self._store = store
        self._judge = judge
        self._resolvers = resolvers
        self.directory = directory
        self.rules = Rulebook(store)
        self.grants = Grants(store, enforcers, end_session)
        self._pending_s = pending_s
        self._desks: dict[str, _Desk] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._caught_up = False
        self._catching_up = asyncio.Lock()
        self._watchers: list[Callable[[Ticket], None]] = []

    # ---- start and end ----

    async def start(self) -> None:
        """Begin. Records that cannot be read yet are read before the first decision: until then all is denied."""
        self._spawn(self.grants.watch(), "grants")
        try:
            await self._catch_up()
        except ServiceError as error:
            _logger.error("%s", error.message)  # noqa: TRY400 - the text says it all

    async def _catch_up(self) -> None:
        """Read the standing rules, and end what a daemon that died left open: its sessions are gone, so are its mounts.

        Raises:
            ServiceError: The records cannot be read or written.
        """
        if self._caught_up:
            return
        async with self._catching_up:
            if not self._caught_up:
                await self.rules.read()
                await self._store.commit(_end_unfinished)
                self._caught_up = True

    async def stop(self) -> None:
        """End the tasks; sessions have ended before."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def open_session(self, party: SessionParty) -> None:
        """Know a session that has started."""
        self._desks[party.id] = _Desk(party, Pacing(lambda: boottime_ns() / 1e9))

    async def close_session(self, session_id: str, why: str = "its session has ended") -> None:
        """Forget a session: what it waits for is withdrawn, what it has is taken back."""
        desk = self._desks.pop(session_id, None)
        if desk is None:
            return
        self.rules.end_session(session_id)
        for ticket in desk.tickets.values():
            if ticket.state in OPEN:
                await self._close(ticket, State.WITHDRAWN, why)
            else:
                await self.grants.end(ticket, State.COMPLETED, why)

    # ---- asking ----

    def ask(self, session_id: str, wanted: Ask) -> Ticket:
        """Take a question in; its ticket tells how it goes on. The same question twice is one.

        Raises:
            UsageError: It is none.
            RefusedError: Too many, or no such session.
        """
        desk = self._desk(session_id)
        wanted = asking.check(wanted)
        waiting = [ticket for ticket in desk.tickets.values() if ticket.state in OPEN]
        for ticket in waiting:
            if replace(ticket.ask, reason="") == replace(wanted, reason=""):
                return ticket
        desk.pacing.take(len(waiting))
        desk.asked += 1
        ticket = Ticket(new_id("r"), wanted, desk.party)
        desk.tickets[ticket.id] = ticket
        _forget_settled(desk)
        self._spawn(self._work(desk, ticket), f"request {ticket.id}")
        return ticket

    async def _work(self, desk: _Desk, ticket: Ticket) -> None:
        async with ticket.lock:
            try:
                await self._decide(desk, ticket)
            except DeskwardenError as error:
                if not ticket.is_settled:
                    await self._deny(desk, ticket, (Reason("refused", error.message),), (error.next_step,))
            except Exception as error:  # a defect of ours is a denial too
                _logger.exception("request %s", ticket.id)
                if not ticket.is_settled:
                    await self._deny(desk, ticket, (Reason("internal-error", type(error).__name__),), ())
        if ticket.state is State.WAITING:
            await self._lapse(ticket)

    async def _decide(self, desk: _Desk, ticket: Ticket) -> None:
        await self._catch_up()
        request = ticket.request = await self._resolve(ticket)
        desk.pacing.check(request.capability)
        decision = ticket.decision = await self._judged(desk, request)
        if decision.effect is Effect.DENY:
            await self._deny(desk, ticket, decision.reasons, decision.next_steps)
        elif decision.effect is Effect.ALLOW:
            grant = grant_of(request, decision, ())
            await self.grants.issue(ticket, State.APPROVED, grant, lambda db: _insert(db, ticket, State.ISSUED))
        else:
            await self._store.commit(lambda db: _insert(db, ticket, State.WAITING))
            ticket.lapses_at_ns = now_ns() + int(self._pending_s * 1e9)
            ticket.waits_for = decision.quorum.clauses if decision.quorum else ()
            ticket.move(State.WAITING, decision.reasons, ("wait for the answer, or cancel",))
            self._changed(ticket)

    async def _resolve(self, ticket: Ticket) -> CapabilityRequest:
        wanted, party = ticket.ask, ticket.party
        resolver = self._resolvers.get(wanted.kind)
        if resolver is None:
            raise RefusedError(f"{wanted.kind}: nothing here grants it", "ask for a file")
        resource = await resolver.resolve(party, wanted)
        return CapabilityRequest(
            id=ticket.id,
            session=party.id,
            agent=party.agent,
            owner_uid=party.owner_uid,
            manifest_digest=party.manifest_digest,
            capability=Capability(wanted.kind, resource.selector, wanted.operations),
            resource=resource,
            duration_s=wanted.duration_s,
            uses=wanted.uses,
            purpose=party.purpose,
            reason=wanted.reason,
            expected_outcome=wanted.expected_outcome,
            rollback=wanted.rollback,
            chain=party.chain,
            created_ns=now_ns(),
        )

    async def _judged(self, desk: _Desk, request: CapabilityRequest) -> Decision:
        party = desk.party
        answer = self.rules.answer(party, request.capability)
        circumstances = Circumstances(answer, desk.asked, desk.denied, self._parent_covers(party, request.capability))
        return await self._judge.judge(request, party, circumstances)

    def _parent_covers(self, party: SessionParty, capability: Capability) -> bool:
        if not party.parent:
            return True
        return any(
            ticket.party.id == party.parent and ticket.grant is not None and _covers(ticket.grant, capability)
            for ticket in self.grants.in_force()
        )

    async def _deny(
        self, desk: _Desk, ticket: Ticket, reasons: tuple[Reason, ...], next_steps: tuple[str, ...]
    ) -> None:
        """End a request with a no. One that cannot be recorded is still a no, and says that too."""
        desk.denied += 1
        try:
            if ticket.request is None:  # it never became one: the question itself is kept
                body = {"asked": ticket.ask.target, "operations": list(ticket.ask.operations), "why": reasons[0].text}
                entry = Entry("request", now_ns(), ticket.party.id, ticket.id, body)
                await self._store.commit(lambda db: journal.append(db, entry))
            else:
                await self._store.commit(lambda db: _insert(db, ticket, State.DENIED))
        except DeskwardenError as error:
            reasons = (*reasons, Reason("not-recorded", error.message))
        ticket.move(State.DENIED, reasons, tuple(filter(None, next_steps)))
        self._changed(ticket)

    async def _lapse(self, ticket: Ticket) -> None:
        """Wait until somebody settled it, at most until its time is over; silence is a no."""

        async def settled() -> None:
            async for _status in ticket.watch():
                if ticket.state is not State.WAITING:
                    return

        left = (ticket.lapses_at_ns - now_ns()) / 1e9
        try:
            async with asyncio.timeout(max(left, 0.0)):
                await settled()
        except TimeoutError:
            await self._close(ticket, State.LAPSED, f"nobody answered within {self._pending_s:.0f} s")

    async def cancel(self, session_id: str, request_id: str) -> Ticket:
        """Withdraw a question of this session.

        Raises:
            UsageError: It has none of that name.
        """
        ticket = self._ticket_of(session_id, request_id)
        await self._close(ticket, State.WITHDRAWN, "the agent withdrew it")
        return ticket

    async def release(self, session_id: str, grant_id: str) -> Ticket:
        """Take back a grant that this session no longer needs.

        Raises:
            UsageError: It has none of that name.
        """
        ticket = self.grants.find(grant_id)
        if ticket is None or ticket.party.id != session_id:
            raise UsageError(f"no grant {grant_id!r} of yours is in force", "deskwarden-agent have")
        await self.grants.end(ticket, State.COMPLETED, "the agent gave it back")
        return ticket

    async def _close(self, ticket: Ticket, state: State, why: str) -> None:
        async with ticket.lock:
            if ticket.state is not State.WAITING:
                return
            entry = Entry("end", now_ns(), ticket.party.id, ticket.id, {"state": str(state), "why": why})

            def write(db: sqlite3.Connection) -> None:
                records.move_request(db, ticket.id, State.WAITING, state)
                journal.append(db, entry)

            try:
                await self._store.commit(write)
            except DeskwardenError as error:
                _logger.exception("request %s is %s, which could not be recorded: %s", ticket.id, state, error.message)
            ticket.move(state, (Reason(str(state), why),))
            self._changed(ticket)

    # ---- answering ----

    def waiting(self, person: Person) -> list[Ticket]:
        """Return what waits for an answer and is this person's to see."""
        tickets = [one for desk in self._desks.values() for one in desk.tickets.values()]
        return [one for one in tickets if one.state is State.WAITING and approvals.may_see(person, one)]

    def find(self, person: Person, request_id: str) -> Ticket:
        """Return a request of a running session that this person may see.

        Raises:
            UsageError: There is none.
        """
        ticket = self._any_ticket(request_id)
        if ticket is None or not approvals.may_see(person, ticket):
            raise UsageError(f"no request {request_id!r}", "deskwarden requests")
        return ticket

    def _any_ticket(self, request_id: str) -> Ticket | None:
        return next((desk.tickets[request_id] for desk in self._desks.values() if request_id in desk.tickets), None)

    async def vote(self, vote: Vote) -> Ticket:
        """Count one answer; the last that is needed issues the grant.

        Raises:
            RefusedError: Not theirs to answer, or not what they were shown.
            ConflictError: It is settled, or they have voted.
        """
        ticket = self._any_ticket(vote.request_id)
        if ticket is None:
            raise UsageError(f"no request {vote.request_id!r} is open", "deskwarden requests")
        async with ticket.lock:
            request, decision = approvals.check(self.directory, ticket, vote)
            votes = [*ticket.votes, vote]
            if not vote.answer.is_yes:
                await self._reject(ticket, request, vote)
            elif missing := approvals.missing(self.directory, ticket, decision, votes):
                await self._store.commit(lambda db: approvals.keep(db, ticket, vote))
                ticket.votes.append(vote)
                ticket.waits_for = missing
                ticket.touch()
            else:
                await self._issue(ticket, request, vote)
        self._changed(ticket)
        return ticket

    async def _reject(self, ticket: Ticket, request: CapabilityRequest, vote: Vote) -> None:
        never = rulebook.rule_of(ticket.party, request.capability, vote)

        def write(db: sqlite3.Connection) -> None:
            approvals.keep_last(db, ticket, vote, never)
            records.move_request(db, ticket.id, State.WAITING, State.REJECTED)

        await self._store.commit(write)
        if never is not None:
            self.rules.add(never)
        desk = self._desk(ticket.party.id)
        desk.pacing.refused(request.capability)
        desk.denied += 1
        ticket.votes.append(vote)
        text = vote.justification or "a person said no"
        ticket.move(State.REJECTED, (Reason("rejected", text),), ("do without it, or ask for something narrower",))

    async def _issue(self, ticket: Ticket, request: CapabilityRequest, last: Vote) -> None:
        """Turn the last yes into a grant, if everything still is what it was when it was asked."""
        votes = [*ticket.votes, last]
        decision = await self._judged_again(ticket, request, votes)
        if isinstance(decision, str):
            await self._supersede(ticket, last, decision)
            return
        standing = rulebook.rule_of(ticket.party, request.capability, last)
        grant = grant_of(request, decision, votes)
        ticket.decision = decision
        await self.grants.issue(
            ticket, State.WAITING, grant, lambda db: approvals.keep_last(db, ticket, last, standing)
        )
        ticket.votes.append(last)
        if standing is not None:
            self.rules.add(standing)

    async def _judged_again(self, ticket: Ticket, request: CapabilityRequest, votes: list[Vote]) -> Decision | str:
        """Return the decision as it is now, or why the votes are void."""
        try:
            now = await self._resolve(ticket)
        except DeskwardenError as error:
            return error.message
        if replace(now, created_ns=request.created_ns) != request:
            return "what was asked for has changed since it was shown"
        decision = await self._judged(self._desk(ticket.party.id), request)
        if decision.effect is Effect.DENY:
            return "; ".join(reason.text for reason in decision.reasons) or "policy now says no"
        if approvals.missing(self.directory, ticket, decision, votes):
            return "policy now wants other approvals than it did"
        return decision

    async def _supersede(self, ticket: Ticket, last: Vote, why: str) -> None:
        def write(db: sqlite3.Connection) -> None:
            approvals.keep(db, ticket, last)
            records.move_request(db, ticket.id, State.WAITING, State.SUPERSEDED)

        await self._store.commit(write)
        ticket.votes.append(last)
        ticket.move(State.SUPERSEDED, (Reason("changed", why),), ("ask again: it will be looked at as it is now",))

    # ---- taking back ----

    async def revoke(self, chosen: Callable[[Ticket], bool], why: str) -> list[Ticket]:
        """Take back every grant in force that *chosen* picks; returns their tickets once nobody holds them."""
        tickets = [ticket for ticket in self.grants.in_force() if chosen(ticket)]
        await asyncio.gather(*(self.grants.end(ticket, State.REVOKED, why) for ticket in tickets))
        return tickets

    async def judge_again(self, ticket: Ticket) -> Decision | None:
        """Return what policy says now about a grant in force; None when its session has ended.

        How often its session asked is left out: that is about asking, not about what is held.
        """
        desk, request = self._desks.get(ticket.party.id), ticket.request
        if desk is None or request is None:
            return None
        answer, covered = (
            self.rules.answer(desk.party, request.capability),
            self._parent_covers(desk.party, request.capability),
        )
        return await self._judge.judge(request, desk.party, Circumstances(answer, 0, 0, covered))

    # ---- looking ----

    async def history(self, request_id: str, owner_uid: int) -> list[dict[str, Any]]:
        """Return the journal on one request of an owner; empty when there is none."""

        def read(db: sqlite3.Connection) -> list[dict[str, Any]]:
            return list(journal.read(db, request_id)) if records.is_owners(db, request_id, owner_uid) else []

        return await self._store.commit(read)

    async def decisions(self, owner_uid: int, since_ns: int) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield what was decided on requests of one owner, oldest first, in pieces: nobody else waits for all of it."""
        seq = 0
        since = partial(journal.decisions, owner_uid=owner_uid, since_ns=since_ns, most=PAGE)
        while page := await self._store.commit(partial(since, after_seq=seq)):
            yield [entry for _seq, entry in page]
            seq = page[-1][0]

    def last_refusal(self, person: Person) -> str:
        """Return the id of the newest request that was refused to one of this person's agents, or an empty word."""
        refused = (State.DENIED, State.REJECTED, State.LAPSED, State.SUPERSEDED, State.FAILED)
        tickets = [one for desk in self._desks.values() for one in desk.tickets.values() if one.state in refused]
        own = [one for one in tickets if one.party.owner_uid in person.uids and one.request is not None]
        return max(own, key=lambda one: one.request.created_ns if one.request else 0).id if own else ""

    @contextlib.contextmanager
    def watching(self, watcher: Callable[[Ticket], None]) -> Iterator[None]:
        """Tell *watcher* of every request that begins or ends to wait, while this is open."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    @property
    def is_watched(self) -> bool:
        """Whether some surface shows requests as they come."""
        return bool(self._watchers)

    async def note_denial(self, session_id: str, target: str, why: str) -> None:
        """Record that a running session wanted something that was never asked for. A full disk is logged instead."""
        body = {"asked": target, "operations": ["read"], "why": why}
        entry = Entry("denial", now_ns(), session_id, new_id("r"), body)
        try:
            await self._store.commit(lambda db: journal.append(db, entry))
        except DeskwardenError as error:
            _logger.error("session %s: %s, which could not be recorded: %s", session_id, why, error.message)  # noqa: TRY400

    def _changed(self, ticket: Ticket) -> None:
        for watcher in self._watchers:
            watcher(ticket)

    def tickets_of(self, session_id: str) -> list[Ticket]:
        """Return the requests of a running session, oldest first."""
        return list(self._desk(session_id).tickets.values())

    def party_of(self, session_id: str) -> SessionParty:
        """Return a running session as the broker knows it."""
        return self._desk(session_id).party

    def _desk(self, session_id: str) -> _Desk:
        desk = self._desks.get(session_id)
        if desk is None:
            raise RefusedError(f"no running session {session_id}")
        return desk

    def _ticket_of(self, session_id: str, request_id: str) -> Ticket:
        ticket = self._desk(session_id).tickets.get(request_id)
        if ticket is None:
            raise UsageError(f"no request {request_id!r} of yours", "deskwarden-agent have")
        return ticket

    def _spawn(self, coroutine: Any, name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _logger.error("%s: %s", task.get_name(), task.exception(), exc_info=task.exception())


def _insert(db: sqlite3.Connection, ticket: Ticket, state: State) -> None:
    """Keep a request with the decision on it, in its first state that lasts."""
    request, decision = ticket.request, ticket.decision
    if request is None:
        raise ServiceError(f"request {ticket.id} was never resolved")
    records.insert_request(db, request, state)
    journal.append(db, Entry("request", request.created_ns, request.session, request.id, request.to_json()))
    if decision is not None:
        body = strict_json.plain(decision)
        journal.append(db, Entry("decision", now_ns(), request.session, request.id, body))


def _end_unfinished(db: sqlite3.Connection) -> None:
    for request_id, state in records.unfinished(db):
        after = State.LAPSED if state in OPEN else State.REVOKED
        records.move_request(db, request_id, state, after)
        body = {"state": str(after), "why": "the daemon died; so did the session"}
        journal.append(db, Entry("end", now_ns(), "", request_id, body))


def _covers(grant: Grant, capability: Capability) -> bool:
    """Return whether a grant holds exactly what is asked below it, or more of it."""
    same = (grant.capability.kind, grant.capability.selector) == (capability.kind, capability.selector)
    return same and set(capability.operations) <= set(grant.capability.operations)


def _forget_settled(desk: _Desk) -> None:
    settled = [one for one in desk.tickets.values() if is_final(one.state)]
    for ticket in settled[: max(0, len(settled) - MAX_SETTLED)]:
        del desk.tickets[ticket.id]
