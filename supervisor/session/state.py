"""The daemon's durable state: sessions, in SQLite (WAL). One writer, this process.

A disk that is full or broken ends nothing: what cannot be written is kept in memory, read from there, and written when
it can be (`flush`). Only the start of a session is refused meanwhile (`check_writable`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote

from supervisor.errors import ServiceError
from supervisor.session.ballast import Ballast, free_bytes

_logger = logging.getLogger(__name__)

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
# Below this no session is started: its end, its log and the notes of its review must find room.
LEAST_FREE_BYTES: Final = 8 << 20
NEXT_STEP: Final = "deskwarden prune   (also what was never applied: deskwarden prune --all), or free space there"
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
    """The database; a write is durable on return unless `shortage` says why it is not."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory = os.path.dirname(path) or "."
        self._ballast = Ballast(f"{path}.ballast")
        # Of a session to write: its record, or None to forget it.
        self._unwritten: dict[str, Record | None] = {}
        self._trouble = ""
        self._stands_in = False
        try:
            self._db = _open(path)
        except sqlite3.Error as error:
            self._db = _stand_in(path)
            self._stands_in = True
            self._note(error)

    # ---- writing ----

    def put(self, record: Record) -> None:
        """Insert or replace a session's record."""
        self._unwritten[record.id] = record
        self.flush()

    def remove(self, session_id: str) -> None:
        """Forget a session."""
        self._unwritten[session_id] = None
        self.flush()

    def meet(self, uid: int, program: str, workspace: str) -> bool:
        """Note that this owner ran *program* in *workspace*; returns whether it was for the first time."""
        words = (json.dumps(program), json.dumps(workspace))  # JSON: a path need not be UTF-8
        try:
            return self._db.execute("INSERT OR IGNORE INTO met VALUES (?, ?, ?)", (uid, *words)).rowcount == 1
        except sqlite3.Error as error:
            self._note(error)
            return True  # told once more is better than never

    def mark_lost(self) -> list[Record]:
        """Mark the sessions that a dead daemon left as running; returns them. Their staged work is kept."""
        lost = []
        for record in self._select("state IN (?, ?, ?)", LIVE_STATES):
            if record.state in LIVE_STATES:
                lost.append(replace(record, state="lost", reason="the daemon died while it ran"))
                self.put(lost[-1])
        return lost

    def flush(self) -> bool:
        """Write what could not be written before; returns whether everything is on disk."""
        try:
            if self._stands_in:
                self._return_to_disk()
            for session_id, record in list(self._unwritten.items()):
                self._write(session_id, record)
                del self._unwritten[session_id]
        except sqlite3.Error as error:
            self._note(error)
            return False
        if self._trouble:
            _logger.info("%s can be written again", self._path)
        self._trouble = ""
        return True

    def _write(self, session_id: str, record: Record | None) -> None:
        if record is None:
            self._db.execute("DELETE FROM session WHERE id = ?", (session_id,))
            return
        values = (record.id, record.name, record.owner_uid, record.started_ns, record.state)
        self._db.execute(
            "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?)", (*values, json.dumps(asdict(record)))
        )

    def _return_to_disk(self) -> None:
        """Go on with the real database. What was marked as lost meanwhile came from an older view of it."""
        self._db, before = _open(self._path), self._db
        self._stands_in = False
        before.close()
        for session_id, record in list(self._unwritten.items()):
            if record is not None and record.state == "lost":
                del self._unwritten[session_id]
        self.mark_lost()  # no session was started meanwhile, so each that seems to live is one of an older daemon

    def _note(self, error: sqlite3.Error) -> None:
        if not self._trouble:
            _logger.error("%s cannot be written: %s; kept in memory until it can", self._path, error)
        self._trouble = str(error)

    # ---- room ----

    @property
    def is_written(self) -> bool:
        """Whether everything is on disk."""
        return not self._unwritten and not self._stands_in

    def shortage(self) -> str:
        """Return why no session can be kept on this disk now; empty when one can."""
        if not self.is_written:
            return f"{self._path} cannot be written: {self._trouble}"
        if (free := free_bytes(self._directory)) < LEAST_FREE_BYTES:
            return f"the disk of {self._directory} is full: {free >> 10} KiB left, {LEAST_FREE_BYTES >> 10} KiB needed"
        return ""

    def check_writable(self) -> None:
        """Refuse to begin what could not be recorded.

        Raises:
            ServiceError: The disk is full or broken.
        """
        self.flush()
        if shortage := self.shortage():
            raise ServiceError(shortage, NEXT_STEP)

    def hold_ballast(self) -> None:
        """Hold a reserve for what frees space, when there is room for it."""
        self._ballast.hold()

    def make_room(self) -> bool:
        """On a full disk, give the reserve back; returns whether it helps to try again."""
        return free_bytes(self._directory) < LEAST_FREE_BYTES and self._ballast.release()

    # ---- reading ----

    def of_owner(self, uid: int) -> list[Record]:
        """Return the sessions of one owner, oldest first.

        Raises:
            ServiceError: The disk cannot be read.
        """
        found = [record for record in self._select("owner_uid = ?", (uid,)) if record.owner_uid == uid]
        return sorted(found, key=lambda record: (record.started_ns, record.id))

    def _select(self, where: str, values: tuple[object, ...]) -> list[Record]:
        """Return the records on disk that match, as they are now, and all that are not on disk yet."""
        try:
            rows = self._db.execute(f"SELECT record FROM session WHERE {where}", values).fetchall()  # noqa: S608
        except sqlite3.Error as error:
            raise ServiceError(f"{self._path} cannot be read: {error}", f"df {self._directory}") from error
        found: dict[str, Record | None] = {one.id: one for one in (Record(**json.loads(row[0])) for row in rows)}
        return [record for record in (found | self._unwritten).values() if record is not None]

    def close(self) -> None:
        """Close the database."""
        if not self.flush():
            _logger.error("%s: %d records were not written", self._path, len(self._unwritten))
        self._db.close()


def _open(path: str) -> sqlite3.Connection:
    """Open the database, and make it when there is none.

    Raises:
        sqlite3.Error: It cannot be opened; on a full disk it can, unless it has to be made.
        ValueError: It is a newer Deskwarden's.
    """
    db = sqlite3.connect(path, isolation_level=None)
    try:
        # Exclusive: the index of the WAL is in memory, not in a file (sqlite.org/wal.html, section 7), which a full
        # disk could not hold. One daemon at a time has the state anyway.
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA busy_timeout=5000")
        if _check_version(db, path) < _VERSION:
            db.executescript(_SCHEMA)
            db.execute(f"PRAGMA user_version={_VERSION}")
        db.execute("SELECT 1 FROM session LIMIT 1")
    except BaseException:
        db.close()
        raise
    return db


def _stand_in(path: str) -> sqlite3.Connection:
    """Return a database in memory with what can be read of the one on disk, without its newest writes."""
    with contextlib.suppress(sqlite3.Error):
        source = sqlite3.connect(f"file:{quote(path)}?immutable=1", uri=True)
        with contextlib.closing(source):
            copy = sqlite3.connect(":memory:", isolation_level=None)
            source.backup(copy)
            _check_version(copy, path)
            copy.execute("SELECT record FROM session LIMIT 1")
            copy.execute("SELECT 1 FROM met LIMIT 1")
            return copy
    empty = sqlite3.connect(":memory:", isolation_level=None)
    empty.executescript(_SCHEMA)
    return empty


def _check_version(db: sqlite3.Connection, path: str) -> int:
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    if found > _VERSION:
        raise ValueError(f"{path} was written by a newer Deskwarden: got version {found}, expected {_VERSION}")
    return found
