"""The one decision: a request and what is known about it in, a `Decision` out. Pure but for the engine.

Whatever is not a well-formed yes is a no: an engine that is late, dead or raises, an answer with a key too many, a
quorum of nobody, no time at all. Its reason is then ``engine:…``, and the text says what happened.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from supervisor import strict_json
from supervisor.errors import UsageError
from supervisor.policy.capability import Assurance
from supervisor.policy.decision import Clause, Decision, Effect, Obligations, Party, Quorum, Reason
from supervisor.policy.document import document_of, encode, input_check, result_checks
from supervisor.policy.engine import Engine, EngineError
from supervisor.policy.facts import Facts
from supervisor.policy.request import CapabilityRequest

MAX_RESULT_BYTES: Final = 64 << 10
# It is kept with every decision; what the schema lets through stays far below.
MAX_DOCUMENT_BYTES: Final = 64 << 10
_TELL: Final = "this is a fault of the service, not of what you asked: tell the owner, or ask again later"


async def decide(request: CapabilityRequest, facts: Facts, engine: Engine) -> Decision:
    """Return what policy says about *request*; never raises for what the engine does."""
    document = document_of(request, facts)
    raw = encode(document)
    digest = strict_json.digest_of(raw)
    if len(raw) > MAX_DOCUMENT_BYTES:
        text = f"the request cannot be judged: {len(raw)} bytes, at most {MAX_DOCUMENT_BYTES} are decided on"
        return _denied("engine:input", text, engine.revision, digest)
    decision = await _answer(request, facts, engine, document, raw)
    return replace(decision, input_digest=digest, document=raw.decode())


async def _answer(
    request: CapabilityRequest, facts: Facts, engine: Engine, document: dict[str, Any], raw: bytes
) -> Decision:
    try:
        input_check()(document)
    except ValueError as error:
        return _denied("engine:input", f"the request cannot be judged: {error}", engine.revision)
    try:
        answer = await engine.evaluate(raw)
    except EngineError as error:
        return _denied("engine:error", error.message, engine.revision)
    except Exception as error:  # noqa: BLE001 - an engine that fails in a way nobody thought of has not said yes
        return _denied("engine:error", f"{type(error).__name__}: {error}", engine.revision)
    try:
        decision = read_decision(answer)
        return _checked(decision, request, facts)
    except (ValueError, UsageError) as error:
        return _denied("engine:result", f"the policy's answer is not one: {error}", engine.revision)


def read_decision(answer: bytes, input_digest: str = "") -> Decision:
    """Turn the engine's answer into a value, strictly.

    Raises:
        UsageError: No JSON, or with a key twice, a fraction, too large.
        ValueError: It differs from result.schema.json.
    """
    value = strict_json.parse(answer, MAX_RESULT_BYTES, "decision")
    effect = value.get("effect") if isinstance(value, dict) else None
    check = result_checks().get(effect) if isinstance(effect, str) else None
    if check is None:
        raise ValueError("no object with an effect: allow, deny or escalate")
    check(value)
    return Decision(
        effect=Effect(value["effect"]),
        risk=value["risk"],
        reasons=_reasons(value["reasons"]),
        next_steps=tuple(value["next_steps"]),
        obligations=Obligations(**value["obligations"]) if "obligations" in value else None,
        quorum=_quorum(value["quorum"]) if "quorum" in value else None,
        rules=tuple(value["rules"]),
        observed=_reasons(value["observed"]),
        policy_revision=value["policy_rev"],
        input_digest=input_digest,
    )


def _checked(decision: Decision, request: CapabilityRequest, facts: Facts) -> Decision:
    """Hold the answer to what no policy may change: the time that was asked for and that the manifest allows.

    Raises:
        ValueError: It gives no time; or its quorum has a clause twice.
    """
    if decision.quorum is not None:
        ids = [clause.id for clause in decision.quorum.clauses]
        if len(set(ids)) != len(ids):
            raise ValueError("a clause of the quorum stands twice")
    given = decision.obligations
    if given is None:
        return decision
    ttl_s = min(given.ttl_s, request.duration_s, facts.manifest.duration_max_s)
    if ttl_s <= 0:
        raise ValueError(f"a duration of {ttl_s} s")
    uses = min(given.max_uses or request.uses, request.uses) if request.uses else given.max_uses
    return replace(decision, obligations=replace(given, ttl_s=ttl_s, max_uses=uses))


def _denied(code: str, text: str, revision: str, digest: str = "") -> Decision:
    reason = Reason(code, text[:500])
    return Decision(Effect.DENY, "critical", (reason,), (_TELL,), None, None, (), (), revision, digest)


def _reasons(values: list[dict[str, str]]) -> tuple[Reason, ...]:
    return tuple(Reason(value["code"], value["text"]) for value in values)


def _quorum(value: dict[str, Any]) -> Quorum:
    clauses = tuple(
        Clause(clause["id"], tuple(Party(party["team"], party["role"]) for party in clause["any_of"]), clause["least"])
        for clause in value["clauses"]
    )
    return Quorum(clauses, value["distinct_teams"], Assurance(value["min_assurance"]), tuple(value["excluded"]))
