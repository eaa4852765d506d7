"""The tree of a running sandbox: where one more mount may be attached, while its agent moves things about.

Every part of a path is opened from the one before it, symlinks refused; names are made on the sandbox's own tmpfs
mounts only. What the agent renames meanwhile it renames on such a tmpfs: the mount then lies where the agent put it,
never outside of what the agent could write anyway.

Standard library only: runs in the launcher's child.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from supervisor.errors import LaunchError, RefusedError
from supervisor.linux import mount, mountinfo, statx
from supervisor.linux.clone import CloneFlags, setns
from supervisor.linux.mount import MountAttr
from supervisor.sandbox.operations import OWN_TMPFS
from supervisor.sandbox.root_tree import RootTree, parts_of
from supervisor.sandbox.stubs import SOURCE

_IN_THE_WAY: Final = {
    errno.ELOOP: "a symlink is in the way in the sandbox, want real directories",
    errno.ENOTDIR: "a file is in the way in the sandbox, want a directory",
    errno.ENOENT: "does not exist in what is shown of the disk, and is not made there",
    errno.EXDEV: "leads out of the sandbox",
}
_ASK_ELSEWHERE: Final = "move what is in the way, then ask again"
_TAKE_BACK: Final = "use it as it is shown, or have it taken back first"


def enter(target_pidfd: int, proc_fd: int) -> None:
    """Join the mount namespace of a running sandbox.

    Args:
        proc_fd: The caller's own directory of /proc: that of the session does not show the caller.

    Raises:
        LaunchError: It has ended.
        RefusedError: It is not ready: it still has the launcher's tree, or the host's.
    """
    try:
        setns(target_pidfd, CloneFlags.NEWNS)
    except ProcessLookupError as error:
        raise LaunchError("join the session", error.errno or 0, "it has ended") from error
    if os.stat("/").st_dev not in own_devices(proc_fd):
        raise RefusedError("the session is still being started", "try again")


def own_devices(proc_fd: int) -> set[int]:
    """Return the device numbers of the sandbox's own tmpfs mounts, whose mount namespace the caller has joined."""
    return {
        os.makedev(*entry.device)
        for entry in mountinfo.read_at(proc_fd)
        if entry.fs_type == "tmpfs" and entry.source == OWN_TMPFS.encode() and entry.root == b"/"
    }


class LiveTree(RootTree):
    """The root of the session whose mount namespace the caller has joined; `close` lets go of all that it opened."""

    def __init__(self, proc_fd: int) -> None:
        super().__init__(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        self._proc_fd = proc_fd
        self._own_devices = own_devices(proc_fd)

    def close(self) -> None:
        """Close what was opened on the way: it would keep the mounts that it lies on busy."""
        for directory in self._open.values():
            os.close(directory.fd)
        self._open.clear()

    def target(self, path: str, is_directory: bool) -> int:
        """Return the place for a mount (O_PATH, the caller's), made where needed.

        Raises:
            RefusedError: Something is in the way: a symlink, another kind of file, another mount at or below it.
        """
        try:
            if is_directory:
                place = os.dup(self.directory(path))
            else:
                place = self.file_target(path)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EXDEV):
                raise
            raise RefusedError(f"{path}: {_IN_THE_WAY.get(error.errno, error.strerror)}", _ASK_ELSEWHERE) from error
        try:
            self._check_free(path, place, is_directory)
        except BaseException:
            os.close(place)
            raise
        return place

    def _check_free(self, path: str, place: int, is_directory: bool) -> None:
        mode = os.fstat(place).st_mode
        if not (stat.S_ISDIR(mode) if is_directory else stat.S_ISREG(mode)):
            wanted = "directory" if is_directory else "regular file"
            raise RefusedError(f"{path}: is no {wanted} in the sandbox", _ASK_ELSEWHERE)
        parent = self._directory(parts_of(path).rpartition(b"/")[0], 0o755, path)
        mounts = mountinfo.read_at(self._proc_fd)
        stubs = {entry.mount_id for entry in mounts if entry.source == SOURCE.encode() and entry.fs_type == "fuse"}
        if statx.mount_id(place) not in {statx.mount_id(parent.fd), *stubs}:
            raise RefusedError(f"{path}: is shown in this session already", _TAKE_BACK)
        # By the name that it has now: the agent may have renamed what lies above.
        below = os.readlink(b"fd/%d" % place, dir_fd=self._proc_fd) + b"/"
        for entry in mounts:
            if entry.mount_point.startswith(below) and entry.mount_id not in stubs:
                shown = os.fsdecode(entry.mount_point)
                raise RefusedError(f"{path}: would cover {shown}, which is shown in this session", _TAKE_BACK)

    def _make_directory(self, parent_fd: int, name: bytes, mode: int) -> None:
        with writable(parent_fd) as parent, contextlib.suppress(FileExistsError):
            super()._make_directory(parent, name, mode)

    def _make_file(self, parent_fd: int, name: bytes) -> None:
        with writable(parent_fd) as parent, contextlib.suppress(FileExistsError):
            super()._make_file(parent, name)


@contextlib.contextmanager
def writable(fd: int) -> Iterator[int]:
    """Give the directory *fd* on a mount that takes new names: that of the root is sealed, its tmpfs is not."""
    clone = mount.clone_tree(fd)
    try:
        mount.mount_setattr(clone, 0, MountAttr.RDONLY, propagation=mount.MS_PRIVATE)
        yield clone
    finally:
        os.close(clone)
