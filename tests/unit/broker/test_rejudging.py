"""After a change of policy, what is now denied is taken back, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from supervisor.broker.rejudging import rejudge
from supervisor.broker.transition import State
from supervisor.policy.decision import Effect, Reason
from tests.broker_house import ALLOW, DENY, OWNER_ASKED, escalate, house, read


def test_a_grant_that_the_new_policy_denies_ends_on_record_and_a_question_more_ends_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with house(tmp_path, ALLOW) as here:
            first, second = [await here.ask(read(f"/home/o/{name}")) for name in ("a", "b")]
            here.law.decision = escalate(OWNER_ASKED)
            assert (await rejudge(here.broker, "policy changed")).revoked == 0
            assert [first.state, second.state] == [State.ACTIVE] * 2
            here.law.decision = DENY
            done = await rejudge(here.broker, "policy changed")
            assert (done.judged, done.revoked) == (2, 2)
            assert [first.state, second.state] == [State.REVOKED] * 2
            assert here.sandbox.shown == {}
            story = await here.broker.history(first.id, first.party.owner_uid)
            assert story[-1]["body"]["why"] == "policy changed: policy says no"

    asyncio.run(body())


def test_how_often_was_asked_does_not_count_against_what_is_held(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        async with house(tmp_path, ALLOW) as here:
            for number in range(5):
                await here.ask(read(f"/home/o/{number}"))
            here.law.asked.clear()
            await rejudge(here.broker, "policy changed")
            assert {(one.asked, one.denied) for _request, one in here.law.asked} == {(0, 0)}

    asyncio.run(body())


def test_a_policy_that_gives_no_answer_twice_keeps_nothing_in_force(tmp_path: Path) -> None:
    async def body() -> None:
        async with house(tmp_path, ALLOW) as here:
            ticket = await here.ask()
            here.law.decision = replace(DENY, effect=Effect.DENY, reasons=(Reason("engine:error", "it is late"),))
            here.law.asked.clear()
            assert (await rejudge(here.broker, "policy changed")).revoked == 1
            assert len(here.law.asked) == 2
            assert ticket.state is State.REVOKED

    asyncio.run(body())


def test_decisions_are_read_in_pieces_of_one_owner_only(tmp_path: Path) -> None:
    async def body() -> None:
        async with house(tmp_path, ALLOW) as here:
            tickets = [await here.ask(read(f"/home/o/{number}")) for number in range(53)]
            pages = [page async for page in here.broker.decisions(tickets[0].party.owner_uid, 0)]
            assert [len(page) for page in pages] == [50, 3]
            assert [entry["subject"] for page in pages for entry in page] == [ticket.id for ticket in tickets]
            assert [page async for page in here.broker.decisions(4711, 0)] == []

    asyncio.run(body())
