"""The verified copy of a program: what is compared is what is handed out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.errors import LaunchError, NotFoundError, RefusedError, UsageError
from supervisor.workspace import program_copy


@pytest.fixture
def store(tmp_path: Path) -> Iterator[int]:
    place = tmp_path / "store"
    place.mkdir()
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _tool(folder: Path, text: str = "#!/bin/sh\n", name: str = "tool") -> Path:
    path = Path(os.path.realpath(folder)) / name
    path.write_text(text, encoding="ascii")
    path.chmod(0o755)
    return path


def _asked(tool: Path, *candidates: str, **fields: str) -> dict[str, Any]:
    named = {"path": str(tool), "sha256": hashlib.sha256(b"#!/bin/sh\n").hexdigest()}
    return {"id": "s1", "candidates": list(candidates) or [str(tool)], "binaries": [named | fields]}


def _left(store: int) -> list[str]:
    return os.listdir(f"/proc/self/fd/{store}/programs")


def test_the_copy_has_the_bytes_and_stays_when_the_file_changes(store: int, tmp_path: Path) -> None:
    tool = _tool(tmp_path)
    answer, (fd,) = program_copy.answer_program(_asked(tool), [store])
    tool.write_text("#!/bin/evil\n", encoding="ascii")
    try:
        assert answer == {"path": str(tool)}
        assert Path(f"/proc/self/fd/{fd}").read_bytes() == b"#!/bin/sh\n"
        assert os.fstat(fd).st_mode & 0o7777 == 0o555
    finally:
        os.close(fd)
    program_copy.answer_drop_program({"id": "s1"}, [store])
    program_copy.answer_drop_program({"id": "s1"}, [store])
    assert _left(store) == []


def test_another_content_is_refused_and_nothing_of_it_is_left(store: int, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="the manifest names"):
        program_copy.answer_program(_asked(_tool(tmp_path, "#!/bin/evil\n")), [store])
    assert _left(store) == []


def test_a_link_counts_as_what_it_leads_to(store: int, tmp_path: Path) -> None:
    tool = _tool(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(tool)
    answer, (fd,) = program_copy.answer_program(_asked(tool, str(link)), [store])
    os.close(fd)
    assert answer == {"path": str(tool)}
    link.unlink()
    link.symlink_to(_tool(tmp_path, name="other"))
    with pytest.raises(RefusedError, match="does not name this program"):
        program_copy.answer_program(_asked(tool, str(link)), [store])


def test_a_link_put_in_the_way_after_the_search_is_not_followed(
    store: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, other = _tool(tmp_path), _tool(tmp_path, name="other")
    real = os.path.realpath

    def swapped(path: str) -> str:
        found = real(path)
        tool.unlink()
        tool.symlink_to(other)
        return found

    monkeypatch.setattr(os.path, "realpath", swapped)
    with pytest.raises(LaunchError, match="ELOOP"):
        program_copy.answer_program(_asked(tool), [store])
    assert _left(store) == []


def test_the_first_that_can_be_executed_is_taken_as_the_sandbox_would(store: int, tmp_path: Path) -> None:
    tool = _tool(tmp_path)
    plain = _tool(tmp_path, name="plain")
    plain.chmod(0o644)
    asked = _asked(tool, str(tmp_path / "nothing"), str(tmp_path), str(plain), str(tool))
    answer, (fd,) = program_copy.answer_program(asked, [store])
    os.close(fd)
    assert answer == {"path": str(tool)}
    with pytest.raises(NotFoundError):
        program_copy.answer_program(_asked(tool, str(plain)), [store])


def test_a_file_too_large_to_verify_is_refused(store: int, tmp_path: Path) -> None:
    tool = _tool(tmp_path)
    os.truncate(tool, program_copy.MAX_PROGRAM_BYTES + 1)
    with pytest.raises(RefusedError, match="are verified"):
        program_copy.answer_program(_asked(tool), [store])


@pytest.mark.parametrize("name", ["../x", "", "a/b", "x" * 65])
def test_an_id_that_is_no_name_is_refused(store: int, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="want letters"):
        program_copy.answer_program(_asked(_tool(tmp_path)) | {"id": name}, [store])


def test_what_a_hand_that_died_left_is_removed(store: int, tmp_path: Path) -> None:
    _answer, (fd,) = program_copy.answer_program(_asked(_tool(tmp_path)), [store])
    os.close(fd)
    program_copy.drop_all(store)
    assert _left(store) == []
