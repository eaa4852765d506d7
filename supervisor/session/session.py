"""One session: what is running, its console, and how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from supervisor.clock import now_ns
from supervisor.sandbox.plan import Plan
from supervisor.sandbox.profile import Profile
from supervisor.session.console import Console
from supervisor.session.state import NEXT_STEP, Record, State
from supervisor.session.stub_server import StubServer

# Output that is still in a pipe when the last process has ended is read within this time.
DRAIN_S = 2.0


@dataclass(slots=True)
class Execution:
    """One command inside: the session's own, or an `exec`'s."""

    console: Console
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exit_code: int | None = None

    async def finish(self, status: int) -> None:
        """Drain the output, then tell everybody who waits. *status*: exit code, or minus the signal."""
        try:
            await self.console.drained(DRAIN_S)
            await self.console.close()
        finally:
            self.exit_code = shell_code(status)
            self.ended.set()


@dataclass(slots=True)
class Session:
    """A living session; its record is what stays."""

    record: Record
    state: State
    main: Execution
    plan: Plan
    profile: Profile
    mounts: int
    execs: dict[str, Execution] = field(default_factory=dict)
    # The first process of the session and of each `exec` in it, as pids here: whose descendants are the agent's.
    roots: set[int] = field(default_factory=set)
    # Answers for the names that can be asked for, where the kernel has what that takes.
    stubs: StubServer | None = None
    on_ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_attended(self) -> bool:
        """Whether a person sits at a terminal of it."""
        consoles = [one.console for one in (self.main, *self.execs.values())]
        return any(console.is_terminal and console.client is not None for console in consoles)

    def change(self, **fields: object) -> None:
        """Change the record and make it durable, as soon as its disk takes it."""
        self.record = replace(self.record, **fields)  # type: ignore[arg-type]
        self.state.put(self.record)

    async def finish(self, status: int, reason: str) -> None:
        """Note the end: every process of the session is gone. A full disk is said to who waits for it."""
        try:
            for execution in self.execs.values():
                if not execution.ended.is_set():
                    await execution.finish(-9)
            await self.main.finish(status)
        finally:
            self.change(state="ended", ended_ns=now_ns(), exit_code=shell_code(status), reason=reason)
            if shortage := self.state.shortage():
                said = "; ".join(filter(None, (reason, f"{shortage}; next: {NEXT_STEP}")))
                self.record = replace(self.record, reason=said)


def shell_code(status: int) -> int:
    """Return the exit code as a shell says it: 128+N for a death by signal N."""
    return status if status >= 0 else 128 - status
