"""A policy whose time is over still denies and asks; it gives nothing by itself any more."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from supervisor.policy.decision import Clause, Decision, Effect, Party, Quorum, Reason

RULE: Final = "policy-expired"
_REASON: Final = Reason(RULE, "the policy of this machine has expired: nothing is given without a person")
_ASK_IT: Final = "tell IT: the policy's signature has to be renewed"


def without_allow(decision: Decision, user_owned: bool) -> Decision:
    """Return *decision* as an expired policy may make it: an allow becomes a question to the owner, or a denial."""
    if decision.effect is not Effect.ALLOW:
        return decision
    changed = replace(decision, reasons=(*decision.reasons, _REASON), rules=(*decision.rules, RULE))
    if not user_owned:
        return replace(changed, effect=Effect.DENY, obligations=None, next_steps=(_ASK_IT,))
    quorum = Quorum((Clause("owner", (Party("owner"),)),))
    duties = replace(decision.obligations, always=False) if decision.obligations else None
    return replace(changed, effect=Effect.ESCALATE, quorum=quorum, obligations=duties, next_steps=("wait", _ASK_IT))
