"""The disk of Deskwarden's state is full: everybody gets an answer, and the ways to free space work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disk import STATE_KINDS, SmallDisk
from tests.service import wait_until

# More than the disk has; then many small ones, until not even those find room.
FILL = (
    "echo new > old; head -c 80000000 /dev/urandom > big; for i in $(seq 40); do head -c 3000 /dev/urandom > small$i; "
    "done; exit 3"
)


@pytest.fixture(params=STATE_KINDS)
def small(request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    service = SmallDisk(48, request.param)
    yield service
    service.close()


@pytest.fixture
def service() -> None:
    """Each test has a disk of its own to fill."""


@pytest.fixture(autouse=True)
def tidy() -> None:
    """`SmallDisk.close` does it."""


def _fill(small: SmallDisk) -> tuple[Path, str]:
    """Fill the disk from inside; returns the workspace and the session."""
    folder = small.folder()
    (folder / "old").write_text("old\n")
    result = small.run("run", "--", "sh", "-c", FILL, cwd=folder)
    assert result.returncode == 3, result
    assert b"is full" in result.stderr, result
    assert b"next: deskwarden prune" in result.stderr
    assert small.free_kib() < 64
    return folder, small.session()["id"]


def test_a_full_disk_ends_the_session_and_its_changes_can_be_seen_and_left(small: SmallDisk) -> None:
    folder, session = _fill(small)
    assert small.json("ps") == []
    assert (small.session(session)["state"], small.session(session)["exit_code"]) == ("ended", 3)
    assert {"old", "big", "small1"} <= small.changes(session).keys()
    assert b"+new" in small.run("diff", session, "old", cwd=folder).stdout
    left = small.run("discard", session, "big", cwd=folder)
    assert left.returncode == 0, left
    assert "big" not in small.changes(session)
    applied = small.run("apply", session, "old", cwd=folder)
    assert applied.returncode == 0, applied
    assert (folder / "old").read_text() == "new\n"


def test_no_session_starts_on_a_full_disk_until_one_is_forgotten(small: SmallDisk) -> None:
    folder, session = _fill(small)
    refused = small.run("run", "--", "true", cwd=folder)
    assert refused.returncode == 125, refused
    assert b"is full" in refused.stderr
    assert b"next: deskwarden prune" in refused.stderr
    assert small.run("prune").returncode == 0
    assert small.session(session)["id"] == session  # it holds changes: only --all forgets it
    pruned = small.run("prune", "--all")
    assert (pruned.returncode, pruned.stdout) == (0, b"forgot 1 session\n"), pruned
    assert small.free_kib() > 24 << 10
    assert small.run("run", "--", "true", cwd=folder).returncode == 0
    assert len(small.json("ps", "--all")) == 1
    wait_until("the reserve is held again", (small.disk / "state.db.ballast").exists)


def test_a_stop_ends_while_the_disk_is_full(small: SmallDisk) -> None:
    folder = small.folder()
    session = small.start_session("--", "sh", "-c", FILL.replace("exit 3", "exec sleep 600"), cwd=folder)
    wait_until("the disk is full", lambda: small.free_kib() < 64, 30)
    wait_until("it is done filling", lambda: "small40" in small.changes(session), 30)
    began = time.monotonic()
    assert small.run("stop", session).returncode == 0
    assert time.monotonic() - began < 20
    assert small.session(session)["state"] == "ended"


def test_a_daemon_starts_on_a_full_disk_and_frees_it(small: SmallDisk) -> None:
    folder, session = _fill(small)
    small.kill_daemon()
    assert small.free_kib() < 64
    small.start()
    assert "is full" in small.log()
    assert small.json("ps") == []
    assert [record["id"] for record in small.json("ps", "--all")] == [session]
    assert {"old", "big"} <= small.changes(session).keys()
    assert small.run("run", "--", "true", cwd=folder).returncode == 125
    assert small.run("prune", "--all").stdout == b"forgot 1 session\n"
    assert small.run("run", "--", "true", cwd=folder).returncode == 0
    small.kill_daemon()
    small.start()
    assert len(small.json("ps", "--all")) == 1  # what was forgotten stays so


def test_a_daemon_starts_where_its_database_can_be_neither_made_nor_read(small: SmallDisk) -> None:
    folder = small.folder()
    small.stop()
    database = small.disk / "state.db"
    database.write_bytes(b"no database, but what a broken disk left of one\n" * 100)
    small.start()
    assert small.json("ps", "--all") == []
    refused = small.run("run", "--", "true", cwd=folder)
    assert refused.returncode == 125, refused
    assert b"state.db cannot be written" in refused.stderr
    database.unlink()
    assert small.run("run", "--", "true", cwd=folder).returncode == 0
    assert len(small.json("ps", "--all")) == 1
