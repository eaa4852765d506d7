"""What several scopes say together about one capability: the one rule for where they overlap. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from supervisor.policy.capability import Capability
from supervisor.policy.selector import capabilities_overlap, capability_covers, parse_selector


@dataclass(frozen=True, slots=True)
class Scope:
    """One line of a role: what it allows or denies. *name* tells where it comes from."""

    capability: Capability
    allow: bool = True
    name: str = ""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What scopes say together. *by*: the scopes that decided; empty where none speaks of it."""

    allowed: bool
    by: tuple[Scope, ...]


def resolve(scopes: Iterable[Scope], wanted: Capability) -> Ruling:
    """Decide between overlapping scopes, whatever their order, by one rule: **deny wins, then the most specific**.

    1. A deny that touches any part of *wanted* denies all of it, however specific an allow is.
    2. Else an allow that covers all of *wanted* allows it; the parts of two allows are not put together.
    3. The most specific of those governs (its role's terms hold): more segments, then no tree, then more fixed
       characters, then fewer stars, then fewer operations. Several in *by* are equally specific: the strictest term
       of each holds.
    4. Else it is not allowed.
    """
    found = list(scopes)
    denies = [scope for scope in found if not scope.allow and capabilities_overlap(scope.capability, wanted)]
    allows = [scope for scope in found if scope.allow and capability_covers(scope.capability, wanted)]
    if denies or not allows:
        return Ruling(False, _most_specific(denies))
    return Ruling(True, _most_specific(allows))


def specificity(capability: Capability) -> tuple[int, int, int, int, int]:
    """Return a key that is greater for what is more specific; strictly so for a real part of another."""
    parsed = parse_selector(capability.kind, capability.selector)
    stars = sum(segment.count("*") for segment in parsed.segments)
    fixed = sum(map(len, parsed.segments)) - stars
    return len(parsed.segments), int(not parsed.tree), fixed, -stars, -len(capability.operations)


def _most_specific(scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    best = max((specificity(scope.capability) for scope in scopes), default=None)
    return tuple(scope for scope in scopes if specificity(scope.capability) == best)
