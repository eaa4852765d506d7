"""Grants in force: put into effect once they are on record, taken back when their time is over or somebody says so."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from supervisor.broker import journal, records
from supervisor.broker.enforcer import Effected, Enforcer
from supervisor.broker.grant import Grant
from supervisor.broker.journal import Entry
from supervisor.broker.store import Store
from supervisor.broker.ticket import Ticket
from supervisor.broker.transition import IN_FORCE, State
from supervisor.clock import boottime_ns, now_ns
from supervisor.errors import DeskwardenError, ServiceError
from supervisor.policy.capability import Kind
from supervisor.policy.decision import Reason

_logger = logging.getLogger(__name__)

# The clock of deadlines counts suspend, the event loop's does not: looked at this often while anything is in force.
_LOOK_S: Final = 0.25

Change = Callable[[sqlite3.Connection], None]


class Grants:
    """Everything that is in force, of all sessions.

    Args:
        end_session: Kills a session of which a grant could not be taken back.
    """

    def __init__(
        self, store: Store, enforcers: Mapping[Kind, Enforcer], end_session: Callable[[str, str], Awaitable[None]]
    ) -> None:
        self._store = store
        self._enforcers = enforcers
        self._end_session = end_session
        self._in_force: dict[str, Ticket] = {}
        self._any = asyncio.Event()

    def in_force(self) -> list[Ticket]:
        """Return the tickets whose grant is issued or active, oldest first."""
        return list(self._in_force.values())

    def find(self, grant_id: str) -> Ticket | None:
        """Return the ticket of a grant in force, or None."""
        return self._in_force.get(grant_id)

    async def issue(self, ticket: Ticket, before: State, grant: Grant, change: Change) -> None:
        """Record a grant together with *change*, then put it into force.

        Raises:
            DeskwardenError: It is not on record, or not in force; the ticket says which.
        """
        enforcer = self._enforcers.get(grant.capability.kind)
        if enforcer is None:
            raise ServiceError(f"nothing here can grant {grant.capability.kind}", "deskwarden doctor")

        def write(db: sqlite3.Connection) -> None:
            change(db)
            if before is State.WAITING:
                records.move_request(db, grant.request_id, State.WAITING, State.APPROVED)
                records.move_request(db, grant.request_id, State.APPROVED, State.ISSUED)
            records.insert_grant(db, grant)
            journal.append(db, Entry("grant", grant.issued_ns, grant.session, grant.request_id, grant.to_json()))

        await self._store.commit(write)
        ticket.grant = grant
        self._in_force[grant.id] = ticket
        self._any.set()
        ticket.move(State.ISSUED)
        try:
            effected = await enforcer.apply(grant)
        except DeskwardenError as error:
            del self._in_force[grant.id]
            await self._note(ticket, State.ISSUED, State.FAILED, {"error": error.message})
            ticket.move(State.FAILED, (Reason("not-applied", error.message),), (error.next_step,))
            raise
        ticket.details = effected.details
        await self._note(ticket, State.ISSUED, State.ACTIVE, _words(effected))
        ticket.move(State.ACTIVE)

    async def end(self, ticket: Ticket, after: State, why: str) -> Effected:
        """Take a grant back; on return nobody holds anything of it. One that has ended stays as it ended."""
        async with ticket.lock:
            grant = ticket.grant
            if grant is None or ticket.state not in IN_FORCE:
                return Effected(0.0, {})
            start = time.monotonic()
            try:
                effected = await self._enforcers[grant.capability.kind].withdraw(grant, why)
            except DeskwardenError as error:
                _logger.exception("grant %s could not be taken back: %s; its session is ended", grant.id, error.message)
                await self._end_session(grant.session, f"grant {grant.id} could not be taken back")
                effected = Effected(0.0, {"ended": "session killed", "error": error.message})
            took_ms = (time.monotonic() - start) * 1000
            effected = Effected(took_ms, effected.details)
            self._in_force.pop(grant.id, None)
            if not self._in_force:
                self._any.clear()
            await self._note(ticket, ticket.state, after, _words(effected) | {"why": why})
            ticket.move(after, (Reason(str(after), why),))
            return effected

    async def _note(self, ticket: Ticket, before: State, after: State, body: dict[str, str]) -> None:
        """Record what has happened already. A disk that is full must not undo a withdrawal: it is logged instead."""
        entry = Entry("effect", now_ns(), ticket.party.id, ticket.id, {"state": str(after), **body})

        def write(db: sqlite3.Connection) -> None:
            records.move_request(db, ticket.id, before, after)
            journal.append(db, entry)

        try:
            await self._store.commit(write)
        except DeskwardenError as error:
            _logger.exception("request %s is %s, which could not be recorded: %s", ticket.id, after, error.message)

    async def watch(self) -> None:
        """End what has run out, to the second; until cancelled."""
        while True:
            await self._any.wait()
            now = boottime_ns()
            over = [one for one in self.in_force() if one.grant and one.grant.deadline_ns <= now]
            await asyncio.gather(*(self.end(one, State.EXPIRED, "its time was over") for one in over))
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        deadlines = [one.grant.deadline_ns for one in self.in_force() if one.grant]
        if not deadlines:
            return 0.0
        return min(max((min(deadlines) - boottime_ns()) / 1e9, 0.0), _LOOK_S)


def _words(effected: Effected) -> dict[str, str]:
    return {**effected.details, "took_ms": f"{effected.took_ms:.3f}"}
