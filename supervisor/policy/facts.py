"""What is known about a request besides the request itself: the values that a decision may depend on, and no others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from supervisor.policy.capability import Level

AgentClass = Literal["system", "service", "user-owned"]


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    """What the agent's manifest says about this request.

    Attributes:
        signed_by: Roles of the signatures that were verified: ``publisher``, ``owner``, ``agent``.
        covers: Whether *capability*, an entry of it by its id, covers what is asked.
    """

    digest: str
    signed_by: tuple[str, ...]
    covers: bool
    capability: str
    level_max: Level
    duration_max_s: int


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """The role that applies by the rule of `role.resolve`; without one, the default values."""

    name: str = ""
    binding: str = ""
    trust_level: Literal["low", "medium", "high"] = "low"
    covers: bool = False
    effect: Literal["allow", "deny", "none"] = "none"
    duration_s: int = 0
    requires_approval: bool = False


@dataclass(frozen=True, slots=True)
class OwnerFacts:
    """The session's owner. *consented*: to this agent with this manifest, on the first-run card or by signature."""

    uid: int
    name: str
    consented: bool


@dataclass(frozen=True, slots=True)
class PostureFacts:
    """The machine's health; what could not be found out is no pass."""

    state: Literal["pass", "fail", "unknown"] = "unknown"
    revision: str = ""


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """Where the agent stands below others. *parent_covers* is true at the top."""

    depth: int = 0
    max_depth: int = 0
    parent_covers: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that `decide` looks at besides the request.

    Attributes:
        now_s: Wall clock; rules have no other, so that a decision can be replayed.
        launch: Asked for by the launch itself, which the owner confirmed, not by the running agent.
        rule_answer: A standing answer of the owner that fits exactly.
        asked, denied: Requests of this session before.
        asking, always: What the ceiling allows: questions at all, standing answers.
    """

    now_s: int
    agent_class: AgentClass
    manifest: ManifestFacts
    role: RoleFacts
    owner: OwnerFacts
    rule_answer: Literal["always", "never", "none"] = "none"
    posture: PostureFacts = PostureFacts()
    launch: bool = False
    asked: int = 0
    denied: int = 0
    chain: ChainFacts = ChainFacts()
    asking: bool = True
    always: bool = True
