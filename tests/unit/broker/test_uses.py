"""Uses of a secret: exactly as many as were given, each on record first, none to others and none after the end."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from supervisor.broker import journal
from supervisor.broker.agent_door import DeniedError, SecretUse
from supervisor.broker.ask import Ask, SessionParty
from supervisor.broker.broker import Broker
from supervisor.broker.enforcer import Effected
from supervisor.broker.grant import Grant
from supervisor.broker.store import Store
from supervisor.broker.ticket import Ticket
from supervisor.broker.transition import State
from supervisor.broker.uses import HOSTS, Uses
from supervisor.errors import RefusedError, UsageError
from supervisor.policy.capability import Kind, Level
from supervisor.policy.decision import Obligations
from supervisor.policy.request import FileItem, Resource
from tests.broker_house import ALLOW, PEOPLE, Law, party, until

VALUE = b"the value"


@dataclass
class Safe:
    """Resolver, enforcer and vault of one secret; a test holds its door."""

    path: Path
    hosts: str = ""
    gate: asyncio.Event | None = None
    broken: bool = False
    given: list[int] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def resolve(self, party: SessionParty, ask: Ask) -> Resource:
        return Resource(ask.target, Level.CONFIDENTIAL, items=(FileItem(ask.target, 0, 0, 0, 1, "version 1"),))

    async def apply(self, grant: Grant) -> Effected:
        return Effected(0.0, {HOSTS: self.hosts} if self.hosts else {})

    async def withdraw(self, grant: Grant, reason: str) -> Effected:
        return Effected(0.0, {})

    async def value_of(self, grant: Grant) -> bytes:
        self.given.append(recorded(self.path))
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise RefusedError("the source is locked")
        return VALUE


@dataclass
class Counter:
    broker: Broker
    safe: Safe
    uses: Uses

    async def granted(self, uses: int, session: str = "s1", duration_s: int = 600) -> tuple[Ticket, str]:
        ticket = self.broker.ask(session, Ask(Kind.SECRET, ("use",), "db", duration_s, "to query it", uses))
        await until(ticket, State.ACTIVE)
        assert ticket.grant is not None
        return ticket, ticket.grant.id


@contextlib.asynccontextmanager
async def counter(path: Path, **fields: object) -> AsyncIterator[Counter]:
    store, safe = Store(str(path / "broker.db")), Safe(path, **fields)  # type: ignore[arg-type]

    async def end_session(_session: str, _why: str) -> None:
        raise AssertionError

    law = Law(replace(ALLOW, obligations=Obligations(3600)))
    broker = Broker(store, law, {Kind.SECRET: safe}, {Kind.SECRET: safe}, PEOPLE, end_session)
    await broker.start()
    for name in ("s1", "s2"):
        broker.open_session(party(name))
    try:
        yield Counter(broker, safe, Uses(store, broker.grants, safe))
    finally:
        await broker.stop()
        store.close()


def recorded(path: Path) -> int:
    """Return how many uses are on the disk: read by another connection once the store is closed, else from its WAL."""
    with contextlib.closing(sqlite3.connect(f"file:{path}/broker.db?mode=ro", uri=True, timeout=0)) as db:
        try:
            return sum(row["kind"] == "use" for row in journal.read(db))
        except sqlite3.OperationalError:  # the store holds it exclusively
            return (path / "broker.db-wal").read_bytes().count(b'"kind":"use"')


def test_fifty_callers_at_once_get_exactly_the_uses_that_were_given(tmp_path: Path) -> None:
    async def play() -> None:
        async with counter(tmp_path) as it:
            ticket, grant = await it.granted(7)
            answers = await asyncio.gather(*(it.uses.use("s1", grant) for _ in range(50)), return_exceptions=True)
            given = [one for one in answers if isinstance(one, SecretUse)]
            assert [one.value for one in given] == [VALUE] * 7
            assert all(isinstance(one, DeniedError | UsageError) for one in answers if not isinstance(one, SecretUse))
            await until(ticket, State.COMPLETED)
            with pytest.raises(UsageError):
                await it.uses.use("s1", grant)

    asyncio.run(play())
    assert recorded(tmp_path) == 7


def test_each_use_is_on_the_disk_before_the_value_is_fetched(tmp_path: Path) -> None:
    async def play() -> list[int]:
        async with counter(tmp_path) as it:
            _ticket, grant = await it.granted(3)
            for _ in range(3):
                await it.uses.use("s1", grant)
            return it.safe.given

    given = asyncio.run(play())
    assert [seen >= number for number, seen in enumerate(given, 1)] == [True] * 3


def test_another_sessions_grant_is_refused_as_one_that_never_was(tmp_path: Path) -> None:
    async def play() -> None:
        async with counter(tmp_path) as it:
            ticket, grant = await it.granted(1)
            with pytest.raises(UsageError) as stolen:
                await it.uses.use("s2", grant)
            with pytest.raises(UsageError) as unknown:
                await it.uses.use("s2", "g_none")
            assert stolen.value.message.replace(grant, "") == unknown.value.message.replace("g_none", "")
            assert ticket.used == 0

    asyncio.run(play())


def test_a_use_during_which_the_grant_is_revoked_gives_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        async with counter(tmp_path, gate=asyncio.Event()) as it:
            ticket, grant = await it.granted(5)
            using = asyncio.create_task(it.uses.use("s1", grant))
            await it.safe.asked.wait()
            async with asyncio.timeout(5):  # not held up by the source
                await it.broker.revoke(lambda _one: True, "its owner")
            assert it.safe.gate is not None
            it.safe.gate.set()
            with pytest.raises(DeniedError):
                await using
            assert (ticket.state, ticket.used) == (State.REVOKED, 1)

    asyncio.run(play())


def test_a_use_that_ends_after_the_time_is_over_gives_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        async with counter(tmp_path, gate=asyncio.Event()) as it:
            ticket, grant = await it.granted(5, duration_s=1)
            using = asyncio.create_task(it.uses.use("s1", grant))
            await until(ticket, State.EXPIRED)
            assert it.safe.gate is not None
            it.safe.gate.set()
            with pytest.raises(DeniedError):
                await using

    asyncio.run(play())


def test_a_use_whose_source_fails_stays_counted(tmp_path: Path) -> None:
    async def play() -> None:
        async with counter(tmp_path, broken=True) as it:
            ticket, grant = await it.granted(2)
            with pytest.raises(RefusedError, match="locked"):
                await it.uses.use("s1", grant)
            assert ticket.used == 1

    asyncio.run(play())
    assert recorded(tmp_path) == 1


def test_a_caller_that_hangs_up_has_used_it_all_the_same(tmp_path: Path) -> None:
    async def play() -> None:
        async with counter(tmp_path, gate=asyncio.Event()) as it:
            ticket, grant = await it.granted(1)
            using = asyncio.create_task(it.uses.use("s1", grant))
            await it.safe.asked.wait()
            using.cancel()
            await until(ticket, State.COMPLETED)

    asyncio.run(play())


def test_a_secret_that_is_bound_to_hosts_is_never_given(tmp_path: Path) -> None:
    async def play() -> None:
        async with counter(tmp_path, hosts="api.example.com x.org") as it:
            _ticket, grant = await it.granted(3)
            use = await it.uses.use("s1", grant)
            assert (use.value, use.added_for_hosts, use.uses_left) == (b"", ("api.example.com", "x.org"), 3)
            assert not it.safe.given

    asyncio.run(play())
