"""The engine answers like OPA where it matters, and says so when it does not."""

from __future__ import annotations

import json

import pytest

from supervisor.policy import golden, regorus_engine
from supervisor.policy.regorus_engine import RegoError, RegorusEngine, is_builtin

HEAD = "package deskwarden\n\nimport rego.v1\n\n"
SMALL = {
    "a.rego": HEAD + 'default decision := {"effect": "deny"}\n\ndecision := {"effect": input.want} if input.want\n'
}


def test_the_golden_cases_hold() -> None:
    assert len(golden.VALUES) + len(golden.ERRORS) > 60
    regorus_engine._tested = False
    RegorusEngine(SMALL, {})
    assert regorus_engine._tested


@pytest.mark.parametrize(
    ("rule", "wrong"), [("r := min([900, 1200])", 1200), ("r := input.missing == 2", True), ("r := 1 == 1", 1)]
)
def test_an_engine_that_answers_otherwise_never_decides(
    monkeypatch: pytest.MonkeyPatch, rule: str, wrong: object
) -> None:
    monkeypatch.setattr(regorus_engine, "_tested", False)
    monkeypatch.setattr(golden, "VALUES", ((rule, wrong),))
    with pytest.raises(RegoError, match="the engine is wrong"):
        RegorusEngine(SMALL, {})


def test_an_engine_that_takes_an_unknown_function_for_undefined_never_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regorus_engine, "_tested", False)
    monkeypatch.setattr(golden, "ERRORS", ("r if not input.missing",))
    with pytest.raises(RegoError, match="want an error"):
        RegorusEngine(SMALL, {})


def test_each_document_is_judged_by_itself() -> None:
    engine = RegorusEngine(SMALL, {})
    for want in ("allow", "escalate", "allow"):
        assert json.loads(engine.evaluate(json.dumps({"want": want}).encode())) == {"effect": want}
    assert json.loads(engine.evaluate(b"{}")) == {"effect": "deny"}


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"[" * 300 + b"]" * 300, b'{"want": 1e400}', b'{"want": "\xff"}', b'{"want": NaN}'],
)
def test_a_document_that_is_no_json_raises(document: bytes) -> None:
    with pytest.raises(RegoError):
        RegorusEngine(SMALL, {}).evaluate(document)


@pytest.mark.parametrize(
    "rules",
    [
        "decision := {} if input.x",
        "decision := 1\n\ndecision := 2",
        "decision := 1 / 0",
        "decision := no.such(1)",
    ],
)
def test_a_policy_without_an_answer_does_not_load(rules: str) -> None:
    with pytest.raises(RegoError):
        RegorusEngine({"a.rego": HEAD + rules + "\n"}, {})


def test_an_error_shows_no_stack_and_is_bounded() -> None:
    with pytest.raises(RegoError) as caught:
        RegorusEngine({"a.rego": HEAD + "decision := " + "x" * 5000}, {})
    assert "backtrace" not in str(caught.value)
    assert len(str(caught.value)) <= regorus_engine.MAX_ERROR_CHARACTERS


def test_builtins_are_known_by_name() -> None:
    assert is_builtin("startswith")
    assert is_builtin("net.cidr_contains")
    assert not is_builtin("io.jwt.decode")
