from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.workspace.area import Baseline, realtime_minus_boottime, take_baseline
from supervisor.workspace.copying import copy_contents
from supervisor.workspace.marks import Marks, load_marks, save_marks
from supervisor.workspace.store import drop_step, new_step, read_json, step_numbers, write_json


@pytest.fixture
def store_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_a_failed_write_leaves_the_old_value(store_fd: int) -> None:
    write_json(store_fd, b"v", {"a": 1})
    with pytest.raises(TypeError):
        write_json(store_fd, b"v", object())
    assert read_json(store_fd, b"v") == {"a": 1}
    assert os.listdir(store_fd) == ["v"]


def test_steps_are_numbered_and_dropped(store_fd: int) -> None:
    for number in (1, 2, 3):
        got, fd = new_step(store_fd)
        os.close(fd)
        assert got == number
    drop_step(store_fd, 2)
    drop_step(store_fd, 2)
    assert step_numbers(store_fd) == [1, 3]


def test_a_session_name_can_not_leave_the_store(store_fd: int) -> None:
    with pytest.raises(ValueError, match="session id"):
        save_marks(store_fd, "../x", Marks())
    assert load_marks(store_fd, "unknown") == Marks()


def test_a_copy_keeps_holes_and_length(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb+") as source, open(tmp_path / "b", "wb+") as target:
        source.truncate(50 << 20)
        source.seek(20 << 20)
        source.write(b"middle")
        source.flush()
        copy_contents(source.fileno(), target.fileno())
        assert os.fstat(target.fileno()).st_size == 50 << 20
        assert os.fstat(target.fileno()).st_blocks * 512 < 1 << 20
        assert os.pread(target.fileno(), 6, 20 << 20) == b"middle"


def test_only_a_step_back_of_the_clock_counts() -> None:
    assert not take_baseline().clock_went_back()
    assert not Baseline(0, realtime_minus_boottime() - 10**12).clock_went_back()
    assert Baseline(0, realtime_minus_boottime() + 10**9).clock_went_back()
