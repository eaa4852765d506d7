"""Roles as data: what an agent may do by its role, for how long, and until when somebody vouches for it.

A *template* says what a role is (agent-viewer); a *binding* gives it to agents of a team at a trust level, under the
name ``agent-viewer:team-finance:low-trust``. Where bindings overlap, deny wins, then the most specific scope. A binding
past its review date grants nothing; its denials stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, Literal

from supervisor.errors import UsageError
from supervisor.policy import scope
from supervisor.policy.capability import OPERATIONS, Capability, Kind
from supervisor.policy.facts import RoleFacts

TRUST_LEVELS: Final = ("low", "medium", "high")
MAX_ROLES: Final = 256
MAX_SCOPE: Final = 256
MAX_DURATION_S: Final = 366 * 86400
BINDING: Final = re.compile(r"(agent-[a-z-]+):([a-z0-9-]+):(low|medium|high)-trust")
_TEMPLATE: Final = re.compile(r"agent-[a-z-]+")
_NEXT: Final = "deskwarden policy check DIR"


@dataclass(frozen=True, slots=True)
class Scope:
    """One entry of a role's scope."""

    effect: Literal["allow", "deny"]
    capability: Capability


@dataclass(frozen=True, slots=True)
class Role:
    """A template or, with a *binding*, a role that was given.

    Attributes:
        owner: Who answers for it, a team or a person.
        review_date: The last day on which it grants.
    """

    name: str
    binding: str
    trust_level: Literal["low", "medium", "high"]
    scope: tuple[Scope, ...]
    duration_s: int
    requires_approval: bool
    owner: str
    review_date: date
    description: str = ""

    def grants_on(self, day: date) -> bool:
        """Return whether it is not past its review date."""
        return day <= self.review_date


@dataclass(frozen=True, slots=True)
class Roles:
    """The content of roles.json."""

    templates: tuple[Role, ...]
    bindings: tuple[Role, ...]

    def named(self, name: str) -> Role:
        """Return the template or binding of that name.

        Raises:
            UsageError: There is none.
        """
        for role in (*self.bindings, *self.templates):
            if name == (role.binding or role.name):
                return role
        raise UsageError(f"no role {name!r}", "deskwarden role list")


def resolve(bindings: Iterable[Role], asked: Capability, now_s: int) -> RoleFacts:
    """Return what the roles in *bindings* (those of this agent) say about *asked*, by the rule of `scope.resolve`.

    Of several that are equally specific the strictest terms hold: one that asks each time, then the shortest.
    """
    today = datetime.fromtimestamp(now_s, UTC).date()
    given = {role.binding: role for role in bindings}
    scopes = [
        scope.Scope(entry.capability, entry.effect == "allow", role.binding)
        for role in given.values()
        for entry in role.scope
        if entry.effect == "deny" or role.grants_on(today)
    ]
    ruling = scope.resolve(scopes, asked)
    if not ruling.by:
        return RoleFacts()
    strictest = min(
        (given[one.name] for one in ruling.by),
        key=lambda role: (not role.requires_approval, role.duration_s, role.binding),
    )
    return _facts(strictest, "allow" if ruling.allowed else "deny")


def _facts(role: Role, effect: Literal["allow", "deny"]) -> RoleFacts:
    return RoleFacts(
        name=role.name,
        binding=role.binding,
        trust_level=role.trust_level,
        covers=effect == "allow",
        effect=effect,
        duration_s=role.duration_s,
        requires_approval=role.requires_approval,
    )


def parse_roles(value: Any, where: str = "roles.json") -> Roles:
    """Read the content of roles.json, parsed by `strict_json`.

    Raises:
        UsageError: An unknown or missing attribute, a wrong type, a bad name, a name twice; with its place.
    """
    body = _object(value or {"templates": [], "bindings": []}, {"templates", "bindings"}, where)
    templates = tuple(_template(item, f"{where}: {place}") for place, item in _items(body, "templates", where))
    known = {template.name: template for template in templates}
    bindings = tuple(_binding(item, known, f"{where}: {place}") for place, item in _items(body, "bindings", where))
    for names in ([role.name for role in templates], [role.binding for role in bindings]):
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"{where}: {min(twice)} stands twice", _NEXT)
    return Roles(templates, bindings)


_ATTRIBUTES: Final = frozenset(
    {"name", "description", "trust_level", "scope", "duration_s", "requires_approval", "owner", "review_date"}
)


def _template(value: Any, where: str) -> Role:
    body = _object(value, _ATTRIBUTES, where)
    name = _matching(body["name"], _TEMPLATE, f"{where}.name")
    return _role(body, name, "", where)


def _binding(value: Any, known: dict[str, Role], where: str) -> Role:
    """A binding says what its template says, or less; its trust level stands in its name."""
    body = _object(value, {"name", "scope", "duration_s", "requires_approval", "owner", "review_date"}, where)
    binding = _matching(body["name"], BINDING, f"{where}.name")
    name, _, trust = binding.split(":")
    template = known.get(name)
    if template is None:
        raise UsageError(f"{where}.name: no template {name}, want one of {', '.join(sorted(known))}", _NEXT)
    trust = trust.removesuffix("-trust")
    if TRUST_LEVELS.index(trust) > TRUST_LEVELS.index(template.trust_level):
        raise UsageError(f"{where}.name: {trust} trust, {name} has at most {template.trust_level}", _NEXT)
    role = _role(body | {"trust_level": trust, "description": template.description}, name, binding, where)
    if role.duration_s > template.duration_s:
        raise UsageError(f"{where}.duration_s: {role.duration_s}, {name} has at most {template.duration_s}", _NEXT)
    if template.requires_approval and not role.requires_approval:
        raise UsageError(f"{where}.requires_approval: false, but {name} always requires approval", _NEXT)
    return role


def _role(body: dict[str, Any], name: str, binding: str, where: str) -> Role:
    duration_s = body["duration_s"]
    if type(duration_s) is not int or not 0 < duration_s <= MAX_DURATION_S:
        raise UsageError(f"{where}.duration_s: {duration_s!r}, want 1 to {MAX_DURATION_S}", _NEXT)
    if type(body["requires_approval"]) is not bool:
        raise UsageError(f"{where}.requires_approval: want true or false", _NEXT)
    if body["trust_level"] not in TRUST_LEVELS:
        raise UsageError(f"{where}.trust_level: {body['trust_level']!r}, want {', '.join(TRUST_LEVELS)}", _NEXT)
    return Role(
        name=name,
        binding=binding,
        trust_level=body["trust_level"],
        scope=_scope(body["scope"], f"{where}.scope"),
        duration_s=duration_s,
        requires_approval=body["requires_approval"],
        owner=_words(body["owner"], f"{where}.owner"),
        review_date=_day(body["review_date"], f"{where}.review_date"),
        description=_words(body["description"], f"{where}.description"),
    )


def _scope(value: Any, where: str) -> tuple[Scope, ...]:
    if type(value) is not list or len(value) > MAX_SCOPE:
        raise UsageError(f"{where}: want a list of at most {MAX_SCOPE} entries", _NEXT)
    return tuple(_scope_entry(item, f"{where}[{index}]") for index, item in enumerate(value))


def _scope_entry(value: Any, where: str) -> Scope:
    body = _object(value, {"effect", "kind", "selector", "operations"}, where)
    if body["effect"] not in ("allow", "deny"):
        raise UsageError(f"{where}.effect: {body['effect']!r}, want allow or deny", _NEXT)
    if body["kind"] not in list(Kind):
        raise UsageError(f"{where}.kind: {body['kind']!r}, want {', '.join(Kind)}", _NEXT)
    kind, operations = Kind(body["kind"]), body["operations"]
    if type(operations) is not list or not operations or any(item not in OPERATIONS[kind] for item in operations):
        raise UsageError(f"{where}.operations: want some of {', '.join(OPERATIONS[kind])}", _NEXT)
    selector = _words(body["selector"], f"{where}.selector")
    return Scope(body["effect"], Capability(kind, selector, tuple(sorted(set(operations)))))


def _items(body: dict[str, Any], name: str, where: str) -> list[tuple[str, Any]]:
    items = body[name]
    if type(items) is not list or len(items) > MAX_ROLES:
        raise UsageError(f"{where}: {name}: want a list of at most {MAX_ROLES}", _NEXT)
    return [(f"{name}[{index}]", item) for index, item in enumerate(items)]


def _object(value: Any, names: set[str] | frozenset[str], where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise UsageError(f"{where}: want an object", _NEXT)
    if odd := value.keys() ^ names:
        name = min(odd)
        raise UsageError(f"{where}: {'unknown' if name in value else 'missing'} attribute {name[:40]!r}", _NEXT)
    return value


def _matching(value: Any, pattern: re.Pattern[str], where: str) -> str:
    if type(value) is not str or not pattern.fullmatch(value):
        raise UsageError(f"{where}: {str(value)[:80]!r} does not match {pattern.pattern}", _NEXT)
    return value


def _words(value: Any, where: str) -> str:
    if type(value) is not str or not 0 < len(value) <= 4096 or not value.isprintable():
        raise UsageError(f"{where}: want a text of one line", _NEXT)
    return value


def _day(value: Any, where: str) -> date:
    try:
        day = date.fromisoformat(value)
    except (TypeError, ValueError):
        day = None
    if day is None or day.isoformat() != value:
        raise UsageError(f"{where}: {str(value)[:40]!r}, want a date such as 2027-03-31", _NEXT)
    return day
