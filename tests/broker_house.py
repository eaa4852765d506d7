"""A broker with a real store, and documented stand-ins for its doors: they implement the production Protocols."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from supervisor.broker import card
from supervisor.broker.ask import Ask, SessionParty
from supervisor.broker.broker import Broker
from supervisor.broker.doors import Circumstances
from supervisor.broker.enforcer import Effected
from supervisor.broker.grant import Grant
from supervisor.broker.people import Directory, Person
from supervisor.broker.store import Store
from supervisor.broker.ticket import Ticket
from supervisor.broker.transition import State
from supervisor.broker.vote import Answer, Narrowing, Vote
from supervisor.clock import now_ns
from supervisor.errors import DeskwardenError, RefusedError
from supervisor.policy.capability import Assurance, Capability, Kind, Level
from supervisor.policy.decision import Clause, Decision, Effect, Obligations, Party, Quorum, Reason
from supervisor.policy.request import CapabilityRequest, FileItem, Resource

OWNER = 1000
ALLOW = Decision(Effect.ALLOW, "low", (), (), Obligations(3600), None, ("low-risk",), (), "rev", "sha256:0")
DENY = Decision(Effect.DENY, "high", (Reason("no", "policy says no"),), ("ask IT",), None, None, (), (), "rev", "")
PEOPLE = Directory(
    (
        Person("ann", {"finance": "lead"}, (2001, 2002), ("key-ann",)),
        Person("bea", {"security": ""}, (2003,), ("key-bea",)),
        Person("cas", {"finance": "lead", "security": ""}, (2004,)),
    )
)
TWO_TEAMS = Quorum(
    (Clause("data-owner", (Party("finance", "lead"),)), Clause("sec", (Party("security"),))), 2, Assurance.A0
)
OWNER_ASKED = Quorum((Clause("owner", (Party("owner"),)),))


def escalate(quorum: Quorum, *, always: bool = False, ttl_s: int = 3600) -> Decision:
    duties = Obligations(ttl_s, always=always)
    return replace(ALLOW, effect=Effect.ESCALATE, risk="high", quorum=quorum, obligations=duties)


class Disk:
    """Resolves every path to one file; a test changes the file."""

    def __init__(self) -> None:
        self.level = Level.INTERNAL
        self.inode = 1
        self.missing = False

    async def resolve(self, party: SessionParty, ask: Ask) -> Resource:
        if self.missing:
            raise RefusedError(f"{ask.target}: no such file", "ls")
        return Resource(ask.target, self.level, items=(FileItem(ask.target, 1, self.inode, 10, 5),))


class Law:
    """Answers what it was set to; remembers what it was asked."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.asked: list[tuple[CapabilityRequest, Circumstances]] = []

    async def judge(self, request: CapabilityRequest, party: SessionParty, circumstances: Circumstances) -> Decision:
        self.asked.append((request, circumstances))
        if circumstances.answer == "never":
            return DENY
        return ALLOW if circumstances.answer == "always" else self.decision


@dataclass
class Sandbox:
    """Remembers what is in force; fails where a test says so."""

    shown: dict[str, Grant] = field(default_factory=dict)
    refuses: DeskwardenError | None = None
    sticks: bool = False
    gate: asyncio.Event | None = None

    async def apply(self, grant: Grant) -> Effected:
        if self.gate is not None:
            await self.gate.wait()
        if self.refuses is not None:
            raise self.refuses
        self.shown[grant.id] = grant
        return Effected(0.1, {"path": grant.capability.selector})

    async def withdraw(self, grant: Grant, reason: str) -> Effected:
        if self.sticks:
            raise DeskwardenError("still held")
        del self.shown[grant.id]
        return Effected(0.1, {"ended": "unmounted"})


@dataclass
class House:
    broker: Broker
    law: Law
    disk: Disk
    sandbox: Sandbox
    killed: list[str]

    async def settled(self, ticket: Ticket) -> Ticket:
        """Wait until the ticket waits for people or has its answer."""
        async for status in ticket.watch():
            if status.state is State.WAITING:
                break
        return ticket

    async def ask(self, wanted: Ask | None = None, session: str = "s1") -> Ticket:
        return await self.settled(self.broker.ask(session, wanted or read("/home/o/a.txt")))


async def until(ticket: Ticket, state: State) -> None:
    """Wait until a grant in force has ended in *state*."""
    async with asyncio.timeout(5):
        while ticket.state is not state:
            await ticket.changed()


def read(path: str, *, duration_s: int = 600, operations: tuple[str, ...] = ("read",)) -> Ask:
    return Ask(Kind.FILE, operations, path, duration_s, "to sum it up")


def party(name: str = "s1", **changes: object) -> SessionParty:
    agent = "spiffe://local/agent/user-owned/sheet"
    value = SessionParty(
        name, name, agent, "user-owned", "acme", OWNER, "o", "/home/o", "/home/o/w", "sha256:m", "sums"
    )
    return replace(value, **changes)  # type: ignore[arg-type]


def vote(ticket: Ticket, human: str, answer: Answer = Answer.ONCE, **changes: object) -> Vote:
    assert ticket.request is not None
    assert ticket.decision is not None
    shown = card.render(ticket.request, ticket.decision).shown_digest
    made = Vote(
        ticket.id,
        ticket.request.digest,
        shown,
        answer,
        Narrowing(),
        "",
        human,
        Assurance.A3,
        "os-session",
        "",
        now_ns(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def house(path: Path, decision: Decision = ALLOW, pending_s: float = 5.0) -> AsyncIterator[House]:
    killed: list[str] = []

    async def end_session(session: str, _why: str) -> None:
        killed.append(session)

    store = Store(str(path / "broker.db"))
    law, disk, sandbox = Law(decision), Disk(), Sandbox()
    broker = Broker(store, law, {Kind.FILE: disk}, {Kind.FILE: sandbox}, PEOPLE, end_session, pending_s)
    await broker.start()
    broker.open_session(party())
    try:
        yield House(broker, law, disk, sandbox, killed)
    finally:
        await broker.stop()
        store.close()


def capability(path: str = "/home/o/a.txt", *operations: str) -> Capability:
    return Capability(Kind.FILE, path, operations or ("read",))
