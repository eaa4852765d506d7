"""Which directory may be a workspace, and why another may not; every refusal names the reason and the way out."""

from __future__ import annotations

import os
import stat
from typing import Final

from supervisor.errors import RefusedError
from supervisor.linux import mountinfo
from supervisor.linux.openat2 import open_beneath
from supervisor.linux.statfs import fs_type

_NEVER_BELOW: Final = (
    "/etc",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/boot",
    "/dev",
    "/proc",
    "/sys",
    "/run",
)
_NEVER_ITSELF: Final = ("/", "/home", "/root", "/var", "/tmp", "/opt", "/srv", "/mnt", "/media", "/var/tmp", "/var/lib")
# The mounter's credentials would be used (FUSE, NFS), or names and modes cannot be kept (vfat and its kind).
_UNFIT: Final = {
    "fuse": "FUSE: the overlay would read it with other credentials than yours",
    "nfs": "NFS: the server decides by other credentials than yours",
    "cifs": "CIFS: the server decides by other credentials than yours",
    "smb2": "SMB: the server decides by other credentials than yours",
    "9p": "9p: the server decides by other credentials than yours",
    "vfat": "vfat keeps neither modes nor owners",
    "exfat": "exfat keeps neither modes nor owners",
    "ntfs": "ntfs keeps neither modes nor owners",
}
_ELSEWHERE: Final = "copy the folder to a local disk (ext4, xfs, btrfs) and run there: -C DIR"


def check(path: str, fd: int, home: str, mode: str, notes: list[str]) -> None:
    """Refuse *path* (already resolved; *fd* refers to it) as a folder that an agent writes to.

    Raises:
        RefusedError: With the reason by name and what to do instead.
    """
    _check_place(path, home)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        raise RefusedError(
            f"{path}: belongs to another user",
            "choose a folder of your own: -C DIR",
        )
    name = fs_type(fd)
    if name in _UNFIT:
        raise RefusedError(f"{path}: is on {_UNFIT[name]}", _ELSEWHERE)
    if os.statvfs(fd).f_flag & os.ST_RDONLY:
        if mode == "direct":
            raise RefusedError(f"{path}: is on a read-only disk", "use --mode staged, or remount it read-write")
        notes.append(f"{path} is on a read-only disk: changes can be reviewed but not applied")
    _check_nested_mounts(path)
    _check_overlay_leftovers(path, fd)


def _check_place(path: str, home: str) -> None:
    inside = "choose a project folder: -C DIR"
    if path in _NEVER_ITSELF or any(path == area or path.startswith(area + "/") for area in _NEVER_BELOW):
        raise RefusedError(f"{path}: a system directory cannot be a workspace", inside)
    real_home = os.path.realpath(home)
    if path in (home, real_home):
        raise RefusedError(f"{path}: your whole home directory cannot be a workspace", inside)
    if real_home.startswith(path.rstrip("/") + "/"):
        raise RefusedError(f"{path}: holds your home directory {real_home}", inside)


def _check_nested_mounts(path: str) -> None:
    below = os.fsencode(path).rstrip(b"/") + b"/"
    nested = sorted({entry.mount_point for entry in mountinfo.read() if entry.mount_point.startswith(below)})
    if nested:
        first = os.fsdecode(nested[0])
        raise RefusedError(
            f"{path}: holds a mount at {first}" + (f" and {len(nested) - 1} more" if len(nested) > 1 else ""),
            f"unmount it, or choose a folder without it; its files would be hidden: umount {first}",
        )


def _check_overlay_leftovers(path: str, fd: int) -> None:
    """Refuse a folder with whiteouts (0:0 devices) or overlay xattrs: below an overlay they would hide files.

    Only directory entries are read (the type comes with the name), plus the xattrs of directories.
    """
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        # By its path each time: a folder may have more subfolders than there are descriptors.
        try:
            below = open_beneath(fd, directory or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # what its owner cannot read cannot be shown either
            continue
        try:
            found = _visit(below, directory + b"/" if directory else b"", waiting)
        finally:
            os.close(below)
        if found:
            raise RefusedError(
                f"{path}: {os.fsdecode(found[0])} is {found[1]}, left by an overlay",
                "remove it (rm, or setfattr -x) and run again",
            )


def _visit(fd: int, prefix: bytes, waiting: list[bytes]) -> tuple[bytes, str] | None:
    """Return the first leftover in a directory; add its subdirectories to *waiting*."""
    for name in os.listxattr(fd):
        if name.startswith(("user.overlay.", "trusted.overlay.")):
            return prefix or b".", f"marked with the xattr {name}"
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(prefix + os.fsencode(entry.name))
            elif not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                    return prefix + os.fsencode(entry.name), "a whiteout (a 0:0 device)"
    return None


def git_common_directory(path: str, fd: int) -> list[str]:
    """Return the repository that a git worktree at *path* belongs to, checked both ways, or nothing.

    A worktree's ``.git`` is a file ``gitdir: MAIN/.git/worktrees/NAME``. It is believed only when that directory's own
    ``gitdir`` file points back here: a crafted ``.git`` file could name any repository of the owner.

    Raises:
        RefusedError: The two do not agree.
    """
    try:
        git_fd = os.open(".git", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(git_fd).st_mode):
            return []
        text = os.read(git_fd, 4096)
    finally:
        os.close(git_fd)
    if not text.startswith(b"gitdir:"):
        return []
    own = os.path.realpath(os.path.join(os.fsencode(path), text[len(b"gitdir:") :].strip()))
    if own.startswith(os.fsencode(path).rstrip(b"/") + b"/"):
        return []
    common, marker, _name = own.rpartition(b"/worktrees/")
    try:
        back = _read_line(own + b"/gitdir")
    except OSError:
        back = b""
    if not marker or os.path.realpath(back) != os.fsencode(path) + b"/.git":
        raise RefusedError(
            f"{path}: its .git file names {os.fsdecode(own)}, which does not name this folder as its worktree",
            "repair it with: git worktree repair, or run in the main checkout",
        )
    return [os.fsdecode(common)]


def _read_line(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read(4096).strip()
