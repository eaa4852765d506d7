"""A capability request: exactly what was asked, as one value with one digest. Approvals and grants are bound to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from supervisor import strict_json
from supervisor.policy.capability import Capability, Level


@dataclass(frozen=True, slots=True)
class FileItem:
    """One file that a request's selector matched when it was resolved; a change of it changes the request.

    Of a tree, its folder: then size and time are 0, since what is in it may change.

    Attributes:
        pinned: What else the request is bound to: ``sha256:…`` of a program, ``version N`` of a secret; else empty.
    """

    path: str
    device: int
    inode: int
    size_bytes: int
    changed_ns: int
    pinned: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; numbers of the kernel's are text, since JSON's whole numbers end at 2**53."""
        numbers = {key: str(getattr(self, key)) for key in ("device", "inode", "changed_ns")}
        return asdict(self) | numbers


@dataclass(frozen=True, slots=True)
class Resource:
    """What the selector refers to on this machine, found out by the owner's hand and the classifier.

    Attributes:
        selector: In canonical form, links resolved.
        level: The highest of path rules, labels and contents.
        classes: Data classes that were found, sorted: ``payment-card``, ``iban``, ``national-id``, ``private-key``, …
        complete: Whether all of it was looked at; what was not counts as one level higher.
        items: The files matched, or the one folder of a tree.
        evidence: Why it has that level, in words for people: ``payment-card in q1.xlsx``.
    """

    selector: str
    level: Level
    classes: tuple[str, ...] = ()
    complete: bool = True
    items: tuple[FileItem, ...] = ()
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CapabilityRequest:
    """What one agent asks for, in the form that is decided on, approved, granted and recorded.

    Attributes:
        agent: ``spiffe://DOMAIN/agent/CLASS/NAME``; *session* tells its instance.
        purpose: The manifest's; *reason* is the agent's word for this request. Both are untrusted text.
        duration_s: How long the grant is wanted.
        uses: How often it may be used; 0 is without a count.
        chain: Agents above this one, the outermost first, as session ids.
    """

    id: str
    session: str
    agent: str
    owner_uid: int
    manifest_digest: str
    capability: Capability
    resource: Resource
    duration_s: int
    uses: int
    purpose: str
    reason: str
    expected_outcome: str
    rollback: str
    chain: tuple[str, ...]
    created_ns: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; times are text, since JSON's whole numbers end at 2**53."""
        value = asdict(self)
        value["created_ns"] = str(self.created_ns)
        value["resource"]["level"] = self.resource.level.word
        value["resource"]["items"] = [item.to_json() for item in self.resource.items]
        return value

    @property
    def digest(self) -> str:
        """``sha256:…`` of the canonical form of every field."""
        return strict_json.digest(self.to_json())
