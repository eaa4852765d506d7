"""The scenario matrix of a bundle: manifests × contexts → what is to be decided. Every cell is said; none is left out.

::

    manifests:                                # or any agents: what is the same in a column
      viewer: {agent.manifest.level_max: confidential}
    contexts:
      report: {resource.level: confidential}
    expect:
      report: {viewer: escalate owner confidential-data}

A cell is an effect and names, all of them in any order: the rules that made it, the clauses of an ``escalate``, and
``~code`` for what a rule in observe mode would have said. What a scenario does not say is as in `BASE`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supervisor.errors import UsageError
from supervisor.policy.decide import read_decision
from supervisor.policy.decision import Decision, Effect
from supervisor.policy.document import encode, input_check
from supervisor.policy.regorus_engine import RegoError, RegorusEngine
from supervisor.strict_yaml import Document, read_yaml

NEXT: Final = "see the matrix of the bundle that comes with deskwarden: deskwarden policy check"

# Everyday work: a user's own agent reads an ordinary file that its manifest declares.
BASE: Final[Mapping[str, Any]] = {
    "schema": 1,
    "now": 1_800_000_000,
    "request": {
        "id": "scenario",
        "kind": "file",
        "selector": "/home/ann/project/notes.txt",
        "operations": ["read"],
        "duration_s": 1200,
        "uses": 0,
        "launch": False,
    },
    "resource": {"level": "internal", "classes": [], "complete": True, "files": 1, "bytes": 1000},
    "agent": {
        "id": "spiffe://local/agent/user-owned/helper",
        "class": "user-owned",
        "manifest": {
            "digest": "sha256:0",
            "signed_by": ["publisher", "owner"],
            "covers": True,
            "capability": "files",
            "level_max": "restricted",
            "duration_max_s": 3600,
        },
    },
    "role": {
        "name": "agent-editor-limited",
        "binding": "agent-editor-limited:personal:medium-trust",
        "trust_level": "medium",
        "covers": True,
        "effect": "allow",
        "duration_s": 14400,
        "requires_approval": False,
    },
    "owner": {"uid": 1000, "name": "ann", "consented": True},
    "rule": {"answer": "none"},
    "posture": {"state": "pass", "revision": "1"},
    "history": {"asked": 0, "denied": 0},
    "chain": {"depth": 0, "max_depth": 2, "parent_covers": True},
    "ceiling": {"asking": True, "always": True},
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One cell: its names, the document, and what is expected (effect, sorted names)."""

    name: str
    document: Mapping[str, Any]
    effect: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a bundle decided on a scenario, and what was wrong with that: empty when nothing."""

    scenario: Scenario
    seen: str
    problem: str


def read_matrix(data: bytes, path: str) -> tuple[Scenario, ...]:
    """Parse a matrix and make every scenario of it.

    Raises:
        UsageError: With line and column: a name that is not known, a value of a wrong type, a missing cell.
    """
    document = read_yaml(data, path, NEXT)
    tables = _tables(document)
    scenarios = []
    for context, changes in tables["contexts"].items():
        row = tables["expect"].get(context)
        if not isinstance(row, dict) or row.keys() != tables["manifests"].keys():
            raise document.error(("expect", context), f"want a cell for each of {', '.join(tables['manifests'])}")
        for manifest, base in tables["manifests"].items():
            value: dict[str, Any] = copy.deepcopy(dict(BASE))
            for part, where in ((base, ("manifests", manifest)), (changes, ("contexts", context))):
                _change(value, part, document, where)
            effect, *names = str(row[manifest]).split() or [""]
            if effect not in list(Effect):
                raise document.error(("expect", context, manifest), f"{effect!r}, want one of {', '.join(Effect)}")
            scenarios.append(Scenario(f"{context} × {manifest}", value, effect, tuple(sorted(names))))
    return tuple(scenarios)


def run_matrix(engine: RegorusEngine, scenarios: tuple[Scenario, ...]) -> Iterator[Outcome]:
    """Decide every scenario, strictly, as the daemon would."""
    for scenario in scenarios:
        try:
            decision = read_decision(engine.evaluate(encode(dict(scenario.document))), "")
        except (RegoError, UsageError, ValueError) as error:
            yield Outcome(scenario, "deny engine:error", str(error))
            continue
        effect, names = summary(decision)
        seen = " ".join((effect, *names))
        wanted = " ".join((scenario.effect, *scenario.names))
        yield Outcome(scenario, seen, "" if seen == wanted else f"{seen}, want {wanted}")


def summary(decision: Decision) -> tuple[str, tuple[str, ...]]:
    """Return the effect, and the names that a cell holds."""
    names = {*decision.rules, *(f"~{reason.code}" for reason in decision.observed)}
    if decision.quorum is not None:
        names |= {clause.id for clause in decision.quorum.clauses}
    return decision.effect, tuple(sorted(names))


def _tables(document: Document) -> dict[str, dict[str, Any]]:
    value = document.value
    if not isinstance(value, dict) or value.keys() != {"manifests", "contexts", "expect"}:
        raise document.error((), "want manifests, contexts and expect")
    for name, table in value.items():
        if not isinstance(table, dict) or not table:
            raise document.error((name,), "want a table")
    if unknown := value["expect"].keys() - value["contexts"].keys():
        raise document.error(("expect", min(unknown)), f"no context {min(unknown)!r}")
    return value


def _change(value: dict[str, Any], changes: Any, document: Document, where: tuple[str, str]) -> None:
    """Set what *changes* names, such as ``resource.level``, and check the whole."""
    for path, new in (changes or {}).items():
        *above, last = str(path).split(".")
        inner: Any = value
        for name in above:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last not in inner:
            raise document.error((*where, path), f"the input has no {path!r}")
        inner[last] = new
    try:
        input_check()(json.loads(encode(value)))
    except (ValueError, TypeError) as error:
        raise document.error(where, str(error)) from error
