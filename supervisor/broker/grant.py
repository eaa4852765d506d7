"""A grant: what was given, to whom, until when, and by whose word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from supervisor.broker.vote import Vote
from supervisor.clock import boottime_ns, now_ns
from supervisor.errors import RefusedError, ServiceError
from supervisor.ids import new_id
from supervisor.policy.capability import Capability
from supervisor.policy.decision import Decision
from supervisor.policy.request import CapabilityRequest, FileItem


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
    items: tuple[FileItem, ...]
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
        return asdict(self) | times | {"items": [item.to_json() for item in self.items]}


def grant_of(request: CapabilityRequest, decision: Decision, votes: Sequence[Vote]) -> Grant:
    """Return what *decision* and *votes* give: never more than was asked, and the narrowest of what they say.

    Raises:
        ServiceError: The policy leaves no time.
        RefusedError: A vote leaves nothing of the request.
    """
    duties = decision.obligations
    limits = [vote.narrowing.duration_s for vote in votes if vote.narrowing.duration_s]
    lasts_s = min(request.duration_s, duties.ttl_s, *limits) if duties is not None else 0
    if duties is None or lasts_s < 1:
        raise ServiceError(f"the decision on {request.id} leaves no time", "deskwarden policy check")
    capability = request.capability
    if duties.read_only or any(vote.narrowing.read_only for vote in votes):
        capability = _without_writing(capability)
    issued = now_ns()
    lasts_ns = lasts_s * 10**9
    return Grant(
        id=new_id("g"),
        request_id=request.id,
        request_digest=request.digest,
        session=request.session,
        agent=request.agent,
        owner_uid=request.owner_uid,
        manifest_digest=request.manifest_digest,
        capability=capability,
        items=request.resource.items,
        copy=duties.copy,
        max_uses=min((number for number in (request.uses, duties.max_uses) if number), default=0),
        issued_ns=issued,
        expires_ns=issued + lasts_ns,
        deadline_ns=boottime_ns() + lasts_ns,
        policy_revision=decision.policy_revision,
        approvals=tuple(vote.digest for vote in votes),
        chain=request.chain,
        parent="",
    )


def _without_writing(capability: Capability) -> Capability:
    kept = tuple(one for one in capability.operations if one != "write")
    if not kept:
        raise RefusedError("read-only: this request asks for nothing but writing", "deny it instead")
    return replace(capability, operations=kept)
