"""Between the messages of the agent API and the client's values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from supervisor._proto.deskwarden.v1 import agent_pb2, types_pb2
from supervisor.agent.values import Access, Ask, Explanation, Grant, Reason, State
from supervisor.errors import UsageError

# What people and models write, and what the messages say.
TYPES: Final = {
    "file:read": (types_pb2.KIND_FILE, types_pb2.OPERATION_READ),
    "file:write": (types_pb2.KIND_FILE, types_pb2.OPERATION_WRITE),
    "exec:run": (types_pb2.KIND_EXEC, types_pb2.OPERATION_RUN),
    "secret:use": (types_pb2.KIND_SECRET, types_pb2.OPERATION_USE),
    "net:connect": (types_pb2.KIND_NETWORK, types_pb2.OPERATION_CONNECT),
    "agent.call:spawn": (types_pb2.KIND_AGENT, types_pb2.OPERATION_SPAWN),
}
_WORDS: Final = {numbers: word for word, numbers in TYPES.items()}
_PHASE_PREFIX: Final = "PHASE_"


def message_of(ask: Ask) -> agent_pb2.RequestRequest:
    """Write a wish.

    Raises:
        UsageError: There is no such type.
    """
    if ask.type not in TYPES:
        raise UsageError(f"unknown type {ask.type!r}, want one of {', '.join(TYPES)}")
    kind, operation = TYPES[ask.type]
    return agent_pb2.RequestRequest(
        capability=types_pb2.Capability(kind=kind, selector=ask.target, operations=[operation]),
        reason=ask.reason,
        duration_s=ask.duration_s,
        uses=ask.uses,
        expected_outcome=ask.expected_outcome,
        rollback=ask.rollback,
    )


def type_of(message: types_pb2.Capability) -> str:
    """Return the word for a capability; several operations are joined by a comma."""
    return ",".join(_WORDS.get((message.kind, one), f"{message.kind}:{one}") for one in message.operations)


def grant_of(message: types_pb2.Grant) -> Grant:
    return Grant(
        message.grant_id,
        type_of(message.capability),
        message.capability.selector,
        tuple(message.paths),
        message.is_copy,
        message.expires_ns,
        message.max_uses,
        message.uses_left,
    )


def reasons_of(messages: Iterable[types_pb2.Reason]) -> tuple[Reason, ...]:
    return tuple(Reason(one.code, one.text) for one in messages)


def phase_of(number: types_pb2.Phase) -> str:
    return types_pb2.Phase.Name(number).removeprefix(_PHASE_PREFIX).lower().replace("_", "-")


def state_of(message: types_pb2.RequestState) -> State:
    return State(
        message.request_id,
        phase_of(message.phase),
        message.risk,
        reasons_of(message.reasons),
        tuple(message.next_steps),
        tuple(message.waiting_for),
        message.pending_until_ns,
        grant_of(message.grant) if message.HasField("grant") else None,
    )


def access_of(message: agent_pb2.DescribeResponse) -> Access:
    return Access(
        message.session_id,
        message.agent,
        message.purpose,
        message.workspace,
        message.network,
        tuple(map(grant_of, message.grants)),
        tuple(map(state_of, message.open_requests)),
        tuple((type_of(one), one.selector) for one in message.askable),
        message.is_attended,
    )


def explanation_of(message: agent_pb2.WhyResponse) -> Explanation:
    return Explanation(
        message.id,
        type_of(message.capability),
        message.capability.selector,
        phase_of(message.phase),
        reasons_of(message.reasons),
        tuple(message.next_steps),
        tuple(message.rules),
        message.policy_revision,
        message.decided_ns,
    )
