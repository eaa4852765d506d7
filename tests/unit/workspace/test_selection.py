from __future__ import annotations

import pytest

from supervisor.errors import UsageError
from supervisor.workspace.change import Change
from supervisor.workspace.selection import select
from tests.unit.workspace.versions import make_version

FILE, FOLDER = make_version(), make_version("directory", 0o755)


def added(path: bytes, **marks: str) -> Change:
    return Change(path, "added", new=FILE, **marks)


def paths(changes: list[Change]) -> list[bytes]:
    return [change.path for change in changes]


def test_nothing_named_means_everything_but_what_is_held_refused_or_in_conflict() -> None:
    changes = [added(b"a"), added(b"b", held="h"), added(b"c", conflict="c"), added(b"d", refused="r")]
    found = select(changes)
    assert [paths(part) for part in (found.chosen, found.held, found.conflicts, found.refused)] == [
        [b"a"],
        [b"b"],
        [b"c"],
        [b"d"],
    ]


def test_a_held_change_needs_its_own_name_or_a_confirmation() -> None:
    changes = [added(b"d/held", held="h"), added(b"d/free")]
    assert paths(select(changes, [b"d"]).chosen) == [b"d/free"]
    assert paths(select(changes, [b"d/held"]).chosen) == [b"d/held"]
    assert paths(select(changes, [b"d/"], confirm_held=True).chosen) == [b"d/free", b"d/held"]


def test_a_conflict_is_never_chosen_however_it_is_named() -> None:
    assert select([added(b"a", conflict="c")], [b"a"], confirm_held=True).chosen == []


def test_a_path_that_names_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="no change at 'x'"):
        select([added(b"a")], [b"x"])


def test_a_file_in_a_held_folder_says_what_it_depends_on() -> None:
    changes = [Change(b"d", "added", new=FOLDER, held="open"), added(b"d/f")]
    found = select(changes)
    assert found.chosen == []
    assert [change.conflict for change in found.conflicts] == ["depends on the folder 'd', which is not applied"]
    assert paths(select(changes, [b"d", b"d/f"]).chosen) == [b"d", b"d/f"]


def test_a_folder_stays_while_something_in_it_stays() -> None:
    changes = [
        Change(b"d", "deleted", old=FOLDER),
        Change(b"d/e", "deleted", old=FOLDER),
        Change(b"d/e/f", "deleted", old=FILE, conflict="host"),
        Change(b"d/g", "deleted", old=FILE),
    ]
    found = select(changes)
    assert paths(found.chosen) == [b"d/g"]
    assert {change.path: change.conflict.split(",")[0] for change in found.conflicts} == {
        b"d": "depends on 'd/e/f'",
        b"d/e": "depends on 'd/e/f'",
        b"d/e/f": "host",
    }


def test_a_rename_is_named_by_either_name() -> None:
    change = Change(b"new/x", "renamed", FILE, FILE, b"old/x")
    assert paths(select([change], [b"old"]).chosen) == paths(select([change], [b"new/x"]).chosen) == [b"new/x"]
