"""What mode `direct` protects is found on a real folder, within bounds, and what is not protected is named."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path

import pytest

from supervisor.workspace.protection import Protection, find_protection
from supervisor.workspace.runs_later import RunsLater


def _make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x", encoding="utf-8")


def _find(root: Path, named: Iterable[bytes] = (), **bounds: int) -> Protection:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return find_protection(fd, RunsLater(), named, **bounds)
    finally:
        os.close(fd)


def _protected(found: Protection) -> set[bytes]:
    return {path for path, purpose in found.mounts.items() if purpose == "protected"}


def test_names_that_run_later_are_found_in_every_subfolder(tmp_path: Path) -> None:
    _make(tmp_path, "conftest.py", "a/conftest.py", "a/b/c/package.json", "a/b/.envrc", "a/b/main.py", ".mcp.json")
    found = _find(tmp_path)
    assert _protected(found) == {b"conftest.py", b"a/conftest.py", b"a/b/c/package.json", b"a/b/.envrc", b".mcp.json"}
    assert found.mounts[b"a"] == found.mounts[b"a/b"] == found.mounts[b"a/b/c"] == "pinned"
    assert list(found.notes("/w")) == []


@pytest.mark.parametrize("repository", [".git", "vendor/lib/.git"])
def test_of_a_repository_what_git_obeys_is_protected_and_work_goes_on(tmp_path: Path, repository: str) -> None:
    parts = ("config", "commondir", "config.worktree", "hooks/x.sample", "modules/m/config", "modules/m/hooks/pre-push")
    work = ("HEAD", "index", "objects/ab/cdef", "refs/heads/main", "logs/HEAD", "info/exclude")
    _make(tmp_path, *(f"{repository}/{part}" for part in parts + work), f"{repository}/objects/info/alternates")
    found = _find(tmp_path)
    names = {path.removeprefix(repository.encode() + b"/") for path in _protected(found)}
    config = {b"config", b"commondir", b"config.worktree", b"objects/info/alternates"}
    assert names == config | {b"hooks", b"info", b"modules/m/config", b"modules/m/hooks"}
    assert found.mounts[repository.encode()] == "pinned"


def test_a_git_file_is_protected(tmp_path: Path) -> None:
    _make(tmp_path, "sub/.git")
    assert _protected(_find(tmp_path)) == {b"sub/.git"}


def test_a_bare_repository_of_any_name_is_known_by_its_shape(tmp_path: Path) -> None:
    _make(tmp_path, *(f"docs/{part}" for part in ("HEAD", "objects/", "refs/", "config", "hooks/update")))
    _make(tmp_path, "plain/config", "plain/hooks/update")
    assert _protected(_find(tmp_path)) == {b"docs/config", b"docs/hooks"}


def test_a_tree_is_one_mount(tmp_path: Path) -> None:
    _make(tmp_path, *(f".github/workflows/{n}.yml" for n in range(20)), *(f".venv/bin/{n}" for n in range(20)))
    assert _protected(_find(tmp_path)) == {b".github/workflows", b".venv/bin"}


def test_names_that_a_profile_adds_are_protected_where_they_exist(tmp_path: Path) -> None:
    _make(tmp_path, "deploy/run.sh", "deploy/in/x", "notes")
    assert _protected(_find(tmp_path, [b"deploy", b"notes", b"absent"])) == {b"deploy", b"notes"}


@pytest.mark.parametrize("agent", [".claude", ".codex", ".cursor"])
def test_an_agents_worktrees_stay_workable_and_are_searched(tmp_path: Path, agent: str) -> None:
    _make(tmp_path, f"{agent}/settings.json", f"{agent}/worktrees/one/src/main.py", f"{agent}/worktrees/one/.envrc")
    found = _find(tmp_path, [agent.encode()])
    assert _protected(found) == {agent.encode(), f"{agent}/worktrees/one/.envrc".encode()}
    assert found.mounts[f"{agent}/worktrees".encode()] == "pinned"
    assert list(found.mounts).index(agent.encode()) < list(found.mounts).index(f"{agent}/worktrees".encode())


def test_too_many_names_are_cut_at_the_bound_and_named_the_nearest_kept(tmp_path: Path) -> None:
    _make(tmp_path, *(f"node_modules/m{n}/package.json" for n in range(50)), "package.json", "web/app/package.json")
    found = _find(tmp_path, mounts=10)
    assert len(found.mounts) <= 10
    assert {b"package.json", b"web/app/package.json"} <= _protected(found)
    assert len(found.left_out) == 52 - len(_protected(found))
    [note] = found.notes("/w")
    assert "/w/node_modules/m" in note
    assert f"and {len(found.left_out) - 5} more" in note


def test_a_walk_that_ends_early_says_where(tmp_path: Path) -> None:
    _make(tmp_path, *(f"a/{n}" for n in range(50)), "a/deep/conftest.py", ".envrc")
    found = _find(tmp_path, entries=20)
    assert _protected(found) == {b".envrc"}
    assert found.unseen == [b"a/deep"]


def test_links_are_named_and_not_followed(tmp_path: Path) -> None:
    _make(tmp_path, "scripts/env", "vsc/tasks.json", "x/conftest.py")
    (tmp_path / ".envrc").symlink_to("scripts/env")
    (tmp_path / ".vscode").symlink_to("vsc")
    (tmp_path / "docs").symlink_to("x")
    os.link(tmp_path / "x/conftest.py", tmp_path / "x/other.py")
    found = _find(tmp_path)
    assert sorted(found.links) == [b".envrc", b".vscode"]
    assert found.linked == [b"x/conftest.py"]
    assert len(list(found.notes("/w"))) == 2


def test_names_of_any_bytes_are_found(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/n\xff\nl")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff\nl/.envrc")).write_text("x", encoding="utf-8")
    assert _protected(_find(tmp_path)) == {b"n\xff\nl/.envrc"}


def test_a_directory_deeper_than_a_path_can_name_is_named(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=fd)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert _find(tmp_path).unseen == [b"/".join([b"d" * 200] * 21)]


def test_a_wide_folder_needs_no_descriptor_for_each_subfolder(tmp_path: Path) -> None:
    _make(tmp_path, *(f"d{n}/.envrc" for n in range(600)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        found = _find(tmp_path, mounts=2000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(_protected(found)) == 600
