"""Whatever an agent staged can be removed: any depth, any names, any modes; nothing outside is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.sandbox.removal import remove_session, remove_tree


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "sessions" / "abc" / "a0" / "upper").mkdir(parents=True)
    (tmp_path / "sessions" / "abcd").mkdir()
    fd = os.open(tmp_path / "sessions", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _deepen(path: Path, levels: int, name: bytes = b"d") -> None:
    current = os.open(path, os.O_PATH)
    for _ in range(levels):
        os.mkdir(name, dir_fd=current)
        following = os.open(name, os.O_PATH, dir_fd=current)
        os.close(current)
        current = following
    os.close(os.open(b"last", os.O_CREAT | os.O_WRONLY, dir_fd=current))
    os.close(current)


def test_a_tree_deeper_than_any_path_goes(sessions: int, tmp_path: Path) -> None:
    upper = tmp_path / "sessions/abc/a0/upper"
    _deepen(upper, 3000, b"a name that makes the path longer than PATH_MAX")
    _deepen(upper, 5)
    remove_session(sessions, "abc")
    assert os.listdir(sessions) == ["abcd"]


def test_names_and_kinds_that_trip_others_go(sessions: int, tmp_path: Path) -> None:
    upper = tmp_path / "sessions/abc/a0/upper"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    for name in (b"\xff\n", b"-rf", b"*", b" ", b"\x01" + b"0"):
        (upper / os.fsdecode(name)).mkdir()
        (upper / os.fsdecode(name) / os.fsdecode(name)).write_text("x")
    (upper / "link").symlink_to(outside)
    (upper / "file-link").symlink_to(outside / "kept")
    os.mkfifo(upper / "fifo")
    os.link(outside / "kept", upper / "hard")
    remove_session(sessions, "abc")
    assert os.listdir(sessions) == ["abcd"]
    assert (outside / "kept").read_text() == "kept"


def test_what_was_discarded_of_it_goes_and_of_others_stays(sessions: int, tmp_path: Path) -> None:
    for name in ("abc-a0.json", "abc-a12.json", "abcd-a0.json", "abc-a0.json.new", "xabc-a0.json"):
        (tmp_path / "sessions" / name).write_text("{}")
    remove_session(sessions, "abc")
    assert sorted(os.listdir(sessions)) == ["abc-a0.json.new", "abcd", "abcd-a0.json", "xabc-a0.json"]


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "abc/..", "abc\0"])
def test_what_is_no_session_is_refused(sessions: int, name: str) -> None:
    with pytest.raises(ValueError, match="letters and digits"):
        remove_session(sessions, name)
    assert sorted(os.listdir(sessions)) == ["abc", "abcd"]


def test_a_link_in_place_of_a_session_is_not_followed(sessions: int, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "f").write_text("kept")
    (tmp_path / "sessions" / "evil").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=r"Not a directory|Too many"):
        remove_tree(sessions, "evil")
    assert (tmp_path / "target" / "f").exists()
