"""What an approver is shown: one value, made from the request that will be executed, and its digest.

Every surface shows these lines and no others, so that a vote's `shown_digest` tells what its giver saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from supervisor import strict_json
from supervisor.plain_text import escape_text
from supervisor.policy.capability import Kind
from supervisor.policy.decision import Decision
from supervisor.policy.request import CapabilityRequest

_MOST_FILES: Final = 8
_VERBS: Final = {
    (Kind.FILE, ("read",)): "read",
    (Kind.FILE, ("read", "write")): "read and change (staged)",
    (Kind.FILE, ("write",)): "change (staged)",
    (Kind.EXEC, ("run",)): "run",
    (Kind.SECRET, ("use",)): "use the secret",
    (Kind.NETWORK, ("connect",)): "connect to",
    (Kind.AGENT, ("spawn",)): "start the agent",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a card. *agents_words*: it is text that the agent chose, and shown as such."""

    label: str
    text: str
    agents_words: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """A request as people see it."""

    lines: tuple[Line, ...]

    @property
    def shown_digest(self) -> str:
        """``sha256:…`` over labels and texts, in order."""
        return strict_json.digest([[line.label, line.text] for line in self.lines])


def render(request: CapabilityRequest, decision: Decision) -> Card:
    """Return the card of *request*; the same for everybody who is asked. Pure."""
    return Card(tuple(_lines(request, decision)))


def _lines(request: CapabilityRequest, decision: Decision) -> Iterator[Line]:
    resource, capability = request.resource, request.capability
    operations = capability.operations
    verb = _VERBS.get((capability.kind, operations), f"{capability.kind} {', '.join(operations)}")
    yield Line("wants", f"{verb} {escape_text(capability.selector, 300)}")
    yield Line("agent", f"{escape_text(request.agent, 120)} in session {request.session}")
    if request.chain:
        yield Line("started by", " → ".join(escape_text(one, 40) for one in request.chain))
    for item in resource.items[:_MOST_FILES]:
        if item.pinned:
            yield Line("exactly", escape_text(item.pinned, 100))
    if resource.items:
        names = [escape_text(item.path.rsplit("/", 1)[-1], 60) for item in resource.items[:_MOST_FILES]]
        more = len(resource.items) - len(names)
        yield Line("files", f"{len(resource.items)}: {', '.join(names)}" + (f" and {more} more" if more > 0 else ""))
    classes = f" ({', '.join(resource.classes)})" if resource.classes else ""
    looked = "" if resource.complete else ", not all of it could be looked at"
    yield Line("data", f"{resource.level.word}{classes}{looked}")
    for evidence in resource.evidence[:_MOST_FILES]:
        yield Line("because", escape_text(evidence, 160))
    yield Line("risk", decision.risk)
    yield Line(
        "for", f"{_granted_s(request, decision)} s" + (f", at most {request.uses} times" if request.uses else "")
    )
    if decision.obligations and decision.obligations.copy:
        yield Line("gets", "a copy, removed afterwards")
    yield Line("purpose", escape_text(request.purpose), agents_words=True)
    yield Line("reason", escape_text(request.reason), agents_words=True)
    if request.expected_outcome:
        yield Line("outcome", escape_text(request.expected_outcome), agents_words=True)
    if request.rollback:
        yield Line("rollback", escape_text(request.rollback), agents_words=True)
    for clause in decision.quorum.clauses if decision.quorum else ():
        parties = " or ".join(f"{party.team}{f' {party.role}' if party.role else ''}" for party in clause.any_of)
        yield Line("needs", f"{clause.least} of {parties}" if clause.least > 1 else parties)


def _granted_s(request: CapabilityRequest, decision: Decision) -> int:
    return min(request.duration_s, decision.obligations.ttl_s) if decision.obligations else request.duration_s
