"""The broker's journal: every step as a row, chained by digests, kept as the bytes that were hashed.

The audit log takes these rows over; until then the chain shows an edit in the middle, not one by whoever rewrites all.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from supervisor import strict_json
from supervisor.errors import ServiceError

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS journal (
    seq INTEGER PRIMARY KEY,
    at_ns INTEGER NOT NULL,
    kind TEXT NOT NULL,
    session TEXT NOT NULL,
    subject TEXT NOT NULL,
    body BLOB NOT NULL,
    digest BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS journal_by_subject ON journal (subject, seq);
CREATE INDEX IF NOT EXISTS journal_by_kind ON journal (kind, seq);
"""
_FIRST: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Entry:
    """One step.

    Attributes:
        kind: ``request``, ``denial``, ``decision``, ``vote``, ``grant``, ``effect``, ``use``, ``end``, ``rule``,
            ``policy``, ``recert``.
        subject: The request's id, or the rule's; ``policy``.
    """

    kind: str
    at_ns: int
    session: str
    subject: str
    body: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return what is hashed and kept."""
        head = {"kind": self.kind, "at_ns": str(self.at_ns), "session": self.session, "subject": self.subject}
        return strict_json.canonical(head | {"body": self.body})


def append(db: sqlite3.Connection, entry: Entry) -> None:
    """Add *entry* within the caller's transaction.

    Raises:
        sqlite3.Error: It could not be written.
    """
    last = db.execute("SELECT digest FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
    data = entry.to_bytes()
    chained = hashlib.sha256((last[0] if last else _FIRST) + data).digest()
    values = (entry.at_ns, entry.kind, entry.session, entry.subject, data, chained)
    db.execute("INSERT INTO journal (at_ns, kind, session, subject, body, digest) VALUES (?, ?, ?, ?, ?, ?)", values)


def verify(db: sqlite3.Connection) -> int:
    """Recompute the chain; returns how many entries it has.

    Raises:
        ServiceError: The first entry that does not fit.
    """
    before, count = _FIRST, 0
    for seq, body, digest in db.execute("SELECT seq, body, digest FROM journal ORDER BY seq"):
        count += 1
        if hashlib.sha256(before + body).digest() != digest or seq != count:
            raise ServiceError(
                f"the broker's journal was changed at entry {seq}", "keep a copy of it, and tell security"
            )
        before = digest
    return count


def read(db: sqlite3.Connection, subject: str = "", since_ns: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the entries on *subject* (or all), oldest first, as parsed values."""
    where, values = ("subject = ? AND at_ns >= ?", (subject, since_ns)) if subject else ("at_ns >= ?", (since_ns,))
    query = f"SELECT body FROM journal WHERE {where} ORDER BY seq"  # noqa: S608 - one of two texts above
    for (body,) in db.execute(query, values):
        yield strict_json.parse(body, len(body), "journal")


def decisions(
    db: sqlite3.Connection, owner_uid: int, since_ns: int, after_seq: int, most: int
) -> list[tuple[int, dict[str, Any]]]:
    """Return the next decisions on requests of one owner, with their places, oldest first; at most *most*."""
    query = (
        "SELECT journal.seq, journal.body FROM journal JOIN request ON request.id = journal.subject"
        " WHERE kind = 'decision' AND owner_uid = ? AND at_ns >= ? AND seq > ? ORDER BY seq LIMIT ?"
    )
    rows = db.execute(query, (owner_uid, since_ns, after_seq, most))
    return [(seq, strict_json.parse(body, len(body), "journal")) for seq, body in rows]
