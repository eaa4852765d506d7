"""A standing answer holds until its review, and longer only by its owner's word with a reason."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from supervisor import clock
from supervisor.broker import journal, rulebook
from supervisor.broker.rule import LASTS_NS
from supervisor.broker.rulebook import Rulebook
from supervisor.broker.store import Store
from supervisor.broker.vote import Answer
from supervisor.errors import UsageError
from tests.broker_house import OWNER, OWNER_ASKED, capability, escalate, house, party, vote

DAY_NS = 86400 * 10**9


def test_a_renewed_answer_holds_ninety_days_from_then_and_one_past_its_review_no_day_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with house(tmp_path, escalate(OWNER_ASKED, always=True)) as here:
            ticket = await here.ask()
            made = rulebook.rule_of(party(), capability(), vote(ticket, "uid:1000", Answer.ALWAYS))
            assert made is not None
        store = Store(str(tmp_path / "rules.db"))
        try:
            await store.commit(lambda db: rulebook.write(db, made))
            rules = Rulebook(store)
            await rules.read()
            start = clock.now_ns()
            at = {"now": start + 80 * DAY_NS}
            monkeypatch.setattr(rulebook, "now_ns", lambda: at["now"])
            for owner, reason in ((OWNER, " "), (OWNER + 1, "needed")):
                with pytest.raises(UsageError):
                    await rules.renew(owner, made.id, reason)
            assert rules.answer(party(), capability()) == "always"
            renewed = await rules.renew(OWNER, made.id, "the report is due each quarter")
            assert renewed.expires_ns == at["now"] + LASTS_NS
            at["now"] = start + 91 * DAY_NS
            assert rules.answer(party(), capability()) == "always"
            at["now"] = renewed.expires_ns
            assert rules.answer(party(), capability()) == "none"
            again = Rulebook(store)
            await again.read()
            assert again.of_owner(OWNER) == [renewed]
            kinds = await store.commit(lambda db: [entry["kind"] for entry in journal.read(db, made.id)])
            assert kinds == ["rule", "recert"]
        finally:
            store.close()

    asyncio.run(body())
