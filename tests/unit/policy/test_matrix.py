"""The shipped bundle decides what its matrix says, and the matrix would notice each rule that is taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from supervisor.errors import UsageError
from supervisor.policy.bundle_source import MATRIX_FILE, Bundle, default_directory, read_bundle
from supervisor.policy.matrix import Scenario, read_matrix, run_matrix
from supervisor.policy.regorus_engine import RegorusEngine, syntax_trees

SMALL = "manifests: {a: {}}\ncontexts: {c: {%s}}\nexpect: {c: {a: %s}}\n"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(default_directory())


@pytest.fixture(scope="module")
def scenarios() -> tuple[Scenario, ...]:
    path = default_directory() / MATRIX_FILE
    return read_matrix(path.read_bytes(), str(path))


def problems(bundle: Bundle, modules: dict[str, str], scenarios: tuple[Scenario, ...]) -> list[str]:
    engine = RegorusEngine(modules, bundle.document)
    return [f"{done.scenario.name}: {done.problem}" for done in run_matrix(engine, scenarios) if done.problem]


def entries() -> Iterator[tuple[str, str, int, int]]:
    """Yield file, name, and place in bytes of each deny, approval and allow rule of the shipped bundle."""
    modules = read_bundle(default_directory()).modules
    for file, tree in syntax_trees(modules).items():
        for rule in tree["rules"]:
            head: Any = rule.get("Spec", {}).get("head", {}).get("Set", {})
            if head and head["refr"]["Var"]["value"] in ("deny", "approval", "allow"):
                span = rule["Spec"]["span"]
                text = modules[file].encode()[span["start"] : span["end"]].decode()
                yield file, text.split('"rule": "')[1].split('"')[0], span["start"], span["end"]


def test_the_shipped_bundle_decides_as_its_matrix_says(bundle: Bundle, scenarios: tuple[Scenario, ...]) -> None:
    assert len(scenarios) > 150
    assert problems(bundle, dict(bundle.modules), scenarios) == []


@pytest.mark.parametrize(("file", "name", "start", "end"), tuple(entries()), ids=str)
def test_the_matrix_notices_a_rule_that_is_taken_away(
    bundle: Bundle, scenarios: tuple[Scenario, ...], file: str, name: str, start: int, end: int
) -> None:
    text = bundle.modules[file].encode()
    end = text.find(b"\n\n", end) if b"\n\n" in text[end:] else len(text)  # the span may end before a quote
    without = (text[:start] + text[end:]).decode()
    assert f'"{name}"' not in without
    assert problems(bundle, {**bundle.modules, file: without}, scenarios)


def test_every_kind_of_rule_is_mutated() -> None:
    assert len(list(entries())) >= 20


def test_a_rule_in_observe_mode_says_what_it_would_have_said(bundle: Bundle) -> None:
    data = json.loads(json.dumps(bundle.document))
    data["config"]["modes"]["credential-store"] = "observe"
    text = SMALL % ("resource.classes: [credential-store]", "allow low-risk ~credential-store")
    (done,) = run_matrix(RegorusEngine(bundle.modules, data), read_matrix(text.encode(), "m.yaml"))
    assert done.problem == ""


def test_a_wrong_cell_says_what_was_decided(bundle: Bundle) -> None:
    scenarios = read_matrix((SMALL % ("rule.answer: never", "allow low-risk")).encode(), "m.yaml")
    (done,) = run_matrix(RegorusEngine(bundle.modules, bundle.document), scenarios)
    assert done.problem == "deny never, want allow low-risk"


@pytest.mark.parametrize(
    ("changes", "cell", "complaint"),
    [
        ("resource.levle: public", "allow", "no 'resource.levle'"),
        ("resource.level: secret", "allow", "resource.level"),
        ("chain.depth: many", "allow", "whole number"),
        ("rule.answer: never", "maybe", "'maybe', want one of"),
        ("owner: root", "allow", "owner"),
    ],
)
def test_a_matrix_that_cannot_be_meant_is_refused_with_its_place(changes: str, cell: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=r"m\.yaml:\d+:\d+: .*" + complaint):
        read_matrix((SMALL % (changes, cell)).encode(), "m.yaml")


def test_a_missing_cell_is_refused() -> None:
    text = "manifests: {a: {}, b: {}}\ncontexts: {c: {}}\nexpect: {c: {a: allow low-risk}}\n"
    with pytest.raises(UsageError, match="want a cell for each of a, b"):
        read_matrix(text.encode(), "m.yaml")
