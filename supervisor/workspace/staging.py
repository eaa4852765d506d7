"""The staging directory: new versions are made complete in the folder's own file system before any is put in place.

A private directory in the folder's root, so that every later move is a rename within one file system, and what a move
takes out is there to be put back. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final

from supervisor.errors import RefusedError
from supervisor.linux.rename import RENAME_EXCHANGE, renameat2
from supervisor.workspace.change import Change
from supervisor.workspace.copying import copy_contents, digest_of, set_metadata
from supervisor.workspace.entry import lstat_at, names_in
from supervisor.workspace.journal import Operation
from supervisor.workspace.verdict import applied_mode
from supervisor.workspace.version import Version, version_at

Source = Callable[[Change], AbstractContextManager[int]]
"""Opens the contents of a change; on leaving it raises `ChangedMeanwhileError` when they moved under the reader."""


SINCE_REVIEW: Final = "the agent changed it since it was reviewed"


class ChangedMeanwhileError(Exception):
    """What is to be copied is no longer what the person saw."""


def new_staging_name() -> bytes:
    """Return a name that nobody else uses."""
    return b".deskwarden-" + secrets.token_hex(16).encode()


def make_staging(root_fd: int, name: bytes) -> int:
    """Make the staging directory and open it; the caller owns the descriptor and calls `remove_staging`.

    Raises:
        RefusedError: the file system can't swap two entries in one step.
        OSError: the folder is full, read-only, or not the caller's to write.
    """
    os.mkdir(name, 0o700, dir_fd=root_fd)
    fd = open_staging(root_fd, name)
    try:
        os.fchmod(fd, 0o700)
        with contextlib.suppress(OSError):
            os.removexattr(fd, "system.posix_acl_default")
        _require_exchange(fd)
    except BaseException:
        os.close(fd)
        remove_staging(root_fd, name)
        raise
    return fd


def open_staging(root_fd: int, name: bytes) -> int:
    """Open the staging directory; the caller owns the descriptor.

    Raises:
        FileNotFoundError: it is gone.
    """
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)


def _require_exchange(fd: int) -> None:
    for name in (b"a", b"b"):
        os.mkdir(name, 0o700, dir_fd=fd)
    try:
        renameat2(fd, b"a", fd, b"b", RENAME_EXCHANGE)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise RefusedError(
            "the workspace's file system can't swap two files in one step (RENAME_EXCHANGE)",
            "copy the files over by hand from `deskwarden diff`, or move the workspace to a local disk",
        ) from error
    for name in (b"a", b"b"):
        os.rmdir(name, dir_fd=fd)


def can_move(staging_fd: int, step_fd: int) -> bool:
    """Tell whether an entry can be renamed from the staging directory into the store: one file system, one mount."""
    os.mkdir(b"m", 0o700, dir_fd=staging_fd)
    try:
        os.rename(b"m", b"m", src_dir_fd=staging_fd, dst_dir_fd=step_fd)
    except OSError as error:
        os.rmdir(b"m", dir_fd=staging_fd)
        if error.errno != errno.EXDEV:
            raise
        return False
    os.rmdir(b"m", dir_fd=step_fd)
    return True


def remove_staging(root_fd: int, name: bytes) -> None:
    """Remove the staging directory and what lies in it; gone already is fine.

    A directory in it that is not empty was filled by the host after it was moved out: it stays, nothing of the host's
    is lost.
    """
    try:
        fd = open_staging(root_fd, name)
    except FileNotFoundError:
        return
    try:
        for entry in names_in(fd):
            status = lstat_at(fd, entry)
            if status is not None and stat.S_ISDIR(status.st_mode):
                with contextlib.suppress(OSError):
                    os.rmdir(entry, dir_fd=fd)
            elif status is not None:
                os.unlink(entry, dir_fd=fd)
    finally:
        os.close(fd)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=root_fd)


class Stager:
    """Fills a staging directory; hard links among the changes become hard links there."""

    def __init__(
        self,
        staging_fd: int,
        source: Source,
        folder: Callable[[bytes], os.stat_result | None],
        sync: Callable[[int], None],
    ) -> None:
        self._fd = staging_fd
        self._sync = sync
        self._source = source
        self._folder = folder
        self._links: dict[tuple[int, int], bytes] = {}

    def stage(self, operation: Operation, change: Change) -> None:
        """Make the new entry of *operation*.

        Raises:
            ChangedMeanwhileError: it changed since the scan.
            OSError: with the path that could not be read or written.
        """
        new = change.new
        if new is None or operation.action != "put":
            return
        wanted, mode = self._wanted(operation, new)
        if new.type == "symlink":
            os.symlink(new.target, operation.slot, dir_fd=self._fd)
            with contextlib.suppress(PermissionError):
                os.chown(operation.slot, wanted.uid, wanted.gid, dir_fd=self._fd, follow_symlinks=False)
            os.utime(operation.slot, ns=(new.atime_ns, new.mtime_ns), dir_fd=self._fd, follow_symlinks=False)
        elif new.type == "directory":
            os.mkdir(operation.slot, 0o700, dir_fd=self._fd)
            fd = os.open(operation.slot, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
            try:
                set_metadata(fd, wanted, mode)
            finally:
                os.close(fd)
        else:
            self._stage_file(operation.slot, change, new, wanted, mode)

    def staged(self, operation: Operation) -> Operation:
        """Return *operation* with the staged entry as its `new`; call it when all are staged."""
        if operation.action != "put":
            return operation
        return replace(operation, new=version_at(self._fd, operation.slot))

    def _wanted(self, operation: Operation, new: Version) -> tuple[Version, int]:
        """Return the metadata to give: the owner of what is replaced, or that of a setgid folder."""
        folder = self._folder(operation.path.rpartition(b"/")[0])
        folder_mode = folder.st_mode if folder is not None else 0
        if operation.old is not None:
            new = replace(new, uid=operation.old.uid, gid=operation.old.gid)
        elif folder is not None and folder_mode & stat.S_ISGID:
            new = replace(new, gid=folder.st_gid)
        return new, applied_mode(new, folder_mode)

    def _stage_file(self, slot: bytes, change: Change, new: Version, wanted: Version, mode: int) -> None:
        key = (new.dev, new.ino)
        if new.nlink > 1 and key in self._links:
            os.link(self._links[key], slot, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(slot, flags, 0o600, dir_fd=self._fd)
        try:
            with self._source(change) as source:
                copy_contents(source, target)
            if change.digest and digest_of(target) != change.digest:
                raise ChangedMeanwhileError(SINCE_REVIEW)
            set_metadata(target, wanted, mode)
            self._sync(target)
        except BaseException:
            os.unlink(slot, dir_fd=self._fd)
            raise
        finally:
            os.close(target)
        if new.nlink > 1:
            self._links[key] = slot
