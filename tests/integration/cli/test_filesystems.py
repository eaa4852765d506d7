"""Workspaces on every kind of file system: it works, or it is refused by name. Needs root, to mount them.

All mounts are made in a mount namespace of these tests' own; the daemon of these tests runs in it too.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.linux.clone import CloneFlags, unshare
from tests.service import Service

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting disks needs root")

IMAGE_BYTES = 320 << 20  # the least that mkfs.xfs takes is 300 MB


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service in a mount namespace of its own; this process goes back into the old one at the end."""
    assert threading.active_count() == 1
    before = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    unshare(CloneFlags.NEWNS)
    try:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        one = Service()
        try:
            yield one
        finally:
            one.close()
    finally:
        ctypes.CDLL(None, use_errno=True).setns(before, int(CloneFlags.NEWNS))
        os.close(before)


@pytest.fixture
def mount_point(service: Service) -> Iterator[Path]:
    path = service.folder("mnt")
    yield path
    while os.path.ismount(path):
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def _loop(service: Service, kind: str, point: Path) -> Path:
    if shutil.which(f"mkfs.{kind}", path="/usr/sbin:/sbin") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    image = f"{service.folder('image')}/{kind}"
    with open(image, "wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, capture_output=True)
    mount("-o", "loop", image, str(point))
    work = point / "work"
    work.mkdir()
    return work


def _works(service: Service, folder: Path) -> None:
    """Staged and direct, reviewed, applied, undone."""
    (folder / "old").write_text("old\n", encoding="utf-8")
    result = service.run("run", "--", "sh", "-c", "cat old; echo new > old; mkdir d; echo x > d/made", cwd=folder)
    assert (result.returncode, result.stdout) == (0, b"old\n"), result
    assert sorted(os.listdir(folder)) == ["old"]
    applied = service.run("apply", cwd=folder)
    assert applied.returncode == 0, applied
    assert (folder / "old").read_text() == "new\n"
    assert (folder / "d/made").stat().st_uid == 0
    undone = service.run("undo", cwd=folder)
    assert undone.returncode == 0, undone
    assert sorted(os.listdir(folder)) == ["old"]
    direct = service.run("run", "--mode", "direct", "--", "touch", "direct", cwd=folder)
    assert direct.returncode == 0, direct
    assert (folder / "direct").stat().st_uid == 0


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_disk_works(service: Service, mount_point: Path, kind: str) -> None:
    _works(service, _loop(service, kind, mount_point))


def _works_or_is_refused(service: Service, folder: Path, *names: bytes) -> None:
    result = service.run("run", "--", "true", cwd=folder)
    if result.returncode == 0:
        _works(service, folder)
    else:
        assert result.returncode == 126, result
        assert os.fsencode(folder) in result.stderr
        assert any(name in result.stderr for name in names), result.stderr
        assert b"next: " in result.stderr


def test_tmpfs_works_or_is_refused_by_name(service: Service, mount_point: Path) -> None:
    """Without a uid of the agent's own (kernels before 6.3 cannot map a tmpfs) root's session is refused."""
    mount("-t", "tmpfs", "none", str(mount_point))
    (mount_point / "work").mkdir()
    _works_or_is_refused(service, mount_point / "work", b"cannot map ids")


def test_an_overlay_works_or_is_refused_by_name(service: Service, mount_point: Path) -> None:
    """As in a container."""
    layers = service.folder("layers")
    for name in ("lower", "upper", "work"):
        (layers / name).mkdir()
    (layers / "lower/work").mkdir()
    options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
    mount("-t", "overlay", "-o", options, "none", str(mount_point))
    _works_or_is_refused(service, mount_point / "work", b"cannot map ids", b"overlay")


def test_fuse_is_refused_by_name(service: Service, mount_point: Path) -> None:
    server = Path(__file__).parent / "fuse_server.py"
    with subprocess.Popen([sys.executable, str(server), str(mount_point)], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"mounted\n"
        for mode in ("staged", "direct"):
            result = service.run("run", "--mode", mode, "--", "true", cwd=mount_point, timeout_s=40)
            assert result.returncode == 126, result
            assert b"FUSE" in result.stderr
        subprocess.run(["umount", str(mount_point)], check=True)
        running.wait(10)


def test_a_read_only_disk_can_be_worked_on_but_not_applied_to(service: Service, mount_point: Path) -> None:
    folder = _loop(service, "ext4", mount_point)
    (folder / "old").write_text("old\n", encoding="utf-8")
    mount("-o", "remount,ro", str(mount_point))
    direct = service.run("run", "--mode", "direct", "--", "true", cwd=folder)
    assert direct.returncode == 126, direct
    assert b"read-only disk" in direct.stderr
    staged = service.run("run", "-v", "--", "sh", "-c", "echo new > old; cat old", cwd=folder)
    assert (staged.returncode, staged.stdout) == (0, b"new\n"), staged
    assert b"read-only disk" in staged.stderr
    assert b"+new" in service.run("diff", cwd=folder).stdout
    applied = service.run("apply", cwd=folder)
    assert applied.returncode != 0, applied
    assert b"EROFS" in applied.stderr + applied.stdout or b"read-only" in applied.stderr + applied.stdout
    mount("-o", "remount,rw", str(mount_point))
    assert service.run("apply", cwd=folder).returncode == 0
    assert (folder / "old").read_text() == "new\n"


def test_a_nested_mount_is_refused_by_name(service: Service, mount_point: Path) -> None:
    inner = mount_point / "inner mount"
    inner.mkdir()
    mount("-t", "tmpfs", "none", str(inner))
    for mode in ("staged", "direct"):
        result = service.run("run", "--mode", mode, "--", "true", cwd=mount_point)
        assert result.returncode == 126, result
        assert f"holds a mount at {inner}" in result.stderr.decode()
    subprocess.run(["umount", str(inner)], check=True)
    assert service.run("run", "--", "true", cwd=mount_point).returncode == 0


def test_a_full_disk_when_applying_leaves_all_as_it_was(service: Service, mount_point: Path) -> None:
    """The staged files lie elsewhere; the folder's own disk has no room for them."""
    folder = _loop(service, "ext4", mount_point)
    (folder / "old").write_text("old\n", encoding="utf-8")
    script = "echo new > old; head -c 400000000 /dev/urandom > big"
    assert service.run("run", "--", "sh", "-c", script, cwd=folder).returncode == 0
    result = service.run("apply", cwd=folder)
    assert result.returncode != 0, result
    assert b"ENOSPC" in result.stderr + result.stdout or b"space" in result.stderr + result.stdout
    assert sorted(os.listdir(folder)) == ["old"]
    assert (folder / "old").read_text() == "old\n"
    assert service.run("apply", "last", "old", cwd=folder).returncode == 0
    assert (folder / "old").read_text() == "new\n"
