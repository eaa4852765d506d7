"""The daemon's durable state: sessions, in SQLite (WAL). One writer, this process."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS session (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    owner_uid INTEGER NOT NULL,
    started_ns INTEGER NOT NULL,
    state TEXT NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS met (
    owner_uid INTEGER NOT NULL,
    program TEXT NOT NULL,
    workspace TEXT NOT NULL,
    PRIMARY KEY (owner_uid, program, workspace)
) STRICT;
CREATE INDEX IF NOT EXISTS session_by_owner ON session (owner_uid, started_ns);
"""
# Bumped when a record of an older version cannot be read as it is.
_VERSION: Final = 1
LIVE_STATES: Final = ("starting", "running", "frozen")


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a session, also after it ended.

    Attributes:
        areas: The staged areas' real paths, the workspace first; empty for mode ``direct``.
        shown: What else of the owner's files the agent sees, read-only.
        state: ``starting``, ``running``, ``frozen``, ``ended``, ``lost`` (the daemon died under it).
        exit_code: As a shell says it; None while it runs or when it is lost.
        report: The enforcement report: layer → what is really active.
        baseline: For `workspace`: when it started, in two clocks.
    """

    id: str
    name: str
    owner_uid: int
    owner_gid: int
    profile: str
    mode: str
    workspace: str
    argv: list[str]
    areas: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    agent_uid: int = 0
    pid: int = 0
    state: str = "starting"
    started_ns: int = 0
    ended_ns: int = 0
    exit_code: int | None = None
    reason: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    baseline: dict[str, int] = field(default_factory=dict)
    runs_later: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


class State:
    """The database; every write is durable on return."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA busy_timeout=5000")
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > _VERSION:
            raise ValueError(f"{path} was written by a newer Deskwarden: got version {found}, expected {_VERSION}")
        self._db.executescript(_SCHEMA)
        self._db.execute(f"PRAGMA user_version={_VERSION}")

    def put(self, record: Record) -> None:
        """Insert or replace a session's record."""
        self._db.execute(
            "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?)",
            (record.id, record.name, record.owner_uid, record.started_ns, record.state, json.dumps(asdict(record))),
        )

    def of_owner(self, uid: int) -> list[Record]:
        """Return the sessions of one owner, oldest first."""
        rows = self._db.execute("SELECT record FROM session WHERE owner_uid = ? ORDER BY started_ns, id", (uid,))
        return [Record(**json.loads(row[0])) for row in rows]

    def meet(self, uid: int, program: str, workspace: str) -> bool:
        """Note that this owner ran *program* in *workspace*; returns whether it was for the first time."""
        words = (json.dumps(program), json.dumps(workspace))  # JSON: a path need not be UTF-8
        return self._db.execute("INSERT OR IGNORE INTO met VALUES (?, ?, ?)", (uid, *words)).rowcount == 1

    def remove(self, session_id: str) -> None:
        """Forget a session."""
        self._db.execute("DELETE FROM session WHERE id = ?", (session_id,))

    def mark_lost(self) -> list[Record]:
        """Mark the sessions that a dead daemon left as running; returns them. Their staged work is kept."""
        rows = self._db.execute("SELECT record FROM session WHERE state IN (?, ?, ?)", LIVE_STATES).fetchall()
        lost = []
        for row in rows:
            record = replace(Record(**json.loads(row[0])), state="lost", reason="the daemon died while it ran")
            self.put(record)
            lost.append(record)
        return lost

    def close(self) -> None:
        """Close the database."""
        self._db.close()
