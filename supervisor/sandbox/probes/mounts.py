"""Probes of the mount interface, overlays, id mapping and quota. Standard library only."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from supervisor.linux import clone, mount, mountinfo
from supervisor.sandbox.machine import is_initial_root
from supervisor.sandbox.probes.outcome import AS_ROOT, Absent, Needs, expect
from supervisor.sandbox.probes.place import SPARE_UID, SYSTEM_OVERLAY, mount_overlay, scratch


def mount_api() -> str:
    scratch()
    fd = os.open("/usr", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = mount.clone_tree(fd)
    mount.mount_setattr(tree, mount.MountAttr.RDONLY | mount.MountAttr.NOSUID)
    mount.move_mount(tree, mount.AT_FDCWD, tempfile.gettempdir())
    try:
        os.close(os.open(f"{tempfile.gettempdir()}/probe", os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        expect(error.errno == errno.EROFS, f"a read-only mount answers {error.strerror}")
        return "open_tree, mount_setattr, move_mount"
    raise Absent("a mount that was made read-only can be written")


def overlay_works() -> str:
    merged, lower = mount_overlay()
    Path(merged, "old").write_text("upper")
    Path(merged, "new").write_text("upper")
    expect(Path(lower, "old").read_text() == "lower", "a write reached the lower directory")
    expect(not Path(lower, "new").exists(), "a new file reached the lower directory")
    os.unlink(f"{merged}/old")
    expect(not Path(merged, "old").exists() and Path(lower, "old").exists(), "a delete reached the lower directory")
    return "system options" if is_initial_root() else "rootless: userxattr (hard links break, no file handles)"


def overlay_index() -> str:
    if not is_initial_root():
        raise Needs("a user namespace drops index, nfs_export and redirect_dir", AS_ROOT)
    merged, _ = mount_overlay()
    found = next(item for item in mountinfo.read() if item.mount_point == os.fsencode(merged))
    lost = [f"{key}={value}" for key, value in SYSTEM_OVERLAY.items() if f"{key}={value}" not in found.super_options]
    # metacopy=off is the default on most kernels and then not shown.
    lost = [option for option in lost if option != "metacopy=off" or "metacopy=on" in found.super_options]
    expect(not lost, f"silently dropped by the kernel: {', '.join(lost)}")
    return "read back: index, nfs_export, redirect_dir, xino"


def _idmapped_tree() -> int:
    """Return a detached bind of /usr that shows root's files as the spare uid's."""
    if not is_initial_root():
        raise Needs("needs the file system's own user namespace", AS_ROOT)
    namespace = clone.new_id_mapping(f"0 {SPARE_UID} 1", f"0 {SPARE_UID} 1")
    fd = os.open("/usr", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = mount.clone_tree(fd)
    mount.mount_setattr(tree, mount.MountAttr.IDMAP, userns_fd=namespace)
    expect(os.stat(f"/proc/self/fd/{tree}/").st_uid == SPARE_UID, "the mapping does not show")
    return tree


def idmapped_mounts() -> str:
    tree = _idmapped_tree()
    merged, _ = mount_overlay(tree)
    expect(os.stat(merged + "/bin").st_uid == SPARE_UID, "the mapping does not show through the overlay")
    return "also below an overlay"


def agent_uid() -> str:
    tree = _idmapped_tree()
    os.setgroups([])
    os.setresgid(SPARE_UID, SPARE_UID, SPARE_UID)
    os.setresuid(SPARE_UID, SPARE_UID, SPARE_UID)
    expect(os.stat(".", dir_fd=tree).st_uid == os.geteuid(), "the agent does not own what it sees")
    return "pooled user ids over idmapped mounts"


def quota() -> str:
    place = scratch("1m")
    try:
        Path(place, "big").write_bytes(b"x" * (2 << 20))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        project = any({"prjquota", "pquota"} & set(item.super_options) for item in mountinfo.read())
        return "sized tmpfs; project quota too" if project else "sized tmpfs; no mounted file system has project quota"
    raise Absent("a tmpfs took more than its size")
