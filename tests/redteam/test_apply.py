"""Apply: what the agent left in the workspace cannot be turned against the owner or another user by applying it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from tests.service import Service

# struct posix_acl_xattr: version 2; user::rw-, user:4242:rwx, group::r--, mask::rwx, other::r--
FOREIGN_ACL = """
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in (
        (1, 6, 0xffffffff), (2, 7, UID), (4, 4, 0xffffffff), (16, 7, 0xffffffff), (32, 4, 0xffffffff)))
"""


def test_setuid_bits_are_dropped(service: Service, workspace: Path) -> None:
    (workspace / "old").write_text("x", encoding="utf-8")
    code = """
        write("new")
        modes = [attempt(os.chmod, name, 0o6755) for name in ("new", "old")]
        os.mkdir("dir")
        attempt(os.chmod, "dir", 0o7777)
        report([modes, oct(os.stat("new").st_mode)])
    """
    service.python(code, cwd=workspace)
    service.run("apply", "last", "new", "old", "dir", cwd=workspace)
    service.run("apply", "--held", cwd=workspace)
    for name in ("new", "old"):
        assert stat.S_IMODE((workspace / name).stat().st_mode) & 0o6000 == 0, name
        assert (workspace / name).stat().st_uid == os.geteuid()
    if (workspace / "dir").exists():
        assert (workspace / "dir").stat().st_mode & stat.S_ISUID == 0


def test_a_list_for_a_foreign_user_is_held(service: Service, workspace: Path) -> None:
    code = (
        FOREIGN_ACL
        + """
    write("file")
    report(attempt(os.setxattr, "file", "system.posix_acl_access", acl))
    """
    )
    uid = 4242
    answer = service.python(code, cwd=workspace, UID=uid)
    if answer == "OK":
        change = service.changes()["file"]
        assert change["held"] or change["refused"], change
    service.run("apply", cwd=workspace)
    path = workspace / "file"
    assert not path.exists() or "system.posix_acl_access" not in os.listxattr(path)


def test_overlay_marks_do_not_reach_the_disk(service: Service, workspace: Path) -> None:
    """`user.overlay.*` on a real folder would make the next overlay over it hide files."""
    (workspace / "dir").mkdir()
    (workspace / "dir/kept").write_text("x", encoding="utf-8")
    code = """
        write("file")
        os.mkdir("new")
        tried = {}
        for name in ("file", "dir", "new"):
            for key in MARKS:
                tried[f"{name} {key}"] = attempt(os.setxattr, name, key, b"y")
        attempt(os.setxattr, "file", "user.mine", b"kept")
        report([tried, os.listdir("dir")])
    """
    marks = [f"user.overlay.{name}" for name in ("opaque", "whiteout", "redirect")] + ["trusted.overlay.opaque"]
    tried, seen = service.python(code, cwd=workspace, MARKS=marks)
    assert all(result != "OK" for name, result in tried.items() if "trusted" in name), tried
    assert seen == ["kept"]
    service.run("apply", "--held", cwd=workspace)
    for path in (workspace, *workspace.rglob("*")):
        assert [name for name in os.listxattr(path) if "overlay" in name] == [], path
    assert (workspace / "dir/kept").exists()
    assert os.getxattr(workspace / "file", "user.mine") == b"kept"
    assert service.run("run", "--", "true", cwd=workspace).returncode == 0


def test_special_files_are_refused(service: Service, workspace: Path) -> None:
    code = """
        os.mkfifo("fifo")
        keep = socket.socket(socket.AF_UNIX)
        keep.bind("socket")
        report([attempt(os.mknod, "whiteout", stat.S_IFCHR | 0o600, 0), attempt(os.mknod, "disk", stat.S_IFBLK, 1)])
    """
    assert set(service.python(code, cwd=workspace)) <= {"EPERM", "EACCES"}
    changes = service.changes()
    assert changes["fifo"]["refused"]
    assert changes["socket"]["refused"]
    assert service.run("apply", "--held", cwd=workspace).returncode == 1
    assert list(workspace.iterdir()) == []


def test_a_planted_symlink_does_not_lead_apply_elsewhere(service: Service, workspace: Path, victim: Path) -> None:
    """CVE-2026-39861: the link is made inside, the write through it by something unconfined."""
    (workspace / "dir").mkdir()
    (workspace / "dir/secret").write_text("old\n", encoding="utf-8")
    code = """
        import shutil
        write("dir/secret", "planted")
        write("dir/new", "planted")
        os.symlink(VICTIM, "link")
        report(True)
    """
    service.python(code, cwd=workspace, VICTIM=str(victim))
    # Between run and apply the folder itself is swapped for a link to the victim's.
    (workspace / "dir").rename(workspace / "was")
    (workspace / "dir").symlink_to(victim.parent)
    service.run("apply", cwd=workspace)
    service.run("apply", "last", "dir/secret", "dir/new", "link", cwd=workspace)
    assert victim.read_text() == "the owner's secret\n"
    assert [path.name for path in victim.parent.iterdir()] == ["secret"]


def test_a_directory_replaced_by_a_symlink_is_never_written_through(
    service: Service, workspace: Path, victim: Path
) -> None:
    """Make a directory of the real disk a symlink and write through it: inside, at apply, in the next session."""
    (workspace / "dir").mkdir()
    (workspace / "dir/secret").write_text("old\n", encoding="utf-8")
    code = """
        import shutil
        shutil.rmtree("dir")
        os.symlink(PLACE, "dir")
        report([attempt(write, "dir/secret"), attempt(write, "dir/new"), attempt(os.listdir, "dir")])
    """
    assert set(service.python(code, cwd=workspace, PLACE=str(victim.parent))) == {"ENOENT"}
    assert service.run("apply", "--held", cwd=workspace).returncode in (0, 1)
    assert victim.read_text() == "the owner's secret\n"
    again = "report([attempt(write, 'dir/secret'), attempt(write, 'dir/new')])"
    service.python(again, cwd=workspace)
    service.run("apply", "--held", cwd=workspace)
    assert victim.read_text() == "the owner's secret\n"
    assert [path.name for path in victim.parent.iterdir()] == ["secret"]


def test_a_hard_link_does_not_tie_a_file_of_the_owner(service: Service, workspace: Path, victim: Path) -> None:
    """The lower file has a second name outside: writing inside must not change it, applying must not either."""
    os.link(victim, workspace / "linked")
    service.python("write('linked')\nreport(True)", cwd=workspace)
    assert victim.read_text() == "the owner's secret\n"
    service.run("apply", cwd=workspace)
    assert (workspace / "linked").read_text() == "planted by the agent"
    assert victim.read_text() == "the owner's secret\n"


def test_a_folder_with_leftovers_of_an_overlay_is_refused(service: Service, workspace: Path) -> None:
    (workspace / "dir").mkdir()
    os.setxattr(workspace / "dir", "user.overlay.opaque", b"y")
    result = service.run("run", "--", "true", cwd=workspace)
    assert result.returncode == 126, result
    assert b"user.overlay.opaque" in result.stderr


def test_names_that_lie_about_themselves_are_shown_escaped(service: Service, workspace: Path) -> None:
    code = """
        for name in ("a\\nb", "\\u202egnp.exe", "x" * 200, "tab\\tname", "..\\u2024/".replace("/", "")):
            write(name)
        write(b"raw\\xff\\xfe")
        report(True)
    """
    service.python(code, cwd=workspace)
    result = service.run("diff", "--stat", cwd=workspace)
    assert result.returncode == 0, result
    assert "\u202e".encode() not in result.stdout
    assert len(result.stdout.splitlines()) == 7
    applied = service.run("apply", cwd=workspace)
    assert applied.returncode == 0, applied
    assert os.path.exists(os.fsencode(workspace) + b"/raw\xff\xfe")
    assert os.path.exists(workspace / "a\nb")


def test_a_socket_of_the_owner_in_the_folder_survives(service: Service, workspace: Path) -> None:
    """It is not the agent's to delete for good, nor to answer on."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(workspace / "socket"))
        server.listen()
        service.python("os.unlink('socket')\nwrite('socket')\nreport(True)", cwd=workspace)
        assert stat.S_ISSOCK((workspace / "socket").lstat().st_mode)
        service.run("apply", cwd=workspace)
        assert stat.S_ISSOCK((workspace / "socket").lstat().st_mode)
