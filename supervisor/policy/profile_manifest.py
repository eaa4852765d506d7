"""The manifest that a sandbox profile carries, for agents that have none of their own. Pure.

The same profile gives the same document each time, so that a yes to it can be remembered by its digest: it says no
time of its own. It is signed by nobody; the owner's yes on the card is the consent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from supervisor.policy.manifest_schema import SCHEMA

_ALWAYS: Final = ("1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z")


def profile_document(
    program: str,
    owner: str,
    home: str,
    capabilities: Sequence[Mapping[str, Any]],
    duration_max_s: int,
    roles: Sequence[str],
) -> dict[str, Any]:
    """Return the manifest's document, to be checked and read as any other.

    Args:
        capabilities: As in a manifest; a selector may begin with ``~/``.
    """
    return {
        "schema": SCHEMA,
        "name": agent_name(program),
        "version": "0.0.0",
        "class_claim": "user-owned",
        "publisher": identity(owner),
        "owner": {"user": identity(owner)},
        "capabilities": [{**one, "selector": _expanded(one, home)} for one in capabilities],
        "duration_max_s": duration_max_s,
        "purpose": "started by its owner, with what the profile asks for",
        "roles": list(roles),
        "not_before": _ALWAYS[0],
        "expires": _ALWAYS[1],
        "seq": 1,
    }


def agent_name(program: str) -> str:
    """Return a program's name as an agent's: small letters, digits and ``-``."""
    name = re.sub("[^a-z0-9]+", "-", program.lower()).strip("-")[:63].rstrip("-")
    if not name:
        return "agent"
    return name if name[0].isalpha() else f"agent-{name}"[:63]


def identity(account: str) -> str:
    """Return an account's name as manifests can hold it."""
    return account if re.fullmatch("[A-Za-z0-9][A-Za-z0-9._@-]{0,127}", account) else "owner"


def _expanded(one: Mapping[str, Any], home: str) -> str:
    selector = str(one["selector"])
    return f"{home}{selector[1:]}" if selector.startswith("~/") and one["kind"] in ("file", "exec") else selector
