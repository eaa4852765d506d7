"""Standing answers: what a person said *always* or *never* to, for one owner, publisher, project and exact target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from supervisor.policy.capability import Capability, Kind

# CLI.md: an *always* holds 90 days.
LASTS_NS: Final = 90 * 86400 * 10**9


@dataclass(frozen=True, slots=True)
class Rule:
    """One standing answer. A *session* of its own makes it end with that session; it is never written down then."""

    id: str
    owner_uid: int
    publisher: str
    project: str
    capability: Capability
    answer: str
    by: str
    created_ns: int
    expires_ns: int
    session: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        times = {name: str(getattr(self, name)) for name in ("created_ns", "expires_ns")}
        return asdict(self) | times

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Rule:
        """Return the rule that `to_json` wrote."""
        raw = value["capability"]
        capability = Capability(Kind(raw["kind"]), raw["selector"], tuple(raw["operations"]))
        times = {name: int(value[name]) for name in ("created_ns", "expires_ns")}
        return cls(**value | times | {"capability": capability})

    def sentence(self) -> str:
        """Return what it says, for the person who is about to make it, or looks at it."""
        operations = " and ".join(self.capability.operations)
        what = f"{operations} {self.capability.selector}"
        if self.session:
            return f"{self.publisher} may {what} as often as it asks in session {self.session}"
        return f"{self.publisher} may {self.answer} {what} in {self.project}"


def answer_of(
    rules: Iterable[Rule], owner_uid: int, publisher: str, project: str, session: str, wanted: Capability, now_ns: int
) -> str:
    """Return ``never``, ``always`` or ``none``: a no goes before a yes; operations of a yes must include all wanted."""
    answers = set()
    for rule in rules:
        same = (rule.owner_uid, rule.publisher, rule.project) == (owner_uid, publisher, project)
        if not same or now_ns >= rule.expires_ns or rule.session not in ("", session):
            continue
        if (rule.capability.kind, rule.capability.selector) != (wanted.kind, wanted.selector):
            continue
        ours, theirs = set(rule.capability.operations), set(wanted.operations)
        if rule.answer == "never" and ours & theirs:
            return "never"
        if rule.answer == "always" and theirs <= ours:
            answers.add("always")
    return "always" if answers else "none"
