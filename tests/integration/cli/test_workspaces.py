"""Which folders can be a workspace: odd names and links work, places that must not be are refused by name."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.service import OTHER_OWNERS, OtherOwner, Service

GIT = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "PATH": "/usr/bin:/bin",
}

NAMES = {
    "spaces": b"a folder with  spaces ",
    "colons": b"C:\\work:area",
    "comma and equals": b"a,b=c,upperdir=x",
    "not UTF-8": b"raw\xff\xfename",
    "newline": b"two\nlines",
    "tab and quotes": b"a\tb'c\"d`e$(f)",
    "leading dash": b"-rf",
    "percent and backslash octal": b"100%\\040",
    "unicode": "größe-目录-🙂".encode(),
    "glob": b"*?[a]{b}",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_works(service: Service, workspace: Path, name: str) -> None:
    folder = os.path.join(os.fsencode(workspace), NAMES[name])
    os.mkdir(folder)
    with open(folder + b"/old", "w", encoding="utf-8") as file:
        file.write("old\n")
    command = ("sh", "-c", "pwd; cat old; echo new > old; echo made > made; mkdir d; echo x > d/file")
    result = service.run("run", "--", *command, cwd=folder)
    assert result.returncode == 0, result
    assert result.stdout == folder + b"\nold\n"
    assert sorted(os.listdir(folder)) == [b"old"]
    shown = service.run("diff", "--stat", cwd=folder)
    assert shown.returncode == 0
    assert b"made" in shown.stdout
    applied = service.run("apply", cwd=folder)
    assert applied.returncode == 0, applied
    assert sorted(os.listdir(folder)) == [b"d", b"made", b"old"]
    undone = service.run("undo", cwd=folder)
    assert undone.returncode == 0, undone
    assert sorted(os.listdir(folder)) == [b"old"]
    with open(folder + b"/old", encoding="utf-8") as file:
        assert file.read() == "old\n"


def test_direct_mode_takes_any_name_too(service: Service, workspace: Path) -> None:
    folder = os.path.join(os.fsencode(workspace), b"raw\xff: a,b\n")
    os.mkdir(folder)
    assert service.run("run", "--mode", "direct", "--", "touch", "made", cwd=folder).returncode == 0
    assert os.listdir(folder) == [b"made"]


def test_a_symlinked_workspace_is_the_folder_it_leads_to(service: Service, workspace: Path) -> None:
    link = workspace.parent / "link"
    link.symlink_to(workspace)
    result = service.run("run", "-C", str(link), "--", "sh", "-c", "pwd; touch made")
    assert (result.returncode, result.stdout) == (0, os.fsencode(workspace) + b"\n"), result
    assert service.session()["workspace"] == str(workspace)
    assert service.run("apply", cwd=link).returncode == 0
    assert os.listdir(workspace) == ["made"]


def test_a_symlinked_dotfile_of_the_profile_works(service: Service, workspace: Path) -> None:
    """Dotfiles are often links into a repository of their own."""
    # Root's real home is not ours to change: there the link is named by flag instead.
    home = service.folder("home") if service.is_system else Path(service.home)
    real = service.folder("dotfiles") / "gitconfig"
    real.write_text("[user]\n\tname = Someone\n", encoding="utf-8")
    link = home / ".gitconfig"
    link.symlink_to(real)
    flags = ("-r", str(link)) if service.is_system else ()
    result = service.run("run", *flags, "--", "cat", str(link), cwd=workspace)
    link.unlink()
    assert result.stdout == b"[user]\n\tname = Someone\n", result


def test_a_git_worktree_works(service: Service, workspace: Path) -> None:
    def git(*args: str, cwd: Path) -> str:
        return subprocess.run(["git", *args], cwd=cwd, env=GIT, check=True, capture_output=True, text=True).stdout

    main, tree = workspace / "main", workspace / "tree"
    main.mkdir()
    git("init", "-q", "-b", "main", cwd=main)
    git("commit", "-q", "--allow-empty", "-m", "first", cwd=main)
    git("worktree", "add", "-q", "-b", "side", str(tree), cwd=main)
    script = (
        "set -e; git status --short; echo x > file; git add file; git commit -q -m agent; git log --oneline | wc -l"
    )
    result = service.run("run", "--", "sh", "-c", script, cwd=tree, env={k: v for k, v in GIT.items() if k != "PATH"})
    assert result.returncode == 0, result
    assert result.stdout.strip() == b"2"
    assert git("log", "--oneline", "side", cwd=main).count("\n") == 1  # staged: not there yet
    applied = service.run("apply", cwd=tree)
    assert applied.returncode == 0, applied
    assert git("log", "-1", "--format=%s", "side", cwd=main) == "agent\n"
    assert git("status", "--short", cwd=tree) == ""
    git("fsck", "--strict", cwd=main)


REFUSED = ["/", "/etc", "/usr/local", "/tmp", "/home", "/proc", "/dev/shm", "/var", "/boot"]


@pytest.mark.parametrize("path", REFUSED)
@pytest.mark.parametrize("mode", ["staged", "direct"])
def test_system_directories_are_refused_by_name(service: Service, path: str, mode: str) -> None:
    result = service.run("run", "--mode", mode, "-C", path, "--", "true")
    assert result.returncode == 126, result
    assert f"deskwarden: {path}" in result.stderr.decode() or os.path.realpath(path) in result.stderr.decode()
    assert b"next: " in result.stderr


def test_the_whole_home_and_what_holds_it_are_refused(service: Service) -> None:
    for path in (service.home, os.path.dirname(service.home)):
        result = service.run("run", "-C", path, "--", "true")
        assert result.returncode == 126, result
        assert b"next: " in result.stderr


def test_a_secret_place_of_the_home_is_refused(service: Service) -> None:
    place = Path(service.home) / ".gnupg/deskwarden-test"
    existed = place.parent.exists()
    place.mkdir(parents=True)
    try:
        for path in (place, place.parent):
            result = service.run("run", "-C", str(path), "--", "true")
            assert result.returncode == 126, result
            assert b".gnupg" in result.stderr
    finally:
        place.rmdir()
        if not existed:
            place.parent.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's folder: needs root to make one")
def test_another_users_directory_is_refused(service: Service) -> None:
    one, other = (OtherOwner(service, name) for name in OTHER_OWNERS)
    theirs = other.folder()
    theirs.chmod(0o777)
    for result in (one.run("run", "--", "true", cwd=theirs), service.run("run", "--", "true", cwd=theirs)):
        assert result.returncode == 126, result
        assert b"another user" in result.stderr


def test_a_file_is_no_workspace(service: Service, workspace: Path) -> None:
    (workspace / "file").write_text("x", encoding="utf-8")
    result = service.run("run", "-C", str(workspace / "file"), "--", "true")
    assert result.returncode == 126, result
    assert b"not a directory" in result.stderr


def test_two_sessions_on_one_workspace_both_apply_and_the_second_meets_a_conflict(
    service: Service, workspace: Path
) -> None:
    (workspace / "shared").write_text("old\n", encoding="utf-8")
    ids = [
        service.start_session(
            "--", "sh", "-c", f"echo {name} > shared; echo x > only-{name}; exec sleep 60", cwd=workspace
        )
        for name in ("one", "two")
    ]
    for session in ids:
        service.run("kill", session)
    assert service.run("apply", ids[0], cwd=workspace).returncode == 0
    second = service.run("apply", ids[1], cwd=workspace)
    assert second.returncode == 1, second
    assert b"shared" in second.stdout
    assert (workspace / "shared").read_text() == "one\n"
    assert sorted(os.listdir(workspace)) == ["only-one", "only-two", "shared"]


@pytest.mark.parametrize("base", ["/var/tmp", "home"])
def test_folders_at_usual_places_work(service: Service, base: str) -> None:
    """/var/tmp is a link inside; a home is a tmpfs of the sandbox's own, with the workspace in it."""
    with tempfile.TemporaryDirectory(prefix="deskwarden-t-", dir=service.home if base == "home" else base) as folder:
        result = service.run("run", "--", "sh", "-c", "pwd; touch made", cwd=folder)
        assert (result.returncode, result.stdout) == (0, os.fsencode(folder) + b"\n"), result
        assert service.run("apply", cwd=folder).returncode == 0
        assert os.listdir(folder) == ["made"]
