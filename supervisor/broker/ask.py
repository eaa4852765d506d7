"""What comes in at a door, and who is behind it: values, checked and bounded before anything else happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from supervisor.errors import UsageError
from supervisor.policy.capability import OPERATIONS, Kind

MAX_TARGET: Final = 4096
MAX_TEXT: Final = 1000
MAX_DURATION_S: Final = 7 * 86400
MAX_USES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Ask:
    """What an agent asks for, as it was typed; `resolve` finds out what it means.

    Attributes:
        target: A path (``~`` is the owner's home) or pattern, a program, a secret's name, ``host:port``, an agent.
        duration_s: How long it is wanted.
    """

    kind: Kind
    operations: tuple[str, ...]
    target: str
    duration_s: int
    reason: str
    uses: int = 0
    expected_outcome: str = ""
    rollback: str = ""


@dataclass(frozen=True, slots=True)
class SessionParty:
    """A running session, as the broker knows it.

    Attributes:
        agent: ``spiffe://DOMAIN/agent/CLASS/NAME``.
        publisher: Who published the agent; standing rules hold for it, not for one digest.
        project: The workspace's real path.
        parent: The session that started this one, or an empty word.
    """

    id: str
    name: str
    agent: str
    agent_class: str
    publisher: str
    owner_uid: int
    owner_name: str
    owner_home: str
    project: str
    manifest_digest: str
    purpose: str
    consented: bool = True
    chain: tuple[str, ...] = ()
    parent: str = ""


def check(ask: Ask) -> Ask:
    """Refuse what no door may let in.

    Raises:
        UsageError: A field is missing, too long, or is not what it must be.
    """
    known = OPERATIONS[ask.kind]
    if (
        not ask.operations
        or list(ask.operations) != sorted(set(ask.operations))
        or not set(ask.operations) <= set(known)
    ):
        raise UsageError(
            f"operations {', '.join(ask.operations) or 'none'}: want of {', '.join(known)}, sorted, once each"
        )
    if not ask.target or len(ask.target) > MAX_TARGET or "\0" in ask.target:
        raise UsageError(f"target of {len(ask.target)} characters: want 1 to {MAX_TARGET}, without NUL")
    if not 1 <= ask.duration_s <= MAX_DURATION_S:
        raise UsageError(f"duration {ask.duration_s} s: want 1 to {MAX_DURATION_S}", "ask for a shorter time")
    if not 0 <= ask.uses <= MAX_USES:
        raise UsageError(f"uses {ask.uses}: want 0 (no count) to {MAX_USES}")
    if not ask.reason.strip():
        raise UsageError(
            "no reason given: want a sentence that a person can judge", "say why it is needed: --reason TEXT"
        )
    for name in ("reason", "expected_outcome", "rollback"):
        if len(getattr(ask, name)) > MAX_TEXT:
            raise UsageError(f"{name}: {len(getattr(ask, name))} characters, at most {MAX_TEXT}", "say it shorter")
    for text in (ask.target, ask.reason, ask.expected_outcome, ask.rollback):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError("half a character in a text: want Unicode") from None
    return ask
