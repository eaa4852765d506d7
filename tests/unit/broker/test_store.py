"""Durable before it takes effect: one commit for many, each change alone in its failure, and SIGKILL at every step."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.broker import journal
from supervisor.broker.journal import Entry
from supervisor.broker.store import Store
from supervisor.errors import ConflictError, ServiceError

ROOT = Path(__file__).parents[3]
# A broker that lives through a question, two votes, a grant and its end, and is killed before or after one commit.
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from supervisor.broker.store import Store
from tests.broker_house import TWO_TEAMS, escalate, house, vote
path, number, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
commits, real = 0, Store.commit
async def commit(self, change):
    global commits
    commits += 1
    if commits == number and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = await real(self, change)
    if commits == number and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result
Store.commit = commit
async def main():
    async with house(path, escalate(TWO_TEAMS)) as it:
        ticket = await it.ask()
        await it.broker.vote(vote(ticket, "ann"))
        await it.broker.vote(vote(ticket, "bea"))
        await it.broker.release("s1", ticket.grant.id)
asyncio.run(main())
"""
# Rules read, leftovers ended; question, first vote, second vote with grant, in force, given back.
COMMITS = 7


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, COMMITS + 1))
def test_killed_at_every_step_it_is_granted_and_recorded_or_neither(tmp_path: Path, number: int, when: str) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(number), when]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    if not (tmp_path / "broker.db").exists():
        return  # killed before the first commit
    with contextlib.closing(sqlite3.connect(tmp_path / "broker.db")) as db:
        journal.verify(db)
        kinds = [row["kind"] for row in journal.read(db)]
        granted = db.execute("SELECT count(*) FROM grants").fetchone()[0]
        votes = db.execute("SELECT count(*) FROM vote").fetchone()[0]
    assert kinds.count("grant") == granted
    assert kinds.count("vote") == votes
    assert not granted or votes == 2
    asyncio.run(start_again(tmp_path))
    with contextlib.closing(sqlite3.connect(tmp_path / "broker.db")) as db:
        states = {row[0] for row in db.execute("SELECT state FROM request")}
    assert states <= {"lapsed", "revoked", "completed"}


async def start_again(path: Path) -> None:
    from tests.broker_house import house

    async with house(path) as it:
        assert it.broker.grants.in_force() == []


def test_the_whole_story_has_that_many_commits(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(COMMITS + 1), "before"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_one_that_fails_is_taken_back_alone(tmp_path: Path) -> None:
    def bad(db: sqlite3.Connection) -> None:
        journal.append(db, Entry("request", 1, "s", "bad"))
        raise ConflictError("no")

    def good(db: sqlite3.Connection) -> None:
        journal.append(db, Entry("request", 1, "s", "good"))

    async def run() -> list[object]:
        store = Store(str(tmp_path / "broker.db"))
        results = await asyncio.gather(*(store.commit(one) for one in (good, bad, good)), return_exceptions=True)
        assert await store.commit(journal.verify) == 2
        store.close()
        return list(results)

    results = asyncio.run(run())
    assert [type(one) for one in results] == [type(None), ConflictError, type(None)]


def test_an_edit_in_the_journal_is_found(tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(str(tmp_path / "broker.db"))
        for number in range(5):
            await store.commit(lambda db, n=number: journal.append(db, Entry("request", n, "s", "x")))  # type: ignore[misc]
        edited = Entry("request", 9, "s", "x").to_bytes()
        await store.commit(lambda db: db.execute("UPDATE journal SET body = ? WHERE seq = 3", (edited,)))
        with pytest.raises(ServiceError, match="at entry 3"):
            await store.commit(journal.verify)
        store.close()

    asyncio.run(run())


def test_a_store_that_cannot_be_made_says_so_and_goes_on_once_it_can(tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(str(tmp_path / "missing" / "broker.db"))
        with pytest.raises(ServiceError, match="nothing is granted without a record"):
            await store.commit(journal.verify)
        (tmp_path / "missing").mkdir()
        assert await store.commit(journal.verify) == 0
        store.close()

    asyncio.run(run())
