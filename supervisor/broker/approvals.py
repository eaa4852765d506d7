"""Votes: checked against what was asked and shown, counted, and turned into a grant by the last that is needed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from supervisor.broker import card, journal, quorum, records, rulebook
from supervisor.broker.journal import Entry
from supervisor.broker.people import OWNER_TEAM, Directory, Person
from supervisor.broker.rule import Rule
from supervisor.broker.ticket import Ticket
from supervisor.broker.transition import State
from supervisor.broker.vote import Answer, Vote
from supervisor.errors import ConflictError, RefusedError
from supervisor.policy.capability import Level
from supervisor.policy.decision import Clause, Decision
from supervisor.policy.request import CapabilityRequest

MAX_VOTES: Final = 16


def may_see(person: Person, ticket: Ticket) -> bool:
    """Return whether a request is this person's to see: their own agent's, or theirs to answer."""
    return ticket.party.owner_uid in person.uids or any(_is_of(person, clause) for clause in clauses_of(ticket))


def clauses_of(ticket: Ticket) -> tuple[Clause, ...]:
    """Return whom the decision on a request wants to hear."""
    return ticket.decision.quorum.clauses if ticket.decision and ticket.decision.quorum else ()


def check(directory: Directory, ticket: Ticket, vote: Vote) -> tuple[CapabilityRequest, Decision]:
    """Refuse a vote that may not count; returns what it is about.

    Raises:
        RefusedError: Not theirs to answer, not what they were shown, or more than may be answered.
        ConflictError: The request is settled, or they have voted.
    """
    request, decision = ticket.request, ticket.decision
    if ticket.state is not State.WAITING or request is None or decision is None or decision.quorum is None:
        raise ConflictError(f"request {ticket.id} is {ticket.state}", "deskwarden requests")
    if vote.request_digest != request.digest or vote.shown_digest != card.render(request, decision).shown_digest:
        raise RefusedError("that is not what was shown to you", f"look again: deskwarden requests {ticket.id}")
    if any(one.human == vote.human for one in ticket.votes):
        raise ConflictError(f"{vote.human} has already voted on {ticket.id}", f"deskwarden requests {ticket.id}")
    if len(ticket.votes) >= MAX_VOTES:
        raise RefusedError(f"{MAX_VOTES} people have voted on {ticket.id}", "deny it, or wait until it lapses")
    _check_person(directory.named(vote.human, request.owner_uid), decision, vote)
    if vote.answer in (Answer.ALWAYS, Answer.SESSION):
        _check_standing(request, decision, vote)
    return request, decision


def _check_person(person: Person | None, decision: Decision, vote: Vote) -> None:
    wanted = decision.quorum
    if person is not None and not vote.answer.is_yes and OWNER_TEAM in person.roles:
        return  # the owner may always say no
    if person is None or wanted is None or vote.human in wanted.excluded or is_overdue(person):
        raise RefusedError(f"{vote.human} may not answer {vote.request_id}", "ask one of those whom it waits for")
    if not any(_is_of(person, clause) for clause in wanted.clauses):
        raise RefusedError(f"{vote.human} may not answer {vote.request_id}", "ask one of those whom it waits for")
    if vote.answer.is_yes and vote.assurance < wanted.min_assurance:
        raise RefusedError(
            f"this needs assurance {wanted.min_assurance.name}, the vote has {vote.assurance.name}",
            "sign the vote with your key: deskwarden approve --key FILE",
        )


def _check_standing(request: CapabilityRequest, decision: Decision, vote: Vote) -> None:
    """Refuse a standing yes where none may be kept."""
    level, duties = request.resource.level, decision.obligations
    if level >= Level.CONFIDENTIAL or duties is None or not duties.always:
        raise RefusedError(
            f"{vote.answer}: not for data that is {level.word}, and only where policy allows it",
            f"deskwarden approve {request.id} --once",
        )


def missing(directory: Directory, ticket: Ticket, decision: Decision, votes: Sequence[Vote]) -> tuple[Clause, ...]:
    """Return the clauses that are still open, with those who said yes taken as the directory knows them now."""
    found = [directory.named(vote.human, ticket.party.owner_uid) for vote in votes]
    voters = [person for person in found if person is not None and not is_overdue(person)]
    return quorum.missing(decision.quorum, voters) if decision.quorum is not None else ()


def is_overdue(person: Person) -> bool:
    """Return whether this person's membership is past its review: then no vote of theirs counts."""
    return bool(person.review_by) and person.review_by < datetime.now(UTC).date().isoformat()


def _is_of(person: Person, clause: Clause) -> bool:
    return any(person.fits(party) for party in clause.any_of)


def keep(db: sqlite3.Connection, ticket: Ticket, vote: Vote) -> None:
    """Put a vote on record."""
    records.insert_vote(db, vote)
    journal.append(db, Entry("vote", vote.at_ns, ticket.party.id, ticket.id, vote.to_json()))


def keep_last(db: sqlite3.Connection, ticket: Ticket, vote: Vote, made: Rule | None) -> None:
    """Put the vote on record that settles a request, with the standing answer that it makes."""
    keep(db, ticket, vote)
    if made is not None:
        rulebook.write(db, made)
