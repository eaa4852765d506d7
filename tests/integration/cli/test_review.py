"""Looking at what an agent changed, taking it, leaving it, taking it back: through the CLI, as a person does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service import Service, program, wait_until


@pytest.fixture
def folder(workspace: Path) -> Path:
    """A folder with a text, a binary, a link, a program and a directory."""
    (workspace / "text").write_text("one\ntwo\nthree\n", encoding="utf-8")
    (workspace / "binary").write_bytes(bytes(range(256)))
    (workspace / "link").symlink_to("text")
    (workspace / "tool").write_text("#!/bin/sh\n", encoding="utf-8")
    (workspace / "tool").chmod(0o755)
    (workspace / "dir").mkdir()
    (workspace / "dir/gone").write_text("gone\n", encoding="utf-8")
    return workspace


EVERYTHING = """
    write("text", "one\\n2\\nthree\\n")
    with open("binary", "r+b") as file:
        file.write(b"\\xff\\x00\\xff")
    os.unlink("link"); os.symlink("binary", "link")
    os.chmod("tool", 0o644)
    os.unlink("dir/gone"); os.rmdir("dir")
    os.makedirs("new/deep")
    write("new/deep/file", "made\\n")
    write(".envrc", "export X=1\\n")
    report(True)
"""


def _snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        body = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, body)
    return found


def test_diff_shows_every_kind_of_change(service: Service, folder: Path) -> None:
    service.python(EVERYTHING, cwd=folder)
    changes = service.changes()
    kinds = {path: change["kind"] for path, change in changes.items()}
    assert {"text", "binary", "link", "tool", "dir/gone", "new/deep/file", ".envrc"} <= kinds.keys()
    assert changes[".envrc"]["held"]
    stat = service.run("diff", "--stat", cwd=folder).stdout.decode()
    assert all(path in stat for path in ("text", "binary", "link", "dir/gone", "new/deep/file"))
    patch = service.run("diff", cwd=folder).stdout
    assert b"-two\n+2\n" in patch
    assert b"old mode 100755\nnew mode 100644" in patch
    assert b"deleted file mode" in patch
    held = service.run("diff", "--held", cwd=folder).stdout
    assert b"+export X=1" in held
    assert b"+2" not in held


def test_the_patch_is_one_that_git_takes(service: Service, folder: Path) -> None:
    code = """
        write("text", "one\\n2\\nthree\\n")
        write("dir/added", "no newline at the end")
        os.unlink("dir/gone")
        os.chmod("tool", 0o644)
        write("empty", "")
        write("a name with spaces", "x\\n")
        write("größe", "x\\n")
        report(True)
    """
    service.python(code, cwd=folder)
    copy = service.folder("copy")
    shutil.copytree(folder, copy / "tree", symlinks=True)
    patch = service.run("diff", cwd=folder).stdout
    result = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", "-"], cwd=copy / "tree", input=patch, capture_output=True, check=False
    )
    assert result.returncode == 0, (result.stderr, patch)
    assert service.run("apply", "--held", cwd=folder).returncode == 0
    assert _snapshot(copy / "tree") == _snapshot(folder)


def test_apply_takes_all_but_what_is_held(service: Service, folder: Path) -> None:
    service.python(EVERYTHING, cwd=folder)
    result = service.run("apply", cwd=folder)
    assert result.returncode == 1  # something was left: .envrc
    assert b".envrc" in result.stdout
    assert (folder / "text").read_text() == "one\n2\nthree\n"
    assert os.readlink(folder / "link") == "binary"
    assert not (folder / "dir").exists()
    assert (folder / "new/deep/file").read_text() == "made\n"
    assert not (folder / ".envrc").exists()
    assert service.run("apply", "last", ".envrc", cwd=folder).returncode == 0
    assert (folder / ".envrc").read_text() == "export X=1\n"
    assert service.changes() == {}
    assert not [name for name in os.listdir(folder) if name.startswith(".deskwarden")]


def test_undo_takes_all_of_it_back_and_redo_brings_it_again(service: Service, folder: Path) -> None:
    before = _snapshot(folder)
    service.python(EVERYTHING, cwd=folder)
    service.run("apply", "--held", cwd=folder)
    after = _snapshot(folder)
    assert after != before
    undone = service.run("undo", cwd=folder)
    assert undone.returncode == 0, undone
    assert _snapshot(folder) == before
    steps = service.json("undo", "--list")
    assert steps[-1]["undoes"] == steps[-2]["step"]
    redone = service.run("undo", "--step", str(steps[-1]["step"]), cwd=folder)
    assert redone.returncode == 0, redone
    assert _snapshot(folder) == after


def test_apply_and_undo_by_path_leave_the_rest(service: Service, folder: Path) -> None:
    service.python(EVERYTHING, cwd=folder)
    assert service.run("apply", "last", "text", "new", cwd=folder).returncode == 0
    assert (folder / "text").read_text() == "one\n2\nthree\n"
    assert (folder / "new/deep/file").exists()
    assert (folder / "dir/gone").exists()
    assert service.run("undo", "text", cwd=folder).returncode == 0
    assert (folder / "text").read_text() == "one\ntwo\nthree\n"
    assert (folder / "new/deep/file").exists()


def test_discard_takes_changes_off_the_list(service: Service, folder: Path) -> None:
    before = _snapshot(folder)
    service.python(EVERYTHING, cwd=folder)
    assert service.run("discard", "last", "text", cwd=folder).returncode == 0
    assert "text" not in service.changes()
    assert "binary" in service.changes()
    assert service.run("discard", cwd=folder).returncode == 0
    assert service.changes() == {}
    assert service.run("apply", cwd=folder).returncode == 0
    assert _snapshot(folder) == before


def test_what_the_host_changed_meanwhile_is_a_conflict_and_stays(service: Service, folder: Path) -> None:
    code = """
        write("text", "the agent's\\n")
        write("both-new", "the agent's\\n")
        os.unlink("tool")
        write("fine", "the agent's\\n")
        report(True)
    """
    session = service.start_session("--", "sh", "-c", "exec sleep 60", cwd=folder)
    try:
        assert service.run("exec", session, "--", *program(code)).returncode == 0
        (folder / "text").write_text("the owner's\n", encoding="utf-8")
        (folder / "both-new").write_text("the owner's\n", encoding="utf-8")
        (folder / "tool").write_text("the owner's\n", encoding="utf-8")
    finally:
        service.run("kill", session)
    conflicts = {path for path, change in service.changes(session).items() if change["conflict"]}
    assert conflicts == {"text", "both-new", "tool"}
    result = service.run("apply", session, cwd=folder)
    assert result.returncode == 1
    assert b"changed on your disk" in result.stdout
    for name in ("text", "both-new", "tool"):
        assert (folder / name).read_text() == "the owner's\n"
    assert (folder / "fine").read_text() == "the agent's\n"
    named = service.run("apply", session, "text", cwd=folder)
    assert named.returncode == 1
    assert (folder / "text").read_text() == "the owner's\n"


def test_a_file_that_the_host_deleted_meanwhile_is_a_conflict_too(service: Service, folder: Path) -> None:
    session = service.start_session("--", "sh", "-c", "echo agent > text; exec sleep 60", cwd=folder)
    try:
        wait_until("the agent wrote", lambda: "text" in service.changes(session))
        (folder / "text").unlink()
    finally:
        service.run("kill", session)
    assert service.changes(session)["text"]["conflict"]
    assert service.run("apply", session, cwd=folder).returncode == 1
    assert not (folder / "text").exists()


def test_undo_does_not_overwrite_what_was_edited_since(service: Service, folder: Path) -> None:
    service.python("write('text', 'x')\nwrite('fine', 'x')\nreport(True)", cwd=folder)
    assert service.run("apply", cwd=folder).returncode == 0
    (folder / "text").write_text("the owner's, later\n", encoding="utf-8")
    result = service.run("undo", cwd=folder)
    assert result.returncode == 1, result
    assert b"text" in result.stdout
    assert (folder / "text").read_text() == "the owner's, later\n"
    assert not (folder / "fine").exists()


def test_a_question_about_held_files_is_asked_on_the_owners_terminal_only(service: Service, folder: Path) -> None:
    service.python(EVERYTHING, cwd=folder)
    terminal = service.pty_run("apply", cwd=folder)
    terminal.wait_for(b".envrc")
    terminal.wait_for(b"Apply them too? [y/N] ")
    terminal.send(b"n\r")
    assert terminal.wait_exit() == 1
    assert not (folder / ".envrc").exists()
    terminal = service.pty_run("apply", cwd=folder)
    terminal.wait_for(b"Apply them too? [y/N] ")
    terminal.send(b"y\r")
    assert terminal.wait_exit() == 0
    assert (folder / ".envrc").exists()


def test_paths_outside_the_session_are_an_error(service: Service, folder: Path) -> None:
    service.python(EVERYTHING, cwd=folder)
    result = service.run("apply", "last", "/etc/passwd", cwd=folder)
    assert result.returncode == 125
    assert b"outside of" in result.stderr


def test_json_carries_results_and_conflicts(service: Service, folder: Path) -> None:
    service.python(EVERYTHING, cwd=folder)
    result = service.run("apply", "--json", cwd=folder)
    (area,) = json.loads(result.stdout)
    assert area["area"] == str(folder)
    assert {change["path"] for change in area["applied"]} >= {"text", "binary"}
    assert [change["path"] for change in area["held"]] == [".envrc"]
    assert json.loads(service.run("undo", "--json", cwd=folder).stdout)["undone"] == area["step"]


def test_a_session_without_changes_says_so(service: Service, folder: Path) -> None:
    service.run("run", "--", "true", cwd=folder)
    assert b"no changes" in service.run("diff", cwd=folder).stderr
    assert b"nothing to apply" in service.run("apply", cwd=folder).stdout
