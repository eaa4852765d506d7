"""The result of a decision: closed, strict, never a bare boolean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from supervisor.policy.capability import Assurance


class Effect(StrEnum):
    """What policy says."""

    ALLOW = "allow"
    DENY = "deny"
    ESCALATE = "escalate"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, for a program (`code`, ``rule-name``) and for people and models (`text`)."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Party:
    """Who may fill a clause: a team, and optionally a role in it. The team ``owner`` is the session's owner."""

    team: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition of a quorum: at least *least* votes of *any_of*."""

    id: str
    any_of: tuple[Party, ...]
    least: int = 1


@dataclass(frozen=True, slots=True)
class Quorum:
    """Who must say yes: every clause, each vote in one clause only, by different people."""

    clauses: tuple[Clause, ...]
    distinct_teams: int = 1
    min_assurance: Assurance = Assurance.A0
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Obligations:
    """What a grant of this decision is bound to.

    Attributes:
        copy: Give an ephemeral copy, never the files themselves.
        always: Whether an *always* answer may be kept.
    """

    ttl_s: int
    max_uses: int = 0
    copy: bool = False
    read_only: bool = False
    always: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What policy decided on one request, and by which rules.

    Attributes:
        risk: ``low``, ``medium``, ``high`` or ``critical``: shown to approvers.
        rules: The rules that made it, for ``why``.
        observed: What rules in observe mode would have denied.
        policy_revision: Of the bundle. *input_digest*: of the exact document that was decided on.
        document: That document, as it was sent to the engine: kept in the journal, for ``why`` and for replay.
    """

    effect: Effect
    risk: str
    reasons: tuple[Reason, ...]
    next_steps: tuple[str, ...]
    obligations: Obligations | None
    quorum: Quorum | None
    rules: tuple[str, ...]
    observed: tuple[Reason, ...]
    policy_revision: str
    input_digest: str
    document: str = ""
