"""Mounts: nothing that was not handed in can be seen, reached by another name, or mounted."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.service import OTHER_OWNERS, OtherOwner, Service, outside, program

MOUNT_CALLS = """
    path = b"/tmp/x"
    os.makedirs(path, exist_ok=True)
    report({
        "setns": syscall("setns", os.open("/proc/self/ns/mnt", os.O_RDONLY), 0),
        "mount": syscall("mount", b"none", path, b"tmpfs", 0, 0),
        "bind": syscall("mount", b"/usr", path, b"", 4096, 0),
        "remount": syscall("mount", b"none", b"/usr", b"", 32 | 4096, 0),
        "umount": syscall("umount2", b"/proc", 2),
        "pivot_root": syscall("pivot_root", b"/", b"/"),
        "chroot": syscall("chroot", b"/"),
        "fsopen": syscall("fsopen", b"tmpfs", 0),
        "fsconfig": syscall("fsconfig", -1, 6, 0, 0, 0),
        "fsmount": syscall("fsmount", -1, 0, 0),
        "fspick": syscall("fspick", -100, b"/usr", 0),
        "open_tree": syscall("open_tree", -100, b"/usr", 1),
        "move_mount": syscall("move_mount", -1, b"", -100, b"/mnt", 4),
        "mount_setattr": syscall("mount_setattr", -100, b"/usr", 0, bytes(32), 32),
        "open_by_handle_at": syscall("open_by_handle_at", -100, bytes(16), 0),
    })
"""


def test_every_mount_call_is_refused(service: Service, workspace: Path) -> None:
    inside = service.python(MOUNT_CALLS, cwd=workspace)
    assert set(inside.values()) == {"EPERM"}, inside
    unconfined = outside(MOUNT_CALLS, own_mounts=True)
    assert "EPERM" not in {
        unconfined[name] for name in ("mount", "bind", "fsopen", "fspick", "open_tree", "move_mount")
    }


@pytest.mark.parametrize("flags", ["NEWUSER", "NEWUSER|NEWNS", "NEWNS", "NEWPID", "NEWNET", "NEWTIME"])
def test_no_namespace_can_be_made(service: Service, workspace: Path, flags: str) -> None:
    bits = {"NEWNS": 0x20000, "NEWUSER": 0x10000000, "NEWPID": 0x20000000, "NEWNET": 0x40000000, "NEWTIME": 0x80}
    value = 0
    for flag in flags.split("|"):
        value |= bits[flag]
    code = f"""
        made = [syscall("unshare", {value}), syscall("unshare", {value} | 1 << 40)]
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        report(made + [syscall("clone3", 0, 0)])
    """
    assert service.python(code, cwd=workspace) == ["EPERM", "EPERM", "ENOSYS"]
    assert outside(code, own_mounts=True)[0] == "OK"


def test_clone_with_a_namespace_flag_is_refused(service: Service, workspace: Path) -> None:
    """Flags in the high half must not hide the ones in the low half."""
    code = """
        number = 56 if platform.machine() == "x86_64" else 220
        report([syscall(number, flag | 17, 0, 0, 0, 0) for flag in
                (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x10000000 | 1 << 40)])
    """
    assert service.python(code, cwd=workspace) == ["EPERM"] * 5


def test_flatpak_info_cannot_be_faked(service: Service, workspace: Path) -> None:
    code = """
        report([attempt(write, "/.flatpak-info"), attempt(os.mkdir, "/.x"), attempt(os.rename, "/etc", "/etc2"),
                attempt(os.symlink, "/tmp", "/oldroot")])
    """
    assert set(service.python(code, cwd=workspace)) <= {"EROFS", "EACCES"}


def test_system_directories_are_read_only(service: Service, workspace: Path) -> None:
    code = """
        names = ["/usr/bin/planted", "/etc/planted", "/etc/passwd", "/etc/ld.so.cache", "/proc/sys/kernel/core_pattern",
                 "/proc/sys/vm/drop_caches", "/dev/planted", "/run/planted", "/opt/planted"]
        trigger = "/proc/sysrq-trigger"
        is_masked = not os.path.exists(trigger) or os.stat(trigger).st_rdev == os.makedev(1, 3)
        report([is_masked, {name: attempt(write, name) for name in names if os.path.isdir(os.path.dirname(name))}])
    """
    is_masked, refused = service.python(code, cwd=workspace)
    assert is_masked  # by /dev/null, where the kernel has it: writing there succeeds and reaches nothing
    assert {name: result for name, result in refused.items() if result not in ("EROFS", "EACCES", "ENOENT")} == {}
    assert not os.path.exists("/usr/bin/planted")


def test_other_files_of_the_owner_are_not_there(service: Service, workspace: Path, victim: Path) -> None:
    code = f"""
        report([attempt(read, {str(victim)!r}), attempt(os.listdir, {str(victim.parent)!r}),
                attempt(write, {str(victim.parent / "new")!r}), os.listdir({str(Path(service.base))!r})])
    """
    seen = service.python(code, cwd=workspace)
    assert seen[:3] == ["ENOENT"] * 3
    assert set(seen[3]) <= {workspace.parent.name, "home"}
    assert list(victim.parent.iterdir()) == [victim]
    assert outside(code, cwd=workspace)[0] == "OK"


ALIASES = [
    "/proc/self/root{}",
    "/proc/1/root{}",
    "/proc/self/cwd/../../../../../../../..{}",
    "/proc/thread-self/root{}",
    "/dev/fd/../root{}",
    "/tmp/../..{}",
]


@pytest.mark.parametrize("alias", ALIASES)
def test_another_name_of_a_path_opens_no_more_than_its_own(
    service: Service, workspace: Path, victim: Path, alias: str
) -> None:
    stub = f"{service.home}/.ssh"
    code = f"""
        report([attempt(read, {alias.format(victim)!r}), attempt(os.listdir, {alias.format(stub)!r}),
                attempt(os.listdir, {stub!r}), attempt(write, {alias.format("/usr/planted")!r})])
    """
    by_alias, stub_by_alias, by_name, written = service.python(code, cwd=workspace)
    assert by_alias in ("ENOENT", "EACCES")
    assert (stub_by_alias, by_name) == ("EACCES", "EACCES")
    assert written in ("EROFS", "EACCES")


def test_a_symlink_leads_to_the_sandboxs_own_tree_only(service: Service, workspace: Path, victim: Path) -> None:
    """One that was there before, one made inside, and one over the old root."""
    (workspace / "before").symlink_to(victim)
    code = f"""
        os.symlink({str(victim)!r}, "made")
        os.symlink("../../../../../../../../.." + {str(victim)!r}, "up")
        names = ["before", "made", "up", "/oldroot" + {str(victim)!r}]
        report([attempt(read, name) for name in names] + [attempt(write, name) for name in names])
    """
    assert set(service.python(code, cwd=workspace)) <= {"ENOENT", "EROFS", "EACCES"}
    assert victim.read_text() == "the owner's secret\n"


def test_an_ask_area_is_a_stub_that_refuses_at_once(service: Service, workspace: Path) -> None:
    code = """
        home = os.path.expanduser("~")
        start = time.monotonic()
        tried = []
        for name in (".ssh", ".aws", ".gnupg", ".config/gcloud", ".mozilla"):
            area = f"{home}/{name}"
            tried += [attempt(os.listdir, area), attempt(read, f"{area}/id_rsa"), attempt(write, f"{area}/config")]
        report([sorted(set(tried)), time.monotonic() - start < 1])
    """
    assert service.python(code, cwd=workspace) == [["EACCES"], True]


def test_the_stub_cannot_be_swapped_for_a_trap(service: Service, workspace: Path) -> None:
    """The agent owns its home: whatever it does to the stub's name there never reaches the real ~/.ssh."""
    real = Path(service.home) / ".ssh"
    before = sorted(os.listdir(real)) if real.exists() else None
    code = """
        stub = os.path.expanduser("~/.ssh")
        attempt(os.chmod, stub, 0o700)
        attempt(os.rename, stub, stub + ".gone")
        attempt(os.mkdir, stub)
        report(attempt(write, stub + "/authorized_keys"))
    """
    service.python(code, cwd=workspace)
    assert (sorted(os.listdir(real)) if real.exists() else None) == before


def test_no_capability_is_left(service: Service, workspace: Path) -> None:
    code = """
        me, init = status(), status(1)
        names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        report([[int(one[name], 16) for name in names] for one in (me, init)]
               + [me["NoNewPrivs"], me["Seccomp"], me["Uid"].split()[0]])
    """
    me, init, no_new_privs, seccomp, uid = service.python(code, cwd=workspace)
    assert me == init == [0] * 5
    assert (no_new_privs, seccomp) == ("1", "2")
    assert int(uid) != 0
    assert any(outside(code, cwd=workspace)[0])


def test_a_setuid_program_gives_nothing(service: Service, workspace: Path) -> None:
    code = """
        programs = [path for path in ("/usr/bin/su", "/usr/bin/passwd", "/usr/bin/mount") if os.path.exists(path)]
        child = subprocess.run(["/usr/bin/cat", "/proc/self/status"], capture_output=True, text=True)
        mounts = read("/proc/self/mountinfo").splitlines()
        report([bool(programs), os.geteuid(), [line for line in mounts if "nosuid" not in line.split(" - ")[0]]])
    """
    found, uid, without_nosuid = service.python(code, cwd=workspace)
    assert found
    assert uid != 0
    assert without_nosuid == []


def test_the_staging_area_is_out_of_reach(service: Service, workspace: Path) -> None:
    """CVE-2021-26910 was an overlay whose upper layer the attacker could write."""
    code = """
        line = next(line for line in read("/proc/self/mountinfo").splitlines() if os.getcwd() in line)
        options = dict(item.partition("=")[::2] for item in line.split(" - ")[1].split()[2].split(","))
        report([options["upperdir"], attempt(os.listdir, options["upperdir"]), attempt(os.listdir, STATE)])
    """
    upper, listed, state = service.python(code, cwd=workspace, STATE=service.state)
    assert listed in ("ENOENT", "ENOTDIR", "EACCES"), upper
    assert state == "ENOENT"
    assert os.stat(f"{service.state}/stores").st_mode & 0o077 == 0


def test_a_parent_swapped_for_a_symlink_during_set_up_shows_nothing(
    service: Service, workspace: Path, victim: Path
) -> None:
    """CVE-2026-87766: the parent of a mount point becomes a symlink to elsewhere while the sandbox is being built."""
    real, parent = workspace / "real", workspace / "parent"
    (real / "inner").mkdir(parents=True)
    parent.symlink_to("real")
    evil = workspace / "evil"
    evil.symlink_to(victim.parent)
    (victim.parent / "inner").mkdir()
    (victim.parent / "inner/secret").write_text("the owner's secret\n", encoding="utf-8")
    stop = threading.Event()

    def swap() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            link = workspace / f"next{number}"
            link.symlink_to(("real", victim.parent)[number % 2])
            link.rename(parent)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        ended = [
            service.run(
                "run", "-r", "real/inner", "--", "sh", "-c", f"cat parent/inner/secret; cat {victim}", cwd=workspace
            )
            for _ in range(15)
        ]
    finally:
        stop.set()
        swapper.join()
    for result in ended:
        assert b"the owner's secret" not in result.stdout, result
    assert (victim.parent / "inner/secret").read_text() == "the owner's secret\n"


def test_a_grant_through_a_swapped_parent_is_the_checked_directory_or_nothing(
    service: Service, workspace: Path, victim: Path
) -> None:
    """A path of the command line that changes between check and mount: either the one or the other, never a mixture."""
    granted = service.folder("granted")
    (granted / "inner").mkdir()
    (granted / "inner/which").write_text("granted\n", encoding="utf-8")
    parent = granted.parent / "parent"
    parent.symlink_to(granted)
    stop = threading.Event()

    def swap() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            link = granted.parent / f"next{number}"
            link.symlink_to((granted, "/oldroot/etc", victim.parent)[number % 3])
            link.rename(parent)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        ended = [
            service.run("run", "-r", f"{parent}/inner", "--", "sh", "-c", f"cat {parent}/inner/which", cwd=workspace)
            for _ in range(15)
        ]
    finally:
        stop.set()
        swapper.join()
    for result in ended:
        assert result.stdout in (b"granted\n", b""), result
        assert result.returncode in (0, 125, 126), result


def test_a_mount_point_below_a_symlink_of_the_workspace_is_refused(
    service: Service, workspace: Path, victim: Path
) -> None:
    """The agent of an earlier session left `sub -> /elsewhere`; the next launch names something below it."""
    (workspace / "sub").symlink_to(victim.parent)
    result = service.run("run", "-r", "sub", "--", "sh", "-c", "echo planted > sub/new; cat sub/secret", cwd=workspace)
    assert os.listdir(victim.parent) == ["secret"]
    assert result.returncode != 0


# ---- a read-only directory ----

THROUGH_A_GRANT = """
    os.chdir(GRANTED)
    def connect():
        with socket.socket(socket.AF_UNIX) as one:
            one.connect("socket")
    def feed():
        with open(os.open("fifo", os.O_WRONLY | os.O_NONBLOCK), "wb", 0) as file:
            file.write(b"planted")
    def lock():
        with open("file") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(HOLD_S)
    def lease():
        with open("file") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            time.sleep(HOLD_S)
    report({"connect": attempt(connect), "fifo": attempt(feed), "flock": attempt(lock), "lease": attempt(lease),
            "write": attempt(write, "file"), "create": attempt(write, "new"), "chmod": attempt(os.chmod, "file", 0o777),
            "utime": attempt(os.utime, "file"), "unlink": attempt(os.unlink, "file"),
            "xattr": attempt(os.setxattr, "file", "user.x", b"1")})
"""


def test_a_read_only_directory_gives_no_hold_on_the_host(service: Service, workspace: Path) -> None:
    """Its sockets, FIFOs, locks and leases are not the host's."""
    granted = service.folder("granted")
    (granted / "file").write_text("text\n", encoding="utf-8")
    os.mkfifo(granted / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(granted / "socket"))
        server.listen()
        server.setblocking(False)
        fifo = os.open(granted / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        try:
            command = program(THROUGH_A_GRANT, GRANTED=str(granted), HOLD_S=0.3)
            running = service.spawn("run", "-r", str(granted), "--", *command, cwd=workspace)
            taken = 0
            while running.poll() is None:
                # While the agent holds its lock or lease, the host takes the same one, exclusively, and writes.
                with open(granted / "file", "r+", encoding="utf-8") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                taken += 1
                time.sleep(0.01)
            out, err = running.communicate()
            assert running.returncode == 0, err
            inside = json.loads(out.splitlines()[-1])
            assert taken > 10
            assert inside["connect"] == "ECONNREFUSED"
            assert inside["fifo"] == "ENXIO"
            for name in ("write", "create", "chmod", "utime", "unlink", "xattr"):
                assert inside[name] in ("EROFS", "EACCES", "EPERM"), (name, inside)
            with pytest.raises(BlockingIOError):
                server.accept()
            assert os.read(fifo, 100) == b""
            unconfined = outside(THROUGH_A_GRANT, GRANTED=str(granted), HOLD_S=0)
            assert {unconfined[name] for name in ("connect", "fifo", "flock", "lease")} == {"OK"}
        finally:
            os.close(fifo)


# ---- other users ----


@pytest.mark.skipif(os.geteuid() != 0, reason="two users against one system service: needs root to become them")
def test_a_readable_file_in_another_users_private_directory_is_refused(service: Service) -> None:
    """Root could open it: the owner's own process opens, never root."""
    one, other = (OtherOwner(service, name) for name in OTHER_OWNERS)
    private = other.folder()
    (private / "readable").write_text("another's secret\n", encoding="utf-8")
    (private / "readable").chmod(0o644)
    mine = one.folder()
    for flags in (["--read-file", str(private / "readable")], ["-w", str(private)], ["-r", str(private)]):
        result = one.run("run", *flags, "--", "cat", str(private / "readable"), cwd=mine)
        assert b"another's secret" not in result.stdout, result
        if flags[0] != "-r":  # a directory that cannot be read may be shown: it cannot be read inside either
            assert result.returncode in (125, 126), result
            assert b"EACCES" in result.stderr or b"another user" in result.stderr, result
    result = other.run(
        "run", "--read-file", str(private / "readable"), "--", "cat", str(private / "readable"), cwd=private
    )
    assert result.stdout == b"another's secret\n", result
