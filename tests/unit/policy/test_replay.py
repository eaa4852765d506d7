"""What was recorded is decided again from its exact document; only what really differs is told."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

from supervisor import strict_json
from supervisor.policy.bundle_source import default_directory, read_bundle
from supervisor.policy.decide import MAX_DOCUMENT_BYTES, decide
from supervisor.policy.decision import Decision, Effect
from supervisor.policy.expired import without_allow
from supervisor.policy.regorus_engine import RegorusEngine
from supervisor.policy.replay import Replayed, replay
from tests.unit.policy.test_decide import FACTS, REQUEST, Local, judged

BUNDLE = read_bundle(default_directory())


def entry(decision: Decision, **changes: object) -> dict[str, Any]:
    """Return a decision as the journal gives it back."""
    body = json.loads(strict_json.canonical(strict_json.plain(decision))) | changes
    return {"kind": "decision", "at_ns": "5", "session": "s", "subject": REQUEST.id, "body": body}


def replayed(item: dict[str, Any], engine: RegorusEngine | None = None) -> Replayed:
    (found,) = replay([item], (engine or Local().engine).evaluate)
    return found


def stricter() -> RegorusEngine:
    data = {**BUNDLE.document, "config": {**BUNDLE.document["config"], "low_risk_kinds": []}}
    return RegorusEngine(BUNDLE.modules, data)


def test_the_decision_carries_the_document_whose_digest_it_names() -> None:
    decision = judged()
    assert strict_json.digest_of(decision.document.encode()) == decision.input_digest
    assert json.loads(decision.document)["request"]["selector"] == REQUEST.resource.selector


def test_the_same_policy_changes_nothing() -> None:
    for request in (REQUEST, replace(REQUEST, duration_s=5)):
        done = replayed(entry(judged(request)))
        assert not done.changed
        assert done.old == done.new != ""


def test_another_policy_shows_both_answers() -> None:
    done = replayed(entry(judged()), stricter())
    assert done.changed
    assert done.old.startswith("allow low-risk")
    assert done.new.startswith("escalate")


def test_a_document_that_was_changed_or_not_kept_is_left_out_by_name() -> None:
    decision = judged()
    assert replayed(entry(decision, document="")).problem == "its document was not kept"
    assert replayed(entry(decision, document=decision.document.replace("public", "secret") + " ")).problem
    assert not replayed(entry(decision, document="")).changed


def test_what_the_service_answered_by_itself_is_no_answer_of_a_policy() -> None:
    expired = without_allow(judged(), user_owned=True)
    assert "not the policy" in replayed(entry(expired)).problem


def test_an_expired_policy_asks_the_owner_denies_a_service_and_leaves_a_denial_as_it_is() -> None:
    allowed = judged()
    asked = without_allow(allowed, user_owned=True)
    assert asked.effect is Effect.ESCALATE
    assert asked.quorum is not None
    assert asked.obligations is not None
    assert not asked.obligations.always
    refused = without_allow(allowed, user_owned=False)
    assert (refused.effect, refused.obligations) == (Effect.DENY, None)
    assert without_allow(refused, user_owned=True) == refused


def test_attack_a_document_without_bound_is_denied_before_the_engine_reads_it() -> None:
    class Never:
        revision = "r"

        async def evaluate(self, document: bytes) -> bytes:
            raise AssertionError(len(document))

    resource = replace(REQUEST.resource, classes=("x" * MAX_DOCUMENT_BYTES,))
    decision = asyncio.run(decide(replace(REQUEST, resource=resource), FACTS, Never()))
    assert decision.effect is Effect.DENY
    assert decision.reasons[0].code == "engine:input"
    assert decision.document == ""
