"""Roles: strict when read, deny wins, then the most specific; past its review date a role grants nothing."""

from __future__ import annotations

import copy
import json
from datetime import date
from typing import Any

import pytest

from supervisor.errors import UsageError
from supervisor.policy.bundle_source import default_directory
from supervisor.policy.capability import Capability, Kind
from supervisor.policy.role import Role, Scope, parse_roles, resolve

NOW_S = 1_798_761_600  # 2027-01-01
SHIPPED = json.loads((default_directory() / "roles.json").read_text())


def file(selector: str, *operations: str) -> Capability:
    return Capability(Kind.FILE, selector, operations or ("read",))


def role(binding: str, *scope: tuple[str, str], review: str = "2027-06-30", duration_s: int = 60) -> Role:
    entries = tuple(Scope("deny" if effect == "deny" else "allow", file(selector)) for effect, selector in scope)
    name = binding.partition(":")[0]
    return Role(name, binding, "low", entries, duration_s, False, "x", date.fromisoformat(review))


A = "agent-a:t:low-trust"
B = "agent-b:t:low-trust"


@pytest.mark.parametrize(
    ("roles", "want"),
    [
        ([], ("none", "")),
        ([role(A, ("allow", "/srv/**"))], ("allow", A)),
        ([role(A, ("allow", "/home/**"))], ("none", "")),
        ([role(A, ("allow", "/srv/**")), role(B, ("deny", "/srv/secret/**"))], ("deny", B)),
        ([role(A, ("allow", "/srv/secret/x")), role(B, ("deny", "/srv/**"))], ("deny", B)),
        ([role(A, ("allow", "/srv/**")), role(B, ("allow", "/srv/secret/**"))], ("allow", B)),
        ([role(B, ("allow", "/srv/**")), role(A, ("allow", "/srv/**"))], ("allow", A)),
        ([role(A, ("allow", "/srv/**")), role(B, ("allow", "/srv/**"), duration_s=30)], ("allow", B)),
        ([role(A, ("allow", "/srv/**"), review="2026-12-31")], ("none", "")),
        ([role(A, ("allow", "/srv/**"), review="2027-01-01")], ("allow", A)),
        ([role(A, ("deny", "/srv/**"), review="2020-01-01"), role(B, ("allow", "/srv/**"))], ("deny", A)),
        ([role(A, ("allow", "/srv/secret/**"), review="2026-12-31"), role(B, ("allow", "/srv/**"))], ("allow", B)),
    ],
)
def test_deny_wins_then_the_most_specific_then_the_strictest_terms(roles: list[Role], want: tuple[str, str]) -> None:
    facts = resolve(roles, file("/srv/secret/x"), NOW_S)
    assert (facts.effect, facts.binding) == want
    assert facts.covers == (facts.effect == "allow")


def test_the_shipped_roles_are_read() -> None:
    roles = parse_roles(SHIPPED)
    assert {role.name for role in roles.templates} == {
        *("agent-viewer", "agent-editor-limited", "agent-executor-safe", "agent-secrets-proxy", "agent-admin-request")
    }
    assert roles.named("agent-admin-request").requires_approval
    assert all(role.binding for role in roles.bindings)


@pytest.mark.parametrize(
    ("where", "name", "value", "complaint"),
    [
        ("templates", "colour", "red", "unknown attribute 'colour'"),
        ("templates", "owner", None, "missing attribute 'owner'"),
        ("templates", "name", "viewer", "does not match"),
        ("templates", "trust_level", "total", "want low, medium, high"),
        ("templates", "duration_s", 0, "duration_s"),
        ("templates", "duration_s", True, "duration_s"),
        ("templates", "duration_s", "900", "duration_s"),
        ("templates", "requires_approval", 0, "true or false"),
        ("templates", "review_date", "30.6.2027", "want a date"),
        ("templates", "review_date", "20270630", "want a date"),
        ("templates", "scope", {}, "want a list"),
        (
            "templates",
            "scope",
            [{"effect": "maybe", "kind": "file", "selector": "/", "operations": ["read"]}],
            "effect",
        ),
        ("templates", "scope", [{"effect": "allow", "kind": "disk", "selector": "/", "operations": ["read"]}], "kind"),
        (
            "templates",
            "scope",
            [{"effect": "allow", "kind": "file", "selector": "/", "operations": ["run"]}],
            "read, wri",
        ),
        (
            "templates",
            "scope",
            [{"effect": "allow", "kind": "file", "selector": "/a\nb", "operations": ["read"]}],
            "line",
        ),
        ("templates", "name", "agent-editor-limited", "stands twice"),
        ("bindings", "name", "agent-editor-limited:Finance:low-trust", "does not match"),
        ("bindings", "name", "agent-editor-limited:finance:some-trust", "does not match"),
        ("bindings", "name", "agent-other:finance:low-trust", "no template agent-other"),
        ("bindings", "name", "agent-editor-limited:finance:high-trust", "at most medium"),
        ("bindings", "duration_s", 99999, "at most 14400"),
    ],
)
def test_a_role_that_is_not_exactly_right_is_refused(where: str, name: str, value: Any, complaint: str) -> None:
    roles = copy.deepcopy(SHIPPED)
    if value is None:
        del roles[where][0][name]
    else:
        roles[where][0][name] = value
    with pytest.raises(UsageError, match=complaint):
        parse_roles(roles)


def test_a_binding_cannot_drop_the_approval_of_its_template() -> None:
    roles = copy.deepcopy(SHIPPED)
    roles["bindings"][0] |= {"name": "agent-secrets-proxy:ci:low-trust", "duration_s": 60}
    with pytest.raises(UsageError, match="always requires approval"):
        parse_roles(roles)
