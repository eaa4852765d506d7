"""`deskwarden role`: list, show; works without a daemon."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from supervisor.policy.bundle_source import default_directory, read_bundle
from supervisor.policy.role import Role, Roles, parse_roles

HELP = "roles: what agents may do by them, and until when somebody vouches for it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs."""
    verbs = parser.add_subparsers(dest="role_verb", required=True, metavar="VERB")
    for name, text in (("list", "the roles there are"), ("show", "one role with its scope")):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        verb.add_argument("--bundle", metavar="DIR", help="a bundle; without it, the shipped one")
        if name == "show":
            verb.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    """Run the chosen sub-verb."""
    bundle = read_bundle(args.bundle or default_directory())
    roles = parse_roles(bundle.roles, f"{bundle.path}/roles.json")
    return _show(roles.named(args.name), args.json) if args.role_verb == "show" else _list(roles, args.json)


def _list(roles: Roles, as_json: bool) -> int:
    everyone = (*roles.templates, *roles.bindings)
    if as_json:
        print(json.dumps([_value(role) for role in everyone], indent=2))
        return 0
    width = max((len(role.binding or role.name) for role in everyone), default=0)
    for role in everyone:
        asks = "asks" if role.requires_approval else ""
        name = role.binding or role.name
        print(f"{name:<{width}}  {role.trust_level:<6}  {_time(role.duration_s):>6}  {asks:<4}  {_review(role)}")
    return 0


def _show(role: Role, as_json: bool) -> int:
    if as_json:
        print(json.dumps(_value(role), indent=2))
        return 0
    print(f"{role.binding or role.name}: {role.description}")
    print(f"trust     {role.trust_level}")
    print(f"for       {_time(role.duration_s)}{', asks each time' if role.requires_approval else ''}")
    print(f"owner     {role.owner}, review {_review(role)}")
    for entry in role.scope:
        what = entry.capability
        print(f"{entry.effect:<8}  {what.kind} {what.selector} ({', '.join(what.operations)})")
    return 0


def _value(role: Role) -> dict[str, Any]:
    return {
        "name": role.name,
        "binding": role.binding,
        "description": role.description,
        "trust_level": role.trust_level,
        "duration_s": role.duration_s,
        "requires_approval": role.requires_approval,
        "owner": role.owner,
        "review_date": role.review_date.isoformat(),
        "grants": role.grants_on(datetime.now(UTC).date()),
        "scope": [
            {
                "effect": entry.effect,
                "kind": str(entry.capability.kind),
                "selector": entry.capability.selector,
                "operations": list(entry.capability.operations),
            }
            for entry in role.scope
        ],
    }


def _review(role: Role) -> str:
    day = role.review_date.isoformat()
    return day if role.grants_on(datetime.now(UTC).date()) else f"{day} (over: grants nothing)"


def _time(duration_s: int) -> str:
    for unit, seconds in (("h", 3600), ("min", 60)):
        if duration_s % seconds == 0:
            return f"{duration_s // seconds} {unit}"
    return f"{duration_s} s"
