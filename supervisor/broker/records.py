"""The rows of broker.db: functions on a connection, to be run by the store in one transaction."""

from __future__ import annotations

import sqlite3
from typing import Any

from supervisor import strict_json
from supervisor.broker import transition
from supervisor.broker.grant import Grant
from supervisor.broker.transition import State
from supervisor.broker.vote import Vote
from supervisor.errors import ConflictError, RefusedError
from supervisor.policy.request import CapabilityRequest


def insert_request(db: sqlite3.Connection, request: CapabilityRequest, state: State) -> None:
    """Add a request in its first state."""
    values = (request.id, request.session, request.owner_uid, request.digest, state, request.created_ns)
    body = strict_json.canonical(request.to_json())
    db.execute("INSERT INTO request VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, body))


def move_request(db: sqlite3.Connection, request_id: str, before: State, after: State) -> None:
    """Take a request one step on, if it still stands where it is thought to stand.

    Raises:
        ConflictError: It does not: another answer came first. Nothing is changed.
    """
    transition.check(before, after)
    moved = db.execute("UPDATE request SET state = ? WHERE id = ? AND state = ?", (after, request_id, before))
    if moved.rowcount != 1:
        raise ConflictError(f"request {request_id} is no longer {before}", "deskwarden requests")


def insert_vote(db: sqlite3.Connection, vote: Vote) -> None:
    """Keep a vote.

    Raises:
        ConflictError: This person has voted on this request.
    """
    try:
        body = strict_json.canonical(vote.to_json())
        db.execute("INSERT INTO vote VALUES (?, ?, ?)", (vote.request_id, vote.human, body))
    except sqlite3.IntegrityError:
        raise ConflictError(
            f"{vote.human} has already voted on {vote.request_id}", f"deskwarden requests {vote.request_id}"
        ) from None


def insert_grant(db: sqlite3.Connection, grant: Grant) -> None:
    """Keep a grant.

    Raises:
        ConflictError: The request has one: an approval is good for exactly one grant.
    """
    try:
        body = strict_json.canonical(grant.to_json())
        db.execute("INSERT INTO grants VALUES (?, ?, ?, ?)", (grant.id, grant.request_id, grant.session, body))
    except sqlite3.IntegrityError:
        raise ConflictError(f"request {grant.request_id} has been granted before", "deskwarden grants") from None


def put_rule(db: sqlite3.Connection, rule_id: str, owner_uid: int, body: dict[str, Any]) -> None:
    """Keep a standing rule."""
    db.execute("INSERT OR REPLACE INTO rule VALUES (?, ?, ?)", (rule_id, owner_uid, strict_json.canonical(body)))


def drop_rule(db: sqlite3.Connection, rule_id: str, owner_uid: int) -> bool:
    """Remove a standing rule; returns whether this owner had it."""
    return db.execute("DELETE FROM rule WHERE id = ? AND owner_uid = ?", (rule_id, owner_uid)).rowcount == 1


def rules(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return all standing rules."""
    return [strict_json.parse(body, len(body), "rule") for (body,) in db.execute("SELECT body FROM rule ORDER BY id")]


def keep_policy(db: sqlite3.Connection, seq: int, revision: str) -> None:
    """Note that a signed policy is about to decide.

    Raises:
        RefusedError: It is older than one that has decided here, or has the number of another.
    """
    row = db.execute("SELECT seq, revision FROM policy ORDER BY seq DESC LIMIT 1").fetchone()
    if row is not None and (seq < row[0] or (seq == row[0] and revision != row[1])):
        raise RefusedError(
            f"it is number {seq}, number {row[0]} ({row[1][:19]}) has decided here already",
            "sign it with a higher number: deskwarden policy sign DIR --key FILE",
        )
    db.execute("INSERT OR IGNORE INTO policy VALUES (?, ?)", (seq, revision))


def is_owners(db: sqlite3.Connection, request_id: str, owner_uid: int) -> bool:
    """Return whether that request was made for this owner."""
    found = db.execute("SELECT 1 FROM request WHERE id = ? AND owner_uid = ?", (request_id, owner_uid))
    return found.fetchone() is not None


def unfinished(db: sqlite3.Connection) -> list[tuple[str, State]]:
    """Return the requests that a daemon which died left open or in force."""
    found = db.execute("SELECT id, state FROM request").fetchall()
    return [(request_id, State(state)) for request_id, state in found if not transition.is_final(State(state))]
