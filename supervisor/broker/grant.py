"""A grant: what was given, to whom, until when, and by whose word."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from supervisor.policy.capability import Capability


@dataclass(frozen=True, slots=True)
class Grant:
    """One capability in force.

    Attributes:
        capability: What is really given; a part of what was asked when the approver narrowed it.
        expires_ns: Wall clock, for people and records; *deadline_ns* is CLOCK_BOOTTIME, which nobody can set back.
        copy: The files are an ephemeral copy.
        chain: Sessions above this one, the outermost first; *parent* the grant that this one is a part of, or empty.
        approvals: Digests of the votes that allowed it; empty when policy alone did.
    """

    id: str
    request_id: str
    request_digest: str
    session: str
    agent: str
    owner_uid: int
    manifest_digest: str
    capability: Capability
    paths: tuple[str, ...]
    copy: bool
    max_uses: int
    issued_ns: int
    expires_ns: int
    deadline_ns: int
    policy_revision: str
    approvals: tuple[str, ...]
    chain: tuple[str, ...]
    parent: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; times are text, since JSON's whole numbers end at 2**53."""
        times = {name: str(getattr(self, name)) for name in ("issued_ns", "expires_ns", "deadline_ns")}
        return asdict(self) | times
