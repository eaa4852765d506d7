"""Between the messages of the agent API and the values of `broker.agent_door`: strict one way, complete the other."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

from supervisor._proto.deskwarden.v1 import agent_pb2, types_pb2
from supervisor.broker.agent_door import Child, ChildAsk, Description, Explanation, Held, Phase, RequestState
from supervisor.broker.ask import Ask
from supervisor.errors import UsageError
from supervisor.policy.capability import OPERATIONS, Capability, Kind
from supervisor.policy.decision import Reason

# PATH_MAX of linux/limits.h, with the NUL.
MAX_SELECTOR_BYTES: Final = 4095
MAX_TEXT_CHARACTERS: Final = 2000
MAX_ID_CHARACTERS: Final = 64
MAX_COMMAND_BYTES: Final = 65536
MAX_GRANTS: Final = 64
MAX_DURATION_S: Final = 7 * 86400
MAX_USES: Final = 1_000_000

_KINDS: Final = {getattr(types_pb2, f"KIND_{kind.name}"): kind for kind in Kind}
_KIND_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}
_OPERATIONS: Final = {
    getattr(types_pb2, f"OPERATION_{word.upper()}"): word for words in OPERATIONS.values() for word in words
}
_OPERATION_NUMBERS: Final = {word: number for number, word in _OPERATIONS.items()}
_PHASE_NUMBERS: Final = {phase: getattr(types_pb2, f"PHASE_{phase.name}") for phase in Phase}


def ask_of(message: agent_pb2.RequestRequest) -> Ask:
    """Read a request.

    Raises:
        UsageError: With the field's name, the value seen and the one expected.
    """
    wanted = _capability_of(message.capability)
    return Ask(
        kind=wanted.kind,
        operations=wanted.operations,
        target=wanted.selector,
        reason=_text("reason", message.reason, needed=True),
        duration_s=_number("duration_s", message.duration_s, MAX_DURATION_S),
        uses=_number("uses", message.uses, MAX_USES),
        expected_outcome=_text("expected_outcome", message.expected_outcome),
        rollback=_text("rollback", message.rollback),
    )


def child_ask_of(message: agent_pb2.StartChildRequest) -> ChildAsk:
    """Read the wish for a child; raises as `ask_of`."""
    size = sum(len(word.encode()) + 1 for word in message.command)
    if size > MAX_COMMAND_BYTES or any("\0" in word for word in message.command):
        raise UsageError(f"command: {size} bytes, want at most {MAX_COMMAND_BYTES}, without NUL")
    if len(message.grant_ids) > MAX_GRANTS:
        raise UsageError(f"grant_ids: {len(message.grant_ids)}, want at most {MAX_GRANTS}")
    return ChildAsk(
        agent=_name("agent", message.agent),
        command=tuple(message.command),
        grants=tuple(id_of("grant_ids", one) for one in message.grant_ids),
        duration_s=_number("duration_s", message.duration_s, MAX_DURATION_S),
        reason=_text("reason", message.reason, needed=True),
    )


def id_of(field: str, text: str, *, needed: bool = True) -> str:
    """Return an id that may be looked up; raises as `ask_of`."""
    if (needed and not text) or len(text) > MAX_ID_CHARACTERS:
        raise UsageError(f"{field}: {text[:80]!r}, want 1 to {MAX_ID_CHARACTERS} characters")
    if not (text.isascii() and text.isprintable()):
        raise UsageError(f"{field}: {text!a}, want printable ASCII")
    return text


def _capability_of(message: types_pb2.Capability) -> Capability:
    kind = _KINDS.get(message.kind)
    if kind is None:
        raise UsageError(f"capability.kind: {message.kind}, want one of {_words(_KINDS.values())}")
    operations = tuple(sorted({_OPERATIONS.get(number, str(number)) for number in message.operations}))
    if not operations or not set(operations) <= set(OPERATIONS[kind]):
        raise UsageError(f"capability.operations: {_words(operations)}, want some of {_words(OPERATIONS[kind])}")
    return Capability(kind, _name("capability.selector", message.selector), operations)


def _words(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def _name(field: str, text: str) -> str:
    size = len(text.encode())
    if not 0 < size <= MAX_SELECTOR_BYTES:
        raise UsageError(f"{field}: {size} bytes, want 1 to {MAX_SELECTOR_BYTES}")
    _check_characters(field, text, "")
    return text


def _text(field: str, text: str, *, needed: bool = False) -> str:
    text = text.strip()
    if (needed and not text) or len(text) > MAX_TEXT_CHARACTERS:
        raise UsageError(f"{field}: {len(text)} characters, want {int(needed)} to {MAX_TEXT_CHARACTERS}")
    _check_characters(field, text, "\n\t")
    return text


def _check_characters(field: str, text: str, allowed: str) -> None:
    """Refuse what can change how a name or a sentence is read: controls, and what is invisible or turns the direction.

    Unicode's general categories Cc, Cf, Zl, Zp.
    """
    for character in text:
        if character not in allowed and unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp"):
            raise UsageError(f"{field}: the character U+{ord(character):04X} is not accepted")


def _number(field: str, value: int, most: int) -> int:
    if not 0 <= value <= most:
        raise UsageError(f"{field}: {value}, want 0 to {most}")
    return value


def capability_to(value: Capability) -> types_pb2.Capability:
    """Write a capability."""
    return types_pb2.Capability(
        kind=_KIND_NUMBERS[value.kind],
        selector=value.selector,
        operations=[_OPERATION_NUMBERS[word] for word in value.operations],
    )


def reasons_to(values: tuple[Reason, ...]) -> list[types_pb2.Reason]:
    """Write reasons."""
    return [types_pb2.Reason(code=one.code, text=one.text) for one in values]


def held_to(value: Held) -> types_pb2.Grant:
    """Write a grant."""
    return types_pb2.Grant(
        grant_id=value.id,
        capability=capability_to(value.capability),
        paths=value.paths,
        is_copy=value.copy,
        expires_ns=value.expires_ns,
        max_uses=value.max_uses,
        uses_left=value.uses_left,
    )


def state_to(value: RequestState) -> types_pb2.RequestState:
    """Write a state."""
    return types_pb2.RequestState(
        request_id=value.id,
        phase=_PHASE_NUMBERS[value.phase],
        risk=value.risk,
        reasons=reasons_to(value.reasons),
        next_steps=value.next_steps,
        waiting_for=value.waiting_for,
        pending_until_ns=value.pending_until_ns,
        grant=held_to(value.grant) if value.grant else None,
    )


def description_to(session: str, value: Description) -> agent_pb2.DescribeResponse:
    """Write what a session has."""
    return agent_pb2.DescribeResponse(
        session_id=session,
        agent=value.agent,
        purpose=value.purpose,
        workspace=value.workspace,
        network=value.network,
        grants=map(held_to, value.grants),
        open_requests=map(state_to, value.open_requests),
        askable=map(capability_to, value.askable),
        is_attended=value.attended,
    )


def child_to(value: Child) -> agent_pb2.StartChildResponse:
    """Write a child."""
    return agent_pb2.StartChildResponse(
        session_id=value.session, grants=map(held_to, value.grants), expires_ns=value.expires_ns
    )


def explanation_to(value: Explanation) -> agent_pb2.WhyResponse:
    """Write an explanation."""
    return agent_pb2.WhyResponse(
        id=value.id,
        capability=capability_to(value.capability),
        phase=_PHASE_NUMBERS[value.phase],
        reasons=reasons_to(value.reasons),
        next_steps=value.next_steps,
        rules=value.rules,
        policy_revision=value.policy_revision,
        decided_ns=value.decided_ns,
    )
