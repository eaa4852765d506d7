"""What an agent may ask of the broker, as values: the Protocol that the broker implements and its doors call.

The doors (gRPC in `daemon`) have checked types, lengths and characters; whether it is allowed is decided behind this.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from supervisor.broker.ask import Ask
from supervisor.errors import RefusedError
from supervisor.policy.capability import Capability
from supervisor.policy.decision import Reason


class Phase(StrEnum):
    """Where a request is on its way, as its agent may know it."""

    SUBMITTED = "submitted"
    AWAITING_OWNER = "awaiting-owner"
    AWAITING_REVIEW = "awaiting-review"
    GRANTED = "granted"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return self in (Phase.GRANTED, Phase.DENIED, Phase.WITHDRAWN, Phase.LAPSED)


class DeniedError(RefusedError):
    """A call of an agent is refused by a rule or by a person, with what a program and a model can use."""

    def __init__(self, reason: Reason, next_steps: tuple[str, ...] = ()) -> None:
        super().__init__(reason.text, next_steps[0] if next_steps else "")
        self.reason = reason
        self.next_steps = next_steps


@dataclass(frozen=True, slots=True)
class Held:
    """A grant in force, as its holder sees it.

    Attributes:
        paths: Where it is shown inside the sandbox.
        expires_ns: Wall clock.
    """

    id: str
    capability: Capability
    paths: tuple[str, ...]
    copy: bool
    expires_ns: int
    max_uses: int = 0
    uses_left: int = 0


@dataclass(frozen=True, slots=True)
class RequestState:
    """One state of a request; the fields are those of the message with its name."""

    id: str
    phase: Phase
    risk: str = ""
    reasons: tuple[Reason, ...] = ()
    next_steps: tuple[str, ...] = ()
    waiting_for: tuple[str, ...] = ()
    pending_until_ns: int = 0
    grant: Held | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What a session has, and what it may ask for."""

    agent: str
    purpose: str
    workspace: str
    network: str
    grants: tuple[Held, ...]
    open_requests: tuple[RequestState, ...]
    askable: tuple[Capability, ...]
    attended: bool


@dataclass(frozen=True, slots=True)
class SecretUse:
    """One use of a secret: its value, or the hosts for which the network door adds it unseen."""

    value: bytes
    added_for_hosts: tuple[str, ...]
    uses_left: int
    expires_ns: int


@dataclass(frozen=True, slots=True)
class ChildAsk:
    """Another agent to start with a part of what the caller has; *grants* are the caller's."""

    agent: str
    command: tuple[str, ...]
    grants: tuple[str, ...]
    duration_s: int
    reason: str


@dataclass(frozen=True, slots=True)
class Child:
    """An agent that was started."""

    session: str
    grants: tuple[Held, ...]
    expires_ns: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request is where it is."""

    id: str
    capability: Capability
    phase: Phase
    reasons: tuple[Reason, ...]
    next_steps: tuple[str, ...]
    rules: tuple[str, ...]
    policy_revision: str
    decided_ns: int


class AgentDoor(Protocol):
    """The broker, as the doors for agents see it. *session* is the caller's, in the kernel's word.

    Ids come from the caller: one of another session is refused exactly as one that never was. Each method raises
    `DeniedError`, or another `DeskwardenError`; a denial of a request is a state, not an error.
    """

    async def describe(self, session: str) -> Description:
        """Return what *session* has and may ask for."""

    def request(self, session: str, ask: Ask) -> AsyncGenerator[RequestState, None]:
        """Record *ask* (a duration of 0 is as long as is usual) and yield its states, the first with its id.

        The request stays when the caller stops listening and closes the generator: it may follow it later.
        """

    def follow(self, session: str, request_id: str) -> AsyncGenerator[RequestState, None]:
        """Yield the present state of a request, then the next ones until a final one."""

    async def cancel(self, session: str, request_id: str) -> None:
        """Withdraw a request that is not decided."""

    async def release(self, session: str, grant_id: str) -> None:
        """Take a grant back: on return nothing of it is left."""

    async def use_secret(self, session: str, grant_id: str) -> SecretUse:
        """Count one use, and return it."""

    async def start_child(self, session: str, ask: ChildAsk) -> Child:
        """Start another agent whose grants are a part of the caller's."""

    async def why(self, session: str, subject_id: str) -> Explanation:
        """Explain a request or a grant; "" is the last refusal."""
