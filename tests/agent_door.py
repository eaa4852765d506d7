"""A broker in memory, and a real relay with a real gRPC server before it, for tests of the doors for agents.

`MemoryDoor` implements `AgentDoor` with one rule: below ``~/open`` is granted at once, ``~/.ssh`` is denied at once,
whatever else waits until a test calls `decide`. It counts who listens, so that a test sees what a dead client leaves.
`house()` is one for the whole test process, in a thread of its own: sessions are opened in it, each with its socket.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

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
from supervisor.daemon.agent_service import AgentServer
from supervisor.daemon.peer import Place
from supervisor.daemon.relay import Relay
from supervisor.errors import NotFoundError
from supervisor.policy.capability import Capability, Kind
from supervisor.policy.decision import Reason

EXPIRES_NS: Final = 1_900_000_000 * 10**9
SECRET: Final = b"s3cret\x00\xff"
_T = TypeVar("_T")


def _capability(ask: Ask) -> Capability:
    return Capability(ask.kind, ask.target, ask.operations)


@dataclass
class Record:
    session: str
    ask: Ask
    state: RequestState
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryDoor:
    """See the module."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.grants: dict[str, tuple[str, Held]] = {}
        self.children: list[ChildAsk] = []
        self.listening = 0
        self._numbers = itertools.count(1)

    async def describe(self, session: str) -> Description:
        grants = tuple(held for owner, held in self.grants.values() if owner == session)
        waiting = tuple(one.state for one in self.records.values() if one.session == session and self._waits(one))
        askable = (Capability(Kind.FILE, "~/open/**", ("read",)),)
        agent = "spiffe://local/agent/user-owned/test"
        return Description(agent, "a test", "/work", "off", grants, waiting, askable, attended=True)

    async def request(self, session: str, ask: Ask) -> AsyncGenerator[RequestState, None]:
        if ask.reason == "break":
            raise RuntimeError("a bug behind the door, with a secret: hunter2")
        state = RequestState(f"r{next(self._numbers)}", Phase.SUBMITTED)
        record = self.records[state.id] = Record(session, ask, state)
        yield state
        if record.state.phase.is_final:
            pass  # a test decided while the first state was on its way
        elif ask.target.startswith("~/open"):
            self.decide(state.id, Phase.GRANTED)
        elif ask.target.startswith("~/.ssh"):
            self.decide(state.id, Phase.DENIED)
        else:
            record.state = replace(state, phase=Phase.AWAITING_OWNER, risk="medium", waiting_for=("owner",))
        async for later in self.follow(session, state.id):
            yield later

    async def follow(self, session: str, request_id: str) -> AsyncGenerator[RequestState, None]:
        record = self._own(session, request_id)
        self.listening += 1
        try:
            while True:
                state = record.state
                yield state
                if state.phase.is_final:
                    return
                while record.state is state:
                    record.changed.clear()
                    await record.changed.wait()
        finally:
            self.listening -= 1

    def decide(self, request_id: str, phase: Phase) -> None:
        record = self.records[request_id]
        state = replace(record.state, phase=phase, waiting_for=())
        if phase is Phase.GRANTED:
            held = Held(f"g{request_id}", _capability(record.ask), ("/home/a/open",), copy=True, expires_ns=EXPIRES_NS)
            self.grants[held.id] = (record.session, held)
            state = replace(state, grant=held)
        elif phase is Phase.DENIED:
            reason = Reason("path-protected", "keys are never given to agents")
            state = replace(state, reasons=(reason,), next_steps=("ask the owner to run the git push", "use https"))
        record.state = state
        record.changed.set()

    async def cancel(self, session: str, request_id: str) -> None:
        self._own(session, request_id)
        self.decide(request_id, Phase.WITHDRAWN)

    async def release(self, session: str, grant_id: str) -> None:
        self._held(session, grant_id)
        del self.grants[grant_id]

    async def use_secret(self, session: str, grant_id: str) -> SecretUse:
        held = self._held(session, grant_id)
        if held.capability.kind is not Kind.SECRET:
            raise DeniedError(Reason("not-a-secret", f"{grant_id} is no secret"), ("deskwarden-agent have",))
        return SecretUse(SECRET, (), 0, EXPIRES_NS)

    async def start_child(self, session: str, ask: ChildAsk) -> Child:
        self.children.append(ask)
        return Child("child123", tuple(self._held(session, one) for one in ask.grants), EXPIRES_NS)

    async def why(self, session: str, subject_id: str) -> Explanation:
        refused = [one for one in self.records.values() if one.session == session and one.state.phase is Phase.DENIED]
        if not subject_id and not refused:
            raise NotFoundError("nothing was refused", "deskwarden-agent have")
        record = self._own(session, subject_id) if subject_id else refused[-1]
        state = record.state
        rules = ("protect-keys",)
        return Explanation(
            state.id, _capability(record.ask), state.phase, state.reasons, state.next_steps, rules, "rev-1", EXPIRES_NS
        )

    def _own(self, session: str, request_id: str) -> Record:
        record = self.records.get(request_id)
        if record is None or record.session != session:
            raise NotFoundError(f"no request {request_id!r}", "deskwarden-agent have")
        return record

    def _held(self, session: str, grant_id: str) -> Held:
        owner, held = self.grants.get(grant_id, ("", None))
        if held is None or owner != session:
            raise NotFoundError(f"no grant {grant_id!r}", "deskwarden-agent have")
        return held

    @staticmethod
    def _waits(record: Record) -> bool:
        return not record.state.phase.is_final


class House:
    """A relay, a gRPC server and a `MemoryDoor`, running in a thread."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="dw-doors-")
        self.door = MemoryDoor()
        self.refused: list[tuple[str, str]] = []
        self._numbers = itertools.count(1)
        self.errors: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self.errors.append(context))
        threading.Thread(target=self._loop.run_forever, daemon=True, name="house").start()
        internal = f"{self.directory}/internal.sock"
        self.relay = Relay(self.directory, internal, lambda *seen: self.refused.append(seen))
        self.server = self.call(self._start(internal))
        atexit.register(self.close)

    async def _start(self, internal: str) -> AgentServer:
        server = AgentServer(self.door, self.relay.session_of, internal)
        await server.start()
        return server

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run *coroutine* in the house's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    def open(self, **changes: Any) -> tuple[str, str]:
        """Open a session whose processes are this one's; returns its id and its socket's path."""
        session = changes.get("session") or f"s{next(self._numbers)}"
        place = Place(session, os.geteuid(), os.stat("/proc/self/ns/pid").st_ino, "", {os.getpid()})

        async def listen() -> str:
            return self.relay.open(replace(place, **changes))

        return session, self.call(listen())

    def end(self, session: str) -> None:
        async def end() -> None:
            self.relay.close(session)

        self.call(end())

    def decide(self, request_id: str, phase: Phase) -> None:
        async def decide() -> None:
            self.door.decide(request_id, phase)

        self.call(decide())

    def close(self) -> None:
        async def close() -> None:
            self.relay.close_all()
            await self.server.stop()

        self.call(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        shutil.rmtree(self.directory, ignore_errors=True)


@functools.cache
def house() -> House:
    """Return the one of this test process: gRPC for asyncio wants one loop a process."""
    return House()
