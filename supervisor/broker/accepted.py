"""What was accepted before: the newest manifest of each publisher and name, and what owners said yes to.

Functions on a connection, to be run by the store in one transaction with the journal's entry.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from supervisor.policy.manifest import Manifest, Seen, check_sequence

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS accepted (
    scope TEXT NOT NULL,
    publisher TEXT NOT NULL,
    name TEXT NOT NULL,
    seq INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (scope, publisher, name)
) STRICT;
CREATE TABLE IF NOT EXISTS consent (
    owner_uid INTEGER NOT NULL,
    program TEXT NOT NULL,
    folder BLOB NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (owner_uid, program, folder, digest)
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Consent:
    """What a yes on the card was for: this program in this folder, with a manifest of this digest."""

    owner_uid: int
    program: bytes
    folder: bytes
    digest: str

    @property
    def row(self) -> tuple[int, str, bytes, str]:
        """The columns; a program's name need not be UTF-8."""
        return self.owner_uid, self.program.hex(), self.folder, self.digest


def seen(db: sqlite3.Connection, scope: str, publisher: str, name: str) -> Seen | None:
    """Return the newest manifest accepted for *publisher* and *name*."""
    row = db.execute(
        "SELECT seq, digest FROM accepted WHERE scope = ? AND publisher = ? AND name = ?", (scope, publisher, name)
    ).fetchone()
    return None if row is None else Seen(int(row[0]), str(row[1]))


def accept(db: sqlite3.Connection, scope: str, manifest: Manifest) -> None:
    """Note a manifest as the newest.

    Args:
        scope: Whose memory it is: the machine's (``""``), or one owner's, so that nobody's keys can spoil another's.

    Raises:
        RefusedError: It is a step back, a fork or leaves a gap.
    """
    check_sequence(manifest, seen(db, scope, manifest.publisher, manifest.name))
    values = (scope, manifest.publisher, manifest.name, manifest.seq, manifest.digest)
    db.execute("INSERT OR REPLACE INTO accepted VALUES (?, ?, ?, ?, ?)", values)


def has_consent(db: sqlite3.Connection, consent: Consent) -> bool:
    """Return whether the owner said yes to this."""
    query = "SELECT 1 FROM consent WHERE owner_uid = ? AND program = ? AND folder = ? AND digest = ?"
    return db.execute(query, consent.row).fetchone() is not None


def keep_consent(db: sqlite3.Connection, consent: Consent) -> bool:
    """Remember a yes; returns whether it is new."""
    return db.execute("INSERT OR IGNORE INTO consent VALUES (?, ?, ?, ?)", consent.row).rowcount == 1
