"""What the client takes and returns. The fields are those of the messages; times are nanoseconds of the wall clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from supervisor.errors import RefusedError

GRANTED: Final = "granted"
FINAL_PHASES: Final = (GRANTED, "denied", "withdrawn", "lapsed")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: *code* for programs, *text* for people and models."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted.

    Attributes:
        type: ``file:read`` and the like, see `messages.TYPES`.
        target: A path or pattern (``~`` stays: it is the owner's home), a program, a secret, ``host:port``, an agent.
        reason: What it is for; people read it.
        duration_s: 0 is as long as policy gives. *uses*: 0 is without a count.
        expected_outcome: Asked for, as is *rollback*, where the risk is high.
    """

    type: str
    target: str
    reason: str
    duration_s: int = 0
    uses: int = 0
    expected_outcome: str = ""
    rollback: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """A capability in force. *type* is ``file:read`` and the like; *paths*: where it is shown in the sandbox."""

    id: str
    type: str
    target: str
    paths: tuple[str, ...]
    is_copy: bool
    expires_ns: int
    max_uses: int
    uses_left: int


@dataclass(frozen=True, slots=True)
class State:
    """Where a request is on its way: *phase* is one of `FINAL_PHASES`, or who is awaited."""

    id: str
    phase: str
    risk: str
    reasons: tuple[Reason, ...]
    next_steps: tuple[str, ...]
    waiting_for: tuple[str, ...]
    pending_until_ns: int
    grant: Grant | None

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return self.phase in FINAL_PHASES


@dataclass(frozen=True, slots=True)
class Access:
    """What this session has, and what it may ask for (types with targets)."""

    session: str
    agent: str
    purpose: str
    workspace: str
    network: str
    grants: tuple[Grant, ...]
    open_requests: tuple[State, ...]
    askable: tuple[tuple[str, str], ...]
    is_attended: bool


@dataclass(frozen=True, slots=True)
class SecretUse:
    """One use of a secret; *value* is empty when the network door adds it for those hosts."""

    value: bytes
    added_for_hosts: tuple[str, ...]
    uses_left: int
    expires_ns: int


@dataclass(frozen=True, slots=True)
class Child:
    """An agent that was started."""

    session: str
    grants: tuple[Grant, ...]
    expires_ns: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request is where it is."""

    id: str
    type: str
    target: str
    phase: str
    reasons: tuple[Reason, ...]
    next_steps: tuple[str, ...]
    rules: tuple[str, ...]
    policy_revision: str
    decided_ns: int


class DeskwardenDenied(RefusedError):
    """The broker said no, with what a program and a model can use.

    Attributes:
        request_id: Of a request that was denied; empty when a call was refused.
    """

    def __init__(self, reason_code: str, text: str, next_steps: tuple[str, ...] = (), request_id: str = "") -> None:
        super().__init__(text, next_steps[0] if next_steps else "")
        self.reason_code = reason_code
        self.next_steps = next_steps
        self.request_id = request_id

    @classmethod
    def of(cls, state: State) -> DeskwardenDenied:
        """Return the error for a request whose final state is not *granted*."""
        first = state.reasons[0] if state.reasons else Reason(state.phase, f"the request was {state.phase}")
        return cls(first.code, "; ".join(one.text for one in state.reasons) or first.text, state.next_steps, state.id)
