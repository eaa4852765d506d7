"""Uses of a granted secret: each is counted and on record before the value leaves, and none leaves after the end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from supervisor.broker import journal
from supervisor.broker.agent_door import DeniedError, SecretUse
from supervisor.broker.grant import Grant
from supervisor.broker.grants import Grants
from supervisor.broker.journal import Entry
from supervisor.broker.store import Store
from supervisor.broker.ticket import Ticket
from supervisor.broker.transition import State
from supervisor.clock import boottime_ns, now_ns
from supervisor.errors import UsageError
from supervisor.policy.capability import Kind
from supervisor.policy.decision import Reason

HOSTS = "hosts"
"""The detail of a grant in force that names, separated by spaces, the hosts for which the network door adds it."""

_NEXT = ("ask for it again: deskwarden-agent request secret:use NAME --reason …",)


class Vault(Protocol):
    """Holds the values."""

    async def value_of(self, grant: Grant) -> bytes:
        """Return the value that *grant* is for.

        Raises:
            DeskwardenError: It was changed or removed since, or its source does not give it.
        """


@dataclass(frozen=True, slots=True)
class _Lease:
    ticket: Ticket
    grant: Grant


class Uses:
    """Counts and gives."""

    def __init__(self, store: Store, grants: Grants, vault: Vault) -> None:
        self._store = store
        self._grants = grants
        self._vault = vault
        self._under_way: Counter[str] = Counter()
        self._ending: set[asyncio.Task[object]] = set()

    async def use(self, session: str, grant_id: str) -> SecretUse:
        """Count one use of a session's grant, and return it. One that fails after it was counted stays counted.

        Raises:
            UsageError: The session has no such grant.
            DeniedError: It is used up, its time is over, or it was taken back, also while its source was asked.
        """
        lease = self._find(session, grant_id)
        if hosts := lease.ticket.details.get(HOSTS, ""):
            return SecretUse(b"", tuple(hosts.split()), _left(lease), lease.grant.expires_ns)
        await self._count(lease)
        self._under_way[grant_id] += 1
        try:
            value = await self._vault.value_of(lease.grant)
            _check_in_force(lease)
            return SecretUse(value, (), _left(lease), lease.grant.expires_ns)
        finally:
            self._done(lease)

    def _find(self, session: str, grant_id: str) -> _Lease:
        ticket = self._grants.find(grant_id)
        grant = ticket.grant if ticket is not None and ticket.party.id == session else None
        if ticket is None or grant is None or grant.capability.kind is not Kind.SECRET:
            raise UsageError(f"no secret {grant_id!r} of yours is in force", "deskwarden-agent have")
        return _Lease(ticket, grant)

    async def _count(self, lease: _Lease) -> None:
        ticket, grant = lease.ticket, lease.grant
        async with ticket.lock:
            _check_in_force(lease)
            if grant.max_uses and ticket.used >= grant.max_uses:
                raise DeniedError(Reason("used-up", f"it was given for {grant.max_uses} uses"), _NEXT)
            body = {"grant": grant.id, "number": ticket.used + 1, "of": grant.max_uses}
            entry = Entry("use", now_ns(), grant.session, ticket.id, body)

            def write(db: sqlite3.Connection) -> None:
                journal.append(db, entry)

            # Before the commit: a caller that hangs up meanwhile has used it all the same.
            ticket.used += 1
            await self._store.commit(write)

    def _done(self, lease: _Lease) -> None:
        """End a grant that is used up, once the last use of it has its value."""
        key = lease.grant.id
        self._under_way[key] -= 1
        if self._under_way[key] > 0:
            return
        del self._under_way[key]
        if lease.grant.max_uses and lease.ticket.used >= lease.grant.max_uses:
            task = asyncio.create_task(self._grants.end(lease.ticket, State.COMPLETED, "it was used up"))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


def _check_in_force(lease: _Lease) -> None:
    if lease.ticket.state is not State.ACTIVE or boottime_ns() >= lease.grant.deadline_ns:
        raise DeniedError(Reason("not-in-force", "this grant is over"), _NEXT)


def _left(lease: _Lease) -> int:
    return max(0, lease.grant.max_uses - lease.ticket.used)
