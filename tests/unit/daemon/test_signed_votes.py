"""A signed vote counts for its key's holder, for the one request it names, once and soon; and for nobody else."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.broker import card, journal
from supervisor.broker.people import Directory, Person
from supervisor.broker.statement import Statement, parse_statement
from supervisor.broker.ticket import Ticket
from supervisor.broker.transition import State
from supervisor.broker.vote import PAYLOAD_TYPE, Answer, Narrowing
from supervisor.clock import now_ns
from supervisor.daemon.approvers import Approvers
from supervisor.daemon.signed_votes import MAX_AGE_S, MAX_AHEAD_S, vote_from
from supervisor.errors import ConflictError, DeskwardenError, RefusedError, UsageError
from supervisor.identity.dsse import Envelope, add_signature, envelope_bytes, parse_envelope, verify
from supervisor.identity.keys import Algorithm, SigningKey, new_key
from supervisor.policy.capability import Assurance
from supervisor.policy.decision import Quorum
from tests.broker_house import OWNER, OWNER_ASKED, TWO_TEAMS, House, escalate, house, read

ANN, BEA, OWN, STRANGER = new_key(), new_key(Algorithm.P256), new_key(), new_key()


def people(review_by: str = "2099-01-01") -> Approvers:
    directory = Directory(
        (
            Person("ann", {"finance": "lead"}, (2001,), (ANN.public.keyid,), review_by),
            Person("bea", {"security": ""}, (2003,), (BEA.public.keyid,), review_by),
            Person("olaf", {"finance": "lead"}, (OWNER,), (OWN.public.keyid,), review_by),
        )
    )
    return Approvers(directory, {key.public.keyid: key.public for key in (ANN, BEA, OWN)})


@dataclass
class Desk:
    """A broker with one waiting request, and approvers with keys."""

    house: House
    ticket: Ticket
    approvers: Approvers

    def statement(self, **changes: Any) -> Statement:
        request, decision = self.ticket.request, self.ticket.decision
        assert request is not None
        assert decision is not None
        shown = card.render(request, decision).shown_digest
        at_s = now_ns() // 10**9
        made = Statement(self.ticket.id, request.digest, shown, Answer.ONCE, Narrowing(), "fine", at_s)
        return replace(made, **changes)

    def message(self, key: SigningKey, payload_type: str = PAYLOAD_TYPE, **changes: Any) -> dict[str, Any]:
        envelope = Envelope(payload_type, self.statement(**changes).to_bytes())
        return {"envelope": envelope_bytes(add_signature(envelope, key)).decode()}

    async def carry(self, message: dict[str, Any]) -> Ticket:
        vote = vote_from(message, self.approvers, self.house.broker, now_ns())
        return await self.house.broker.vote(vote)


def at_desk(
    path: Path,
    scene: Callable[[Desk], Coroutine[Any, Any, None]],
    quorum: Quorum = TWO_TEAMS,
    review_by: str = "2099-01-01",
) -> None:
    async def play() -> None:
        async with house(path, escalate(quorum)) as opened:
            approvers = people(review_by)
            opened.broker.directory = approvers.directory
            await scene(Desk(opened, await opened.ask(), approvers))

    asyncio.run(play())


def tampered(message: dict[str, Any], **changes: Any) -> dict[str, Any]:
    envelope = json.loads(message["envelope"])
    payload = json.loads(base64.b64decode(envelope["payload"])) | changes
    envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    return {"envelope": json.dumps(envelope)}


def test_two_signed_votes_of_two_teams_grant(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        await desk.carry(desk.message(ANN))
        assert desk.ticket.state is State.WAITING
        await desk.carry(desk.message(BEA))
        assert desk.ticket.state is State.ACTIVE
        assert [(vote.human, vote.assurance, vote.method) for vote in desk.ticket.votes] == [
            ("ann", Assurance.A3, "signed"),
            ("bea", Assurance.A3, "signed"),
        ]

    at_desk(tmp_path, scene)


def test_an_outsider_verifies_the_vote_from_the_journal_alone(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        await desk.carry(desk.message(ANN))
        entries = await desk.house.broker._store.commit(lambda db: list(journal.read(db, desk.ticket.id)))
        body = next(entry["body"] for entry in entries if entry["kind"] == "vote")
        envelope = parse_envelope(body["envelope"].encode())
        assert verify(envelope, PAYLOAD_TYPE, [ANN.public]) == (ANN.public,)
        assert parse_statement(envelope.payload).request_digest == body["request_digest"]
        assert body["evidence"].startswith(ANN.public.keyid)

    at_desk(tmp_path, scene)


def test_the_owners_own_key_proves_fresh_presence_and_no_second_person(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        await desk.carry(desk.message(OWN))
        assert desk.ticket.votes[0].assurance is Assurance.A1

    at_desk(tmp_path, scene, OWNER_ASKED)


def test_an_owner_who_leads_finance_cannot_sign_for_their_own_agent(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        with pytest.raises(RefusedError, match="may not answer"):
            await desk.carry(desk.message(OWN))
        assert desk.ticket.votes == []

    at_desk(tmp_path, scene, replace(TWO_TEAMS, excluded=("olaf",)))


def test_a_key_known_by_its_id_is_taken_from_the_message_and_another_is_not(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        desk.approvers = Approvers(desk.approvers.directory, {})
        with pytest.raises(RefusedError):
            await desk.carry(desk.message(ANN))
        with pytest.raises(RefusedError):
            await desk.carry(desk.message(STRANGER) | {"key": STRANGER.public.pem})
        await desk.carry(desk.message(ANN) | {"key": ANN.public.pem})
        assert [vote.human for vote in desk.ticket.votes] == ["ann"]

    at_desk(tmp_path, scene)


Attack = Callable[[Desk], dict[str, Any]]


def _keyid_of_another(desk: Desk) -> dict[str, Any]:
    envelope = json.loads(desk.message(STRANGER)["envelope"])
    envelope["signatures"][0]["keyid"] = ANN.public.keyid
    return {"envelope": json.dumps(envelope)}


def _two_signatures(desk: Desk) -> dict[str, Any]:
    envelope = Envelope(PAYLOAD_TYPE, desk.statement().to_bytes())
    return {"envelope": envelope_bytes(add_signature(add_signature(envelope, ANN), BEA)).decode()}


def _unsigned(desk: Desk) -> dict[str, Any]:
    return {"envelope": envelope_bytes(Envelope(PAYLOAD_TYPE, desk.statement().to_bytes())).decode()}


ATTACKS: dict[str, Attack] = {
    "a stranger's key": lambda desk: desk.message(STRANGER),
    "the keyid of another": _keyid_of_another,
    "nobody": _unsigned,
    "two in one": _two_signatures,
    "another answer": lambda desk: tampered(desk.message(ANN, answer=Answer.DENY), answer="once"),
    "another time": lambda desk: tampered(desk.message(ANN, at_s=0), at="2099-01-01T00:00:00Z"),
    "a manifest": lambda desk: desk.message(ANN, "application/vnd.deskwarden.agent-manifest+json"),
    "another digest": lambda desk: desk.message(ANN, request_digest=f"sha256:{'0' * 64}"),
    "another card": lambda desk: desk.message(ANN, shown_digest=f"sha256:{'0' * 64}"),
    "another request": lambda desk: desk.message(ANN, request_id="r-0"),
    "old": lambda desk: desk.message(ANN, at_s=now_ns() // 10**9 - MAX_AGE_S - 2),
    "dated ahead": lambda desk: desk.message(ANN, at_s=now_ns() // 10**9 + MAX_AHEAD_S + 5),
    "huge": lambda _desk: {"envelope": " " * 20000},
    "no envelope": lambda _desk: {"envelope": "{}"},
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_vote_that_its_holder_did_not_give_so_is_refused(tmp_path: Path, attack: str) -> None:
    async def scene(desk: Desk) -> None:
        with pytest.raises(DeskwardenError):
            await desk.carry(ATTACKS[attack](desk))
        assert desk.ticket.votes == []
        assert desk.ticket.state is State.WAITING

    at_desk(tmp_path, scene)


def test_a_vote_carried_twice_counts_once(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        message = desk.message(ANN)
        await desk.carry(message)
        with pytest.raises(ConflictError):
            await desk.carry(message)
        assert len(desk.ticket.votes) == 1

    at_desk(tmp_path, scene)


def test_a_vote_for_one_request_does_not_answer_the_same_question_asked_again(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        message = desk.message(ANN)
        other = await desk.house.ask(read("/home/o/b.txt"))
        assert other.request is not None
        with pytest.raises(DeskwardenError):
            await desk.carry(tampered(message, request_id=other.id))
        with pytest.raises(RefusedError, match="not what was shown"):
            await desk.carry(desk.message(ANN, request_id=other.id))
        assert other.votes == []

    at_desk(tmp_path, scene)


def test_a_membership_that_is_over_signs_nothing(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        with pytest.raises(RefusedError, match="may not answer"):
            await desk.carry(desk.message(ANN))

    at_desk(tmp_path, scene, review_by="2020-01-01")


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "deskwarden.vote/2"},
        {"answer": "yes"},
        {"more": ""},
        {"narrowing": {"read_only": 1, "duration_s": 0}},
        {"narrowing": {"read_only": False, "duration_s": True}},
        {"narrowing": {"read_only": False, "duration_s": -1}},
        {"justification": "x" * 1001},
        {"at": "2026-01-01T00:00:00+00:00"},
        {"request_id": "../r"},
    ],
)
def test_a_signed_text_that_is_no_vote_is_refused(change: dict[str, Any]) -> None:
    digest = f"sha256:{'0' * 64}"
    plain = Statement("r-1", digest, digest, Answer.ONCE, Narrowing(), "", 0).to_bytes()
    assert parse_statement(plain).to_bytes() == plain
    with pytest.raises(UsageError):
        parse_statement(json.dumps(json.loads(plain) | change).encode())
