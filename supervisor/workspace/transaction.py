"""Carry out the operations of a plan, forward or back, each of them once however often it is tried.

An operation is known to be done by inode numbers, which renames keep: the staged entry lies at the path, or what was at
the path lies in the staging directory. So the same code runs after a crash. What a rename took out is looked at before
the next step; when it is not what the plan names, the host was faster: it is put back and the operation is a conflict.
Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from supervisor.linux.openat2 import open_beneath
from supervisor.linux.rename import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2
from supervisor.workspace.entry import lstat_at, lstat_below, names_in, open_directory, parent_of
from supervisor.workspace.journal import Operation, Outcome, Plan
from supervisor.workspace.version import Version, version_at

Observer = Callable[[str], None]
"""Called with a name before and after each durable step: progress for a person, kill points for a test."""

CHANGED: Final = "changed on the real disk in this moment"
_HOST_WAS_FASTER: Final = {
    errno.ENOENT: "gone from the real disk, or its folder is",
    errno.EEXIST: "created on the real disk too",
    errno.ENOTDIR: "a folder above it is no folder on the real disk",
    errno.ELOOP: "a folder above it is a symlink on the real disk",
    errno.ENOTEMPTY: "the folder holds other files on the real disk",
    errno.EISDIR: "a folder on the real disk",
    errno.EXDEV: "lies on another file system",
}


def no_observer(_: str) -> None:
    """Watch nothing."""


class _Conflict(Exception):
    """The real disk is not as planned."""


class Transaction:
    """The operations of one plan on one folder. The descriptors stay the caller's."""

    def __init__(self, root_fd: int, staging_fd: int, plan: Plan, observe: Observer = no_observer) -> None:
        self._root, self._staging, self._plan, self._observe = root_fd, staging_fd, plan, observe
        # Inodes whose ctime our own renames moved: the other names of a hard link.
        self._touched: set[int] = set()

    def forward(self) -> Outcome:
        """Carry out what is not done yet; conflicts are left as they are and named in the outcome.

        Raises:
            OSError: ENOSPC, EIO and the like; call `back`.
        """
        outcome = Outcome()
        for operation in self._plan.operations:
            if self._is_done(operation) and operation.old is not None:
                self._touched.add(operation.old.ino)
        for operation in self._plan.operations:
            self._observe(f"before {operation.action} {operation.index}")
            try:
                self._once(operation)
            except _Conflict as conflict:
                outcome.conflicts[operation.index] = str(conflict)
            except OSError as error:
                if error.errno not in _HOST_WAS_FASTER:
                    raise OSError(error.errno, os.strerror(error.errno or 0), operation.path) from error
                outcome.conflicts[operation.index] = _HOST_WAS_FASTER[error.errno]
            self._observe(f"after {operation.action} {operation.index}")
        self._keep_sources(outcome)
        self._sync()
        self._take_identities(outcome)
        return outcome

    def back(self) -> dict[int, int]:
        """Take back what was done, last first. What the host changed since stays as the host left it.

        Returns:
            Inode → ctime of what was put back: the renames moved it, nobody changed the file.
        """
        for operation in reversed(self._plan.operations):
            self._observe(f"before back {operation.index}")
            if self._is_done(operation):
                with contextlib.suppress(_Conflict):
                    self._reverse(operation)
            self._observe(f"after back {operation.index}")
        self._sync()
        return self._moved_times()

    def _moved_times(self) -> dict[int, int]:
        found = {}
        for old, path in ((op.old, op.path) for op in self._plan.operations if op.action != "adjust"):
            now = lstat_below(self._root, path) if old is not None else None
            if old is not None and now is not None and Version.of(now).is_same_object(old, ctime=False):
                found[now.st_ino] = now.st_ctime_ns
        return found

    def _is_done(self, operation: Operation) -> bool:
        if operation.action == "remove":
            out = lstat_at(self._staging, operation.slot)
            return out is not None and operation.old is not None and out.st_ino == operation.old.ino
        now = lstat_below(self._root, operation.path)
        if now is None or operation.new is None:
            return False
        if operation.action == "adjust":
            return (
                stat.S_IMODE(now.st_mode) == operation.new.mode and self._attributes(operation) == operation.new.xattrs
            )
        return now.st_ino == operation.new.ino

    def _once(self, operation: Operation) -> None:
        """Do the operation unless it is done; then look at what it took out."""
        takes_out = operation.action != "adjust" and operation.old is not None
        if not self._is_done(operation):
            with parent_of(self._root, operation.path) as (dir_fd, name):
                self._do(operation, dir_fd, name)
        if operation.old is not None:
            self._touched.add(operation.old.ino)
        # A parent that a later removal took out already is no fault, so it is opened only to put something back.
        fault = self._fault(operation) if takes_out else ""
        if fault:
            with parent_of(self._root, operation.path) as (dir_fd, name):
                flags = RENAME_EXCHANGE if operation.action == "put" else RENAME_NOREPLACE
                renameat2(self._staging, operation.slot, dir_fd, name, flags)
            raise _Conflict(fault)

    def _do(self, operation: Operation, dir_fd: int, name: bytes) -> None:
        if operation.action == "adjust":
            self._adjust(operation, dir_fd, name, operation.old, operation.new)
        elif operation.action == "remove":
            self._require(operation.old, dir_fd, name)
            renameat2(dir_fd, name, self._staging, operation.slot, RENAME_NOREPLACE)
        elif operation.old is None:
            self._put_new(operation, dir_fd, name)
        else:
            self._require(operation.old, dir_fd, name)
            renameat2(self._staging, operation.slot, dir_fd, name, RENAME_EXCHANGE)

    def _put_new(self, operation: Operation, dir_fd: int, name: bytes) -> None:
        try:
            renameat2(self._staging, operation.slot, dir_fd, name, RENAME_NOREPLACE)
        except FileExistsError:
            there = lstat_at(dir_fd, name)
            both = there is not None and operation.new is not None and operation.new.type == "directory"
            if not (both and there is not None and stat.S_ISDIR(there.st_mode)):
                raise

    def _require(self, old: Version | None, dir_fd: int, name: bytes) -> None:
        """Raise when the entry is not the one that the plan replaces."""
        now = version_at(dir_fd, name)
        if old is None or not now.is_same_object(old, ctime=now.ino not in self._touched):
            raise _Conflict(CHANGED)

    def _fault(self, operation: Operation) -> str:
        """Return why what the rename took out is not what the plan names, or an empty string."""
        out = version_at(self._staging, operation.slot)
        if operation.old is None or not out.is_same_object(operation.old, ctime=False):
            return CHANGED
        if out.type == "directory" and self._holds_entries(operation.slot):
            return _HOST_WAS_FASTER[errno.ENOTEMPTY]
        return ""

    def _holds_entries(self, slot: bytes) -> bool:
        fd = open_directory(self._staging, slot)
        try:
            return bool(names_in(fd))
        finally:
            os.close(fd)

    def _reverse(self, operation: Operation) -> None:
        with parent_of(self._root, operation.path) as (dir_fd, name):
            if operation.action == "adjust":
                self._adjust(operation, dir_fd, name, operation.new, operation.old)
                return
            if operation.action == "put":
                now = version_at(dir_fd, name)
                if operation.new is None or not now.is_same_object(operation.new, ctime=False):
                    raise _Conflict(CHANGED)
            if operation.action == "put" and operation.old is None:
                renameat2(dir_fd, name, self._staging, operation.slot, RENAME_NOREPLACE)
            else:
                flags = RENAME_EXCHANGE if operation.action == "put" else RENAME_NOREPLACE
                renameat2(self._staging, operation.slot, dir_fd, name, flags)

    def _adjust(self, operation: Operation, dir_fd: int, name: bytes, old: Version | None, new: Version | None) -> None:
        """Set mode and attributes of a directory, in place: a directory can't be swapped for a copy."""
        if old is None or new is None:
            raise _Conflict(CHANGED)
        fd = open_beneath(dir_fd, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            now = version_at(dir_fd, name)
            if now.ino != _adjusted_ino(operation) or now.mode not in (old.mode, new.mode):
                raise _Conflict(CHANGED)
            for attribute in {key for key, _ in old.xattrs} - {key for key, _ in new.xattrs}:
                with contextlib.suppress(OSError):
                    os.removexattr(fd, attribute)
            for attribute, value in new.xattrs:
                os.setxattr(fd, attribute, value)
            os.fchmod(fd, new.mode)
        finally:
            os.close(fd)

    def _attributes(self, operation: Operation) -> tuple[tuple[str, bytes], ...]:
        with parent_of(self._root, operation.path) as (dir_fd, name):
            return version_at(dir_fd, name).xattrs

    def _keep_sources(self, outcome: Outcome) -> None:
        """Put back the source of a rename whose target met a conflict."""
        failed = {op.path for op in self._plan.operations if op.action == "put" and op.index in outcome.conflicts}
        for operation in reversed(self._plan.operations):
            if (
                operation.action == "remove"
                and operation.partner in failed
                and operation.index not in outcome.conflicts
            ):
                with contextlib.suppress(_Conflict, OSError):
                    self._reverse(operation)
                outcome.conflicts[operation.index] = "its new name could not be made"

    def _sync(self) -> None:
        """Make all renames durable."""
        for path in {b"", *(op.path.rpartition(b"/")[0] for op in self._plan.operations)}:
            try:
                fd = open_beneath(self._root, path or b".", os.O_RDONLY | os.O_DIRECTORY)
            except OSError as error:
                if error.errno in _HOST_WAS_FASTER:
                    continue
                raise
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        os.fsync(self._staging)

    def _take_identities(self, outcome: Outcome) -> None:
        """Record what was left, at the end: a hard link's ctime moves with each of its names."""
        for operation in self._plan.operations:
            if operation.index in outcome.conflicts:
                continue
            outcome.left[operation.index] = None
            if operation.new is None:
                continue
            with contextlib.suppress(OSError), parent_of(self._root, operation.path) as (dir_fd, name):
                now = version_at(dir_fd, name)
                if operation.action == "adjust" or now.is_same_object(operation.new, ctime=False):
                    outcome.left[operation.index] = now


def _adjusted_ino(operation: Operation) -> int:
    """Return the inode that an adjusted directory has on the real disk."""
    return operation.old.ino if operation.old is not None else 0
