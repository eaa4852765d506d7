from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.workspace.area import Area
from supervisor.workspace.bare_repository import BareRepositories, is_repository, obeying
from supervisor.workspace.change import Change
from tests.unit.workspace.versions import make_version

Ask = Callable[[Change], str]


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Area]:
    """Two plain directories stand for the trees: only their entries are looked at."""
    fds = []
    for name in ("lower", "upper", "merged"):
        (tmp_path / name).mkdir()
        fds.append(os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY))
    yield Area(*fds)
    for fd in fds:
        os.close(fd)


def _make(tmp_path: Path, tree: str, *names: str) -> None:
    for name in names:
        path = tmp_path / tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(("objects", "refs")):
            path.mkdir()
        else:
            path.write_bytes(b"")


def _added(path: bytes, **how: str) -> Change:
    return Change(path, "added", None, make_version("directory" if how else "file"))


OBEYED = [b"config", b"config.worktree", b"commondir", b"info/attributes", b"hooks/post-index-change", b"hooks"]


@pytest.mark.parametrize("directory", ["", "docs/fix/"])
@pytest.mark.parametrize("path", [*OBEYED, b"HEAD"])
def test_what_git_obeys_in_a_directory_that_becomes_a_repository_is_held(
    tmp_path: Path, area: Area, directory: str, path: bytes
) -> None:
    _make(tmp_path, "merged", *(directory + name for name in ("HEAD", "objects", "refs")))
    change = _added(directory.encode() + path)
    assert BareRepositories(area).why(change).startswith("runs later: ")


def test_the_rest_of_it_and_the_same_names_elsewhere_are_free(tmp_path: Path, area: Area) -> None:
    _make(tmp_path, "merged", "docs/fix/HEAD", "docs/fix/objects", "docs/fix/refs", "other/objects", "other/refs")
    one = BareRepositories(area)
    for path in (b"docs/fix/description", b"docs/fix/objects/ab/cd", b"docs/config", b"other/config", b"other/hooks/x"):
        assert one.why(_added(path)) == ""
    for path in (b"docs/fix/hooks", b"docs/fix/objects", b"docs/fix/refs"):
        assert one.why(_added(path, kind="directory")) == ""


def test_parts_count_from_either_tree(tmp_path: Path, area: Area) -> None:
    """The agent removes HEAD of a repository and adds a configuration; only the latter is applied."""
    _make(tmp_path, "lower", "x/HEAD", "x/objects", "x/refs")
    assert BareRepositories(area).why(_added(b"x/config"))


@pytest.mark.parametrize("last", [b"x/objects", b"x/refs"])
def test_the_folder_that_completes_a_repository_is_held(tmp_path: Path, area: Area, last: bytes) -> None:
    """HEAD and config alone are nothing, and were applied before."""
    _make(tmp_path, "lower", "x/HEAD", "x/config")
    _make(tmp_path, "merged", "x/HEAD", "x/config", "x/objects", "x/refs")
    assert BareRepositories(area).why(_added(last, kind="directory"))


def test_an_existing_repository_stays_workable(tmp_path: Path, area: Area) -> None:
    for tree in ("lower", "merged"):
        _make(tmp_path, tree, "x/HEAD", "x/objects", "x/refs")
    one = BareRepositories(area)
    assert one.why(Change(b"x/HEAD", "modified", make_version(), make_version())) == ""
    assert one.why(Change(b"x/config", "modified", make_version(), make_version()))


def test_in_a_directory_named_git_head_is_free(tmp_path: Path, area: Area) -> None:
    _make(tmp_path, "merged", "x/.git/HEAD", "x/.git/objects", "x/.git/refs")
    assert BareRepositories(area).why(_added(b"x/.git/HEAD")) == ""


def test_parts_may_be_symlinks(tmp_path: Path, area: Area) -> None:
    _make(tmp_path, "merged", "x/HEAD")
    for name in ("objects", "refs"):
        (tmp_path / "merged/x" / name).symlink_to("/nowhere")
    assert BareRepositories(area).why(_added(b"x/config"))


def test_a_commondir_stands_in_for_objects_and_refs(tmp_path: Path, area: Area) -> None:
    _make(tmp_path, "merged", "x/HEAD", "x/commondir")
    one = BareRepositories(area)
    assert one.why(_added(b"x/commondir"))
    assert one.why(_added(b"x/HEAD"))


def test_git_takes_the_same_directories_for_repositories(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "real")], check=True)
    contents = {"HEAD": "ref: refs/heads/main\n", "commondir": f"{tmp_path}/real\n"}
    for n, parts in enumerate(
        [("HEAD", "objects", "refs"), ("HEAD", "commondir"), ("HEAD", "objects"), ("objects", "refs"), ("HEAD", "refs")]
    ):
        path = tmp_path / str(n)
        path.mkdir()
        for name in parts:
            (path / name).write_text(contents[name]) if name in contents else (path / name).mkdir()
        found = subprocess.run(["git", "rev-parse", "--git-dir"], cwd=path, capture_output=True, check=False)
        assert (found.returncode == 0) == is_repository(frozenset(map(os.fsencode, parts))), parts


def test_a_path_may_belong_to_several_directories() -> None:
    assert list(obeying(b"a/hooks/config")) == [b"a", b"a/hooks"]
    assert list(obeying(b"hooks/b\n\xff")) == [b""]
    assert list(obeying(b"src/configs")) == []
