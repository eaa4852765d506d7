from __future__ import annotations

import pytest

from supervisor.workspace.change import Change
from supervisor.workspace.runs_later import RunsLater
from supervisor.workspace.verdict import Landing, judge
from supervisor.workspace.version import Type, Version
from tests.unit.workspace.versions import make_version


@pytest.mark.parametrize(
    ("old_mode", "new_mode", "is_held"),
    [
        (0o644, 0o755, False),  # who may read may run
        (0o600, 0o640, True),
        (0o640, 0o644, True),
        (0o600, 0o711, True),
        (0o644, 0o664, True),
        (0o755, 0o700, False),
        (None, 0o644, False),
        (None, 0o755, False),
        (None, 0o664, True),
        (None, 0o666, True),
    ],
)
def test_a_mode_that_opens_a_file_to_others_is_held(old_mode: int | None, new_mode: int, is_held: bool) -> None:
    old = None if old_mode is None else make_version(mode=old_mode)
    change = Change(b"f", "added" if old is None else "modified", old, make_version(mode=new_mode))
    assert bool(judge(change, RunsLater(), Landing(0o755)).held) == is_held


def test_group_writing_is_the_custom_in_a_group_writable_folder() -> None:
    change = Change(b"f", "added", None, make_version(mode=0o664))
    assert not judge(change, RunsLater(), Landing(0o775)).held


@pytest.mark.parametrize(
    ("path", "is_held"),
    [(b"pkg/__pycache__/m.cpython-311.pyc", True), (b"old.pyo", True), (b"pkg/m.py", False), (b"pyc", False)],
)
def test_bytecode_that_could_run_in_place_of_its_source_is_held(path: bytes, is_held: bool) -> None:
    version = make_version(mode=0o644)
    assert bool(judge(Change(path, "added", None, version), RunsLater(), Landing(0o755)).held) == is_held
    assert not judge(Change(path, "deleted", version, None), RunsLater(), Landing(0o755)).held


PRIVATE = 1000


@pytest.mark.parametrize(
    ("gid", "old", "new_mode", "is_held"),
    [
        (PRIVATE, None, 0o664, False),
        (PRIVATE, None, 0o775, False),
        (PRIVATE, None, 0o666, True),  # others are no group
        (PRIVATE, (0o644, PRIVATE), 0o664, False),
        (PRIVATE, (0o600, PRIVATE), 0o660, False),
        (PRIVATE, (0o600, PRIVATE), 0o644, True),
        (50, None, 0o664, True),
        (PRIVATE, (0o644, 50), 0o664, True),  # the group of what it replaces is kept
        (50, (0o644, PRIVATE), 0o664, False),
    ],
)
def test_a_group_of_the_owner_alone_opens_nothing(
    gid: int, old: tuple[int, int] | None, new_mode: int, is_held: bool
) -> None:
    before = make_version(mode=old[0], gid=old[1]) if old else None
    change = Change(b"f", "modified" if old else "added", before, make_version(mode=new_mode, gid=gid))
    assert bool(judge(change, RunsLater(), Landing(0o755, 50, PRIVATE)).held) == is_held


def test_a_setgid_folder_of_another_group_takes_the_private_group_away() -> None:
    change = Change(b"f", "added", None, make_version(mode=0o664, gid=PRIVATE))
    assert judge(change, RunsLater(), Landing(0o2755, 50, PRIVATE)).held
    assert not judge(change, RunsLater(), Landing(0o2755, PRIVATE, PRIVATE)).held


def test_without_a_private_group_none_is_taken_for_one() -> None:
    change = Change(b"f", "added", None, make_version(mode=0o664, gid=-1))
    assert judge(change, RunsLater(), Landing(0o755)).held


@pytest.mark.parametrize("kind", ["FIFO", "socket", "character device", "block device"])
def test_special_files_are_refused_on_either_side(kind: Type) -> None:
    special = make_version(kind)
    assert judge(Change(b"f", "added", None, special), RunsLater(), Landing(0o755)).refused
    assert judge(Change(b"f", "deleted", special, None), RunsLater(), Landing(0o755)).refused


def test_a_change_of_which_nothing_would_be_left_is_refused() -> None:
    setuid = Change(b"f", "mode", make_version(mode=0o755), make_version(mode=0o4755))
    assert "setuid" in judge(setuid, RunsLater(), Landing(0o755)).refused
    owner = Change(b"f", "metadata", make_version(), make_version(uid=0))
    assert "owner" in judge(owner, RunsLater(), Landing(0o755)).refused


def test_a_rename_out_of_a_watched_name_is_held_too() -> None:
    change = Change(b"plain", "renamed", make_version(), make_version(), b".envrc")
    assert judge(change, RunsLater(), Landing(0o755)).held


def test_an_acl_is_held_unless_it_was_there() -> None:
    acl = (("system.posix_acl_access", b"x"),)
    new = make_version().with_xattrs(acl)
    assert judge(Change(b"f", "modified", make_version(), new), RunsLater(), Landing(0o755)).held
    assert not judge(Change(b"f", "modified", make_version().with_xattrs(acl), new), RunsLater(), Landing(0o755)).held


@pytest.mark.parametrize("before", [None, make_version("symlink", target=b"x"), make_version("directory")])
def test_a_symlink_where_a_rule_names_a_directory_is_held(before: Version | None) -> None:
    link = make_version("symlink", target=b"vsc")
    change = Change(b".vscode", "added" if before is None else "modified", before, link)
    assert judge(change, RunsLater(), Landing(0o755)).held


def test_a_symlink_taken_from_where_a_rule_names_a_directory_is_held() -> None:
    link = make_version("symlink", target=b"vsc")
    changes = [
        Change(b".vscode", "deleted", link, None),
        Change(b"vsc2", "renamed", link, link, b".vscode"),
        Change(b".vscode", "type", link, make_version("directory", mode=0o755)),
    ]
    assert [change for change in changes if not judge(change, RunsLater(), Landing(0o755)).held] == []


@pytest.mark.parametrize(
    "path", [b".git/hooks/pre-commit", b".git/config", b"a/conftest.py", b".envrc", b"package.json"]
)
def test_a_deletion_of_what_runs_later_is_held_like_an_edit(path: bytes) -> None:
    assert judge(Change(path, "deleted", make_version(), None), RunsLater(), Landing(0o755)).held


def test_a_plain_file_or_directory_of_that_name_is_free() -> None:
    for version in (make_version(), make_version("directory", mode=0o755)):
        assert not judge(Change(b".vscode", "added", None, version), RunsLater(), Landing(0o755)).held


def test_where_it_lies_holds_a_change_that_its_name_does_not() -> None:
    change = Change(b"docs/config", "added", None, make_version())
    assert judge(change, RunsLater(), Landing(0o755), "of a repository").held == "of a repository"
    assert not judge(change, RunsLater(), Landing(0o755)).held
