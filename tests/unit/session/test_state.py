"""The database: durable, per owner, and honest about sessions that a dead daemon left."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.errors import ServiceError
from supervisor.session.state import Record, State

CHECKOUT = Path(__file__).resolve().parents[3]


def _record(session_id: str, uid: int = 1000, state: str = "running", workspace: str = "/w") -> Record:
    return Record(
        id=session_id,
        name=f"n-{session_id}",
        owner_uid=uid,
        owner_gid=uid,
        profile="coding",
        mode="staged",
        workspace=workspace,
        argv=["sh"],
        state=state,
        started_ns=len(session_id),
    )


def test_records_survive_and_are_kept_apart_by_owner(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    state = State(path)
    state.put(_record("a", 1000, workspace="/w/\udcff"))
    state.put(_record("bb", 1001))
    state.close()
    again = State(path)
    assert [record.id for record in again.of_owner(1000)] == ["a"]
    assert again.of_owner(1000)[0].workspace == "/w/\udcff"
    assert [record.id for record in again.of_owner(1001)] == ["bb"]
    assert again.of_owner(1002) == []
    again.close()


def test_sessions_of_a_dead_daemon_are_lost_and_ended_ones_are_not(tmp_path: Path) -> None:
    state = State(str(tmp_path / "state.db"))
    for session_id, now in (("a", "running"), ("bb", "frozen"), ("ccc", "starting"), ("dddd", "ended")):
        state.put(_record(session_id, state=now))
    assert {record.id for record in state.mark_lost()} == {"a", "bb", "ccc"}
    assert {record.id: record.state for record in state.of_owner(1000)} == {
        "a": "lost",
        "bb": "lost",
        "ccc": "lost",
        "dddd": "ended",
    }
    assert state.mark_lost() == []
    state.close()


def test_a_first_meeting_is_told_once(tmp_path: Path) -> None:
    state = State(str(tmp_path / "state.db"))
    assert state.meet(1000, "codex", "/w")
    assert not state.meet(1000, "codex", "/w")
    assert state.meet(1000, "codex", "/other")
    assert state.meet(1001, "codex", "/w")
    state.close()


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    import sqlite3

    path = str(tmp_path / "state.db")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ValueError, match="got version 99"):
        State(path)


@pytest.fixture
def full_disk() -> Iterator[Callable[[bool], None]]:
    """Make the kernel refuse every byte that would lengthen a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def set_full(full: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]) if full else before)

    yield set_full
    set_full(False)


def test_what_a_full_disk_does_not_take_is_read_from_memory_and_written_later(
    tmp_path: Path, full_disk: Callable[[bool], None]
) -> None:
    state = State(str(tmp_path / "state.db"))
    state.put(_record("a"))
    state.put(_record("bb"))
    full_disk(True)
    state.put(_record("a", state="ended"))
    state.put(_record("ccc"))
    state.remove("bb")
    assert state.meet(1000, "codex", "/w")
    assert [(record.id, record.state) for record in state.of_owner(1000)] == [("a", "ended"), ("ccc", "running")]
    assert state.of_owner(1001) == []
    assert not state.is_written
    with pytest.raises(ServiceError, match=r"state\.db cannot be written: disk I/O error") as caught:
        state.check_writable()
    assert "deskwarden prune" in caught.value.next_step
    assert [record.id for record in state.mark_lost()] == ["ccc"]
    full_disk(False)
    state.check_writable()
    state.close()
    again = State(str(tmp_path / "state.db"))
    assert [(record.id, record.state) for record in again.of_owner(1000)] == [("a", "ended"), ("ccc", "lost")]
    again.close()


def test_a_database_that_a_dead_daemon_left_is_read_on_a_full_disk(
    tmp_path: Path, full_disk: Callable[[bool], None]
) -> None:
    path = str(tmp_path / "state.db")
    code = (
        "import os; from supervisor.session.state import Record, State; state = State(os.environ['DATABASE']); "
        "state.put(Record('a', 'n', 1000, 1000, 'coding', 'staged', '/w', ['sh'], state='running')); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], env={"DATABASE": path}, cwd=CHECKOUT, check=True)
    assert os.path.getsize(f"{path}-wal")
    full_disk(True)
    state = State(path)
    assert [record.id for record in state.mark_lost()] == ["a"]
    assert [record.state for record in state.of_owner(1000)] == ["lost"]
    full_disk(False)
    assert state.flush()
    state.close()


def test_what_is_no_database_is_kept_out_until_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"what a broken disk left\n" * 200)
    state = State(str(path))
    assert state.of_owner(1000) == []
    with pytest.raises(ServiceError, match="file is not a database"):
        state.check_writable()
    assert path.read_bytes() == b"what a broken disk left\n" * 200
    path.unlink()
    state.check_writable()
    state.put(_record("a"))
    state.close()
    again = State(str(path))
    assert [record.id for record in again.of_owner(1000)] == ["a"]
    again.close()
