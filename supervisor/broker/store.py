"""broker.db: durable before it takes effect. One writer thread; what is asked meanwhile shares the next commit.

Every change is one function on the connection, run in a savepoint of its own: one that fails is taken back alone and
raises for its caller, the others of the same commit stand. A commit that fails raises for all of them.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from supervisor.broker import accepted, journal
from supervisor.errors import DeskwardenError, ServiceError

_SCHEMA: Final = (
    journal.SCHEMA
    + accepted.SCHEMA
    + """
CREATE TABLE IF NOT EXISTS request (
    id TEXT PRIMARY KEY,
    session TEXT NOT NULL,
    owner_uid INTEGER NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS request_by_owner ON request (owner_uid, created_ns);
CREATE TABLE IF NOT EXISTS vote (
    request TEXT NOT NULL REFERENCES request (id),
    human TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (request, human)
) STRICT;
CREATE TABLE IF NOT EXISTS grants (
    id TEXT PRIMARY KEY,
    request TEXT NOT NULL UNIQUE REFERENCES request (id),
    session TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS rule (
    id TEXT PRIMARY KEY,
    owner_uid INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS policy (
    seq INTEGER PRIMARY KEY,
    revision TEXT NOT NULL
) STRICT;
"""
)
_VERSION: Final = 1
# As many changes as one commit takes: more would make the first of them wait.
_BATCH: Final = 128

Result = TypeVar("Result")
Change = Callable[[sqlite3.Connection], Any]


@dataclass(frozen=True, slots=True)
class _Job:
    change: Change
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Store:
    """The database and its writer."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open_db: sqlite3.Connection | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="broker-store", daemon=True)
        self._thread.start()

    async def commit(self, change: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run *change* and return its result once it is on the disk.

        Raises:
            DeskwardenError: What *change* refused.
            ServiceError: It could not be written; nothing of it stands.
        """
        loop = asyncio.get_running_loop()
        job = _Job(change, loop, loop.create_future())
        self._jobs.put(job)
        # A caller that is cancelled must not leave the outcome open: the change is made or not, and then known.
        result: Result = await asyncio.shield(job.future)
        return result

    def close(self) -> None:
        """Write what was asked for, and close."""
        self._jobs.put(None)
        self._thread.join()
        if self._open_db is not None:
            self._open_db.close()

    @property
    def _db(self) -> sqlite3.Connection:
        """The database, opened when it is first needed and can be: a full disk must not keep the daemon from starting.

        Raises:
            sqlite3.Error: It cannot.
        """
        if self._open_db is None:
            self._open_db = _open(self._path)
        return self._open_db

    def _write(self) -> None:
        running = True
        while running:
            jobs = [self._jobs.get()]
            while len(jobs) < _BATCH and jobs[-1] is not None:
                try:
                    jobs.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            if jobs[-1] is None:
                running = False
            self._commit([job for job in jobs if job is not None])

    def _commit(self, jobs: list[_Job]) -> None:
        outcomes: list[tuple[_Job, Any, BaseException | None]] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [self._run(job) for job in jobs]
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._open_db is not None and self._open_db.in_transaction:
                self._open_db.execute("ROLLBACK")
            outcomes = [(job, None, self._unusable(error)) for job in jobs]
        for job, result, failure in outcomes:
            job.loop.call_soon_threadsafe(_settle, job.future, result, failure)

    def _run(self, job: _Job) -> tuple[_Job, Any, BaseException | None]:
        self._db.execute("SAVEPOINT change")
        try:
            result = job.change(self._db)
        except (DeskwardenError, ValueError, TypeError, KeyError, sqlite3.IntegrityError) as error:
            self._db.execute("ROLLBACK TO change")
            return job, None, error
        finally:
            self._db.execute("RELEASE change")
        return job, result, None

    def _unusable(self, error: sqlite3.Error) -> ServiceError:
        return ServiceError(
            f"{self._path} cannot be written: {error}; nothing is granted without a record", "free space there: df"
        )


def _settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


def _open(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        # Each commit reaches the disk before it is answered: no effect without a record.
        db.execute("PRAGMA synchronous=FULL")
        found = int(db.execute("PRAGMA user_version").fetchone()[0])
        if found > _VERSION:
            raise ServiceError(f"{path} was written by a newer Deskwarden: got version {found}, expected {_VERSION}")
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version={_VERSION}")
    except BaseException:
        db.close()
        raise
    return db
