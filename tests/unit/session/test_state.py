"""The database: durable, per owner, and honest about sessions that a dead daemon left."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.session.state import Record, State


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
