"""Requests, votes and grants against a real store: what is asked, shown, approved and given is one thing."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.broker import journal
from supervisor.broker.people import Directory
from supervisor.broker.transition import State
from supervisor.broker.vote import Answer, Narrowing
from supervisor.clock import boottime_ns
from supervisor.errors import ConflictError, DeskwardenError, RefusedError, UsageError
from supervisor.policy.capability import Assurance, Level
from supervisor.policy.decision import Decision
from tests.broker_house import (
    ALLOW,
    DENY,
    OWNER,
    OWNER_ASKED,
    TWO_TEAMS,
    House,
    escalate,
    house,
    party,
    read,
    until,
    vote,
)

Story = Callable[[House], Awaitable[None]]


def play(path: Path, story: Story, decision: Decision = ALLOW, pending_s: float = 5.0) -> None:
    async def run() -> None:
        async with house(path, decision, pending_s) as the_house:
            await story(the_house)

    asyncio.run(run())


def kinds(path: Path) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(path / "broker.db")) as db:
        assert journal.verify(db) > 0
        return [(row["kind"], row["body"].get("state", "")) for row in journal.read(db)]


def test_what_policy_allows_is_granted_and_recorded_before_and_after(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        assert ticket.state is State.ACTIVE
        assert ticket.details == {"path": "/home/o/a.txt"}
        assert [grant.session for grant in it.sandbox.shown.values()] == ["s1"]

    play(tmp_path, story)
    assert kinds(tmp_path) == [("request", ""), ("decision", ""), ("grant", ""), ("effect", "active")]


def test_what_policy_denies_says_why_and_what_to_do(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        assert ticket.state is State.DENIED
        assert [reason.code for reason in ticket.reasons] == ["no"]
        assert ticket.next_steps == ("ask IT",)
        assert not it.sandbox.shown

    play(tmp_path, story, DENY)
    assert kinds(tmp_path) == [("request", ""), ("decision", "")]


def test_what_does_not_exist_is_denied_and_the_question_kept(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        it.disk.missing = True
        ticket = await it.ask()
        assert ticket.state is State.DENIED
        assert "no such file" in ticket.reasons[0].text

    play(tmp_path, story)
    assert kinds(tmp_path) == [("request", "")]


def test_two_parties_of_two_teams_are_heard_and_neither_is_enough(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        await it.broker.vote(vote(ticket, "ann"))
        assert [clause.id for clause in ticket.waits_for] == ["sec"]
        assert not it.sandbox.shown
        await it.broker.vote(vote(ticket, "bea"))
        assert ticket.state is State.ACTIVE
        assert ticket.grant is not None
        assert len(ticket.grant.approvals) == 2

    play(tmp_path, story, escalate(TWO_TEAMS))


def test_one_person_in_both_teams_is_one_vote(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        await it.broker.vote(vote(ticket, "cas"))
        assert ticket.state is State.WAITING
        with pytest.raises(ConflictError, match="already voted"):
            await it.broker.vote(vote(ticket, "cas"))

    play(tmp_path, story, escalate(TWO_TEAMS))


def test_the_owner_cannot_approve_what_needs_others_but_can_always_say_no(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        with pytest.raises(RefusedError, match="may not answer"):
            await it.broker.vote(vote(ticket, f"uid:{OWNER}"))
        await it.broker.vote(vote(ticket, f"uid:{OWNER}", Answer.DENY, justification="not today"))
        assert ticket.state is State.REJECTED
        assert ticket.reasons[0].text == "not today"

    play(tmp_path, story, escalate(TWO_TEAMS))


@pytest.mark.parametrize("field", ["request_digest", "shown_digest"])
def test_a_vote_on_something_else_than_was_asked_or_shown_does_not_count(tmp_path: Path, field: str) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        with pytest.raises(RefusedError, match="not what was shown"):
            await it.broker.vote(replace(vote(ticket, f"uid:{OWNER}"), **{field: "sha256:" + "0" * 64}))  # type: ignore[arg-type]
        assert ticket.state is State.WAITING

    play(tmp_path, story, escalate(OWNER_ASKED))


def test_a_file_that_changed_between_question_and_answer_voids_the_answers(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        it.disk.inode = 2
        await it.broker.vote(vote(ticket, f"uid:{OWNER}"))
        assert ticket.state is State.SUPERSEDED
        assert not it.sandbox.shown

    play(tmp_path, story, escalate(OWNER_ASKED))


def test_a_label_raised_meanwhile_voids_the_answers(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        it.disk.level = Level.RESTRICTED
        await it.broker.vote(vote(ticket, f"uid:{OWNER}"))
        assert ticket.state is State.SUPERSEDED

    play(tmp_path, story, escalate(OWNER_ASKED))


def test_a_stricter_policy_meanwhile_is_asked_again_at_issue(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        it.law.decision = DENY
        await it.broker.vote(vote(ticket, f"uid:{OWNER}"))
        assert ticket.state is State.SUPERSEDED
        assert ticket.reasons[0].text == "policy says no"

    play(tmp_path, story, escalate(OWNER_ASKED))


def test_an_approver_removed_between_vote_and_issue_counts_no_more(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        await it.broker.vote(vote(ticket, "ann"))
        it.broker.directory = Directory(tuple(one for one in it.broker.directory.people if one.human != "ann"))
        await it.broker.vote(vote(ticket, "bea"))
        assert ticket.state is State.WAITING
        assert [clause.id for clause in ticket.waits_for] == ["data-owner"]

    play(tmp_path, story, escalate(TWO_TEAMS))


def test_an_approver_past_review_may_not_answer(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        overdue = tuple(replace(one, review_by="2020-01-01") for one in it.broker.directory.people)
        it.broker.directory = Directory(overdue)
        with pytest.raises(RefusedError, match="may not answer"):
            await it.broker.vote(vote(ticket, "ann"))

    play(tmp_path, story, escalate(TWO_TEAMS))


def test_a_vote_with_less_assurance_than_the_risk_wants_is_refused(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        with pytest.raises(RefusedError, match="assurance A2"):
            await it.broker.vote(vote(ticket, f"uid:{OWNER}", assurance=Assurance.A0))

    play(tmp_path, story, escalate(replace(OWNER_ASKED, min_assurance=Assurance.A2)))


def test_fifty_votes_at_once_make_exactly_one_grant(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        votes = [it.broker.vote(vote(ticket, f"uid:{OWNER}")) for _ in range(50)]
        results = await asyncio.gather(*votes, return_exceptions=True)
        assert sum(isinstance(one, ConflictError) for one in results) == 49
        assert len(it.sandbox.shown) == 1

    play(tmp_path, story, escalate(OWNER_ASKED))


def test_a_yes_may_narrow_and_the_narrowest_holds(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask(read("/home/o/a.txt", operations=("read", "write")))
        await it.broker.vote(vote(ticket, "ann", narrowing=Narrowing(duration_s=300)))
        await it.broker.vote(vote(ticket, "bea", narrowing=Narrowing(read_only=True, duration_s=400)))
        assert ticket.grant is not None
        assert ticket.grant.capability.operations == ("read",)
        assert (ticket.grant.expires_ns - ticket.grant.issued_ns) == 300 * 10**9

    play(tmp_path, story, escalate(TWO_TEAMS))


def test_nobody_gets_longer_than_policy_says_whatever_the_digits_sort_like(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask(read("/home/o/a.txt", duration_s=1200))
        assert ticket.grant is not None
        assert (ticket.grant.expires_ns - ticket.grant.issued_ns) == 900 * 10**9

    play(tmp_path, story, replace(ALLOW, obligations=replace(ALLOW.obligations, ttl_s=900)))  # type: ignore[type-var]


def test_silence_is_a_no(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        assert [status.state async for status in ticket.watch()][-1] is State.LAPSED
        with pytest.raises(ConflictError):
            await it.broker.vote(vote(ticket, f"uid:{OWNER}"))

    play(tmp_path, story, escalate(OWNER_ASKED), pending_s=0.05)


def test_always_answers_the_next_question_and_can_be_taken_back(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        await it.broker.vote(vote(ticket, f"uid:{OWNER}", Answer.ALWAYS))
        await it.broker.close_session("s1")
        it.broker.open_session(party("s2"))
        assert (await it.ask(session="s2")).state is State.ACTIVE
        (rule,) = it.broker.rules.of_owner(OWNER)
        assert rule.sentence() == "acme may always read /home/o/a.txt in /home/o/w"
        await it.broker.rules.remove(OWNER, rule.id)
        await it.broker.close_session("s2")
        it.broker.open_session(party("s3"))
        assert (await it.ask(session="s3")).state is State.WAITING

    play(tmp_path, story, escalate(OWNER_ASKED, always=True))


def test_a_session_answer_ends_with_its_session(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        await it.broker.vote(vote(ticket, f"uid:{OWNER}", Answer.SESSION))
        assert ticket.grant is not None
        await it.broker.release("s1", ticket.grant.id)
        assert (await it.ask()).state is State.ACTIVE
        await it.broker.close_session("s1")
        assert it.broker.rules.of_owner(OWNER) == []

    play(tmp_path, story, escalate(OWNER_ASKED, always=True))


def test_always_is_refused_for_confidential_data(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        it.disk.level = Level.CONFIDENTIAL
        ticket = await it.ask()
        with pytest.raises(RefusedError, match="always: not for data that is confidential"):
            await it.broker.vote(vote(ticket, f"uid:{OWNER}", Answer.ALWAYS))

    play(tmp_path, story, escalate(OWNER_ASKED, always=True))


def test_never_is_kept_across_a_restart(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        await it.broker.vote(vote(ticket, f"uid:{OWNER}", Answer.NEVER))

    async def after(it: House) -> None:
        assert (await it.ask()).state is State.DENIED

    play(tmp_path, story, escalate(OWNER_ASKED))
    play(tmp_path, after, escalate(OWNER_ASKED))


def test_the_same_question_twice_is_one_and_a_refused_one_waits(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        assert it.broker.ask("s1", replace(ticket.ask, reason="please")) is ticket
        await it.broker.vote(vote(ticket, f"uid:{OWNER}", Answer.DENY))
        again = await it.ask()
        assert again.state is State.DENIED
        assert "asking again is open in" in again.reasons[0].text

    play(tmp_path, story, escalate(OWNER_ASKED))


def test_a_flood_is_cut_and_people_see_a_bounded_number(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        heard = []
        for number in range(10_000):
            with contextlib.suppress(RefusedError):
                heard.append(it.broker.ask("s1", read(f"/home/o/{number}")))
        assert len(heard) == 16
        for ticket in heard:
            await it.settled(ticket)
        assert len(it.broker.waiting(it.broker.directory.of_uid(OWNER))) == 16

    play(tmp_path, story, escalate(OWNER_ASKED))


def test_people_see_what_is_theirs_and_nothing_else(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        people = it.broker.directory
        assert it.broker.waiting(people.of_uid(OWNER)) == [ticket]
        assert it.broker.waiting(people.of_uid(2002)) == [ticket]
        assert it.broker.waiting(people.of_uid(4711)) == []
        with pytest.raises(UsageError, match="no request"):
            it.broker.find(people.of_uid(4711), ticket.id)

    play(tmp_path, story, escalate(TWO_TEAMS))


def test_a_session_reaches_no_request_or_grant_of_another(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        it.broker.open_session(party("s2"))
        assert ticket.grant is not None
        with pytest.raises(UsageError):
            await it.broker.release("s2", ticket.grant.id)
        with pytest.raises(UsageError):
            await it.broker.cancel("s2", ticket.id)
        assert ticket.state is State.ACTIVE

    play(tmp_path, story)


def test_time_runs_out_to_the_second(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask(read("/home/o/a.txt", duration_s=1))
        assert ticket.grant is not None
        await until(ticket, State.EXPIRED)
        assert 0 <= boottime_ns() - ticket.grant.deadline_ns < 10**9
        assert not it.sandbox.shown

    play(tmp_path, story)


def test_what_cannot_be_taken_back_costs_the_session(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        ticket = await it.ask()
        it.sandbox.sticks = True
        await it.broker.revoke(lambda one: one is ticket, "the owner said so")
        assert it.killed == ["s1"]
        assert ticket.state is State.REVOKED

    play(tmp_path, story)
    assert kinds(tmp_path)[-1] == ("effect", "revoked")


def test_what_cannot_be_shown_is_a_failure_that_leaves_nothing(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        it.sandbox.refuses = DeskwardenError("the mount failed", "deskwarden doctor")
        ticket = await it.ask()
        assert ticket.state is State.FAILED
        assert ticket.reasons[0].text == "the mount failed"
        assert it.broker.grants.in_force() == []

    play(tmp_path, story)


def test_the_end_of_a_session_ends_what_it_asked_and_had(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        held = await it.ask()
        it.law.decision = escalate(OWNER_ASKED)
        waiting = await it.ask(read("/home/o/b.txt"))
        await it.broker.close_session("s1")
        assert (held.state, waiting.state) == (State.COMPLETED, State.WITHDRAWN)
        with pytest.raises(RefusedError, match="no running session"):
            it.broker.ask("s1", read("/home/o/a.txt"))

    play(tmp_path, story)


def test_a_daemon_that_died_leaves_nothing_open_and_nothing_in_force(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        await it.ask()
        it.law.decision = escalate(OWNER_ASKED)
        await it.ask(read("/home/o/b.txt"))

    async def after(it: House) -> None:
        assert it.broker.grants.in_force() == []

    play(tmp_path, story)
    play(tmp_path, after)
    with contextlib.closing(sqlite3.connect(tmp_path / "broker.db")) as db:
        assert {row[0] for row in db.execute("SELECT state FROM request")} == {"revoked", "lapsed"}


def test_a_child_is_told_whether_its_parent_has_it_too(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        it.broker.open_session(party("kid", parent="s1", chain=("s1",)))
        await it.ask(session="kid")
        await it.ask()
        await it.ask(read("/home/o/a.txt", duration_s=60), session="kid")
        assert [circumstances.parent_covers for _request, circumstances in it.law.asked] == [False, True, True]

    play(tmp_path, story)


def test_without_a_record_nothing_is_granted(tmp_path: Path) -> None:
    async def story(it: House) -> None:
        await it.broker._store.commit(lambda db: db.execute("DROP TABLE journal"))
        ticket = await it.ask()
        assert ticket.state is State.DENIED
        assert not it.sandbox.shown

    play(tmp_path, story)
