"""The end of a step, once the renames are done: old versions into the store, marks, directory times, the last flag.

Runs again from the start after a crash. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from supervisor.linux.openat2 import open_beneath
from supervisor.workspace.copying import copy_contents
from supervisor.workspace.entry import lstat_at, names_in, open_directory
from supervisor.workspace.journal import Operation, Outcome, Plan
from supervisor.workspace.marks import Marks, load_marks, save_marks
from supervisor.workspace.staging import open_staging, remove_staging
from supervisor.workspace.store import write_json
from supervisor.workspace.transaction import Observer
from supervisor.workspace.version import text


def close_step(root_fd: int, store_fd: int, step_fd: int, plan: Plan, outcome: Outcome, observe: Observer) -> None:
    """Keep the old versions, remove the staging directory, put directory times back, tell the marks, close the step."""
    _keep_old(root_fd, step_fd, plan, outcome)
    observe("after keeping the old versions")
    relinked = _remove_staging(root_fd, plan, outcome)
    observe("after removing the staging directory")
    for path, mtime_ns in sorted(plan.mtimes.items(), reverse=True):
        _set_mtime(root_fd, path, mtime_ns)
    after = {path: times for path in plan.directories if (times := times_of(root_fd, path)) is not None}
    marks = load_marks(store_fd, plan.meta.session)
    _update(marks, plan, outcome, relinked, after, root_fd)
    save_marks(store_fd, plan.meta.session, marks)
    observe("after saving the marks")
    write_json(step_fd, b"closed", {text(path): mtime_ns for path, (_, mtime_ns, _) in after.items()})
    observe("after closing")


def can_be_moved(operation: Operation) -> bool:
    """Tell whether what the operation replaces may itself become the copy that is kept: nothing else leads to it.

    Another hard link would let later edits into the store; what the owner can't read there could not be put back.
    """
    old = operation.old
    return (
        old is not None
        and operation.action != "adjust"
        and old.type == "file"
        and old.nlink == 1
        and old.uid == os.geteuid()
        and bool(old.mode & stat.S_IRUSR)
    )


def _keep_old(root_fd: int, step_fd: int, plan: Plan, outcome: Outcome) -> None:
    """Move what the renames took out into the store, where no copy of it lies yet; durable on return."""
    with contextlib.ExitStack() as stack:
        try:
            staging_fd = open_staging(root_fd, plan.staging)
        except FileNotFoundError:
            return
        stack.callback(os.close, staging_fd)
        kept_fd = open_directory(step_fd, b"old")
        stack.callback(os.close, kept_fd)
        kept = set(names_in(kept_fd))
        for operation in plan.operations:
            if operation.slot in kept or operation.index not in outcome.left or not can_be_moved(operation):
                continue
            out = lstat_at(staging_fd, operation.slot)
            if out is not None and operation.old is not None and out.st_ino == operation.old.ino:
                _move(staging_fd, kept_fd, operation.slot)
        os.fsync(kept_fd)


def _move(staging_fd: int, kept_fd: int, slot: bytes) -> None:
    try:
        os.rename(slot, slot, src_dir_fd=staging_fd, dst_dir_fd=kept_fd)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(staging_fd, kept_fd, slot)


def _copy(staging_fd: int, kept_fd: int, slot: bytes) -> None:
    """Copy instead: the store was moved to another file system after the step was planned."""
    temporary = slot + b".new"
    source = os.open(slot, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging_fd)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(temporary, flags, 0o600, dir_fd=kept_fd)
        try:
            copy_contents(source, target)
            os.fsync(target)
        finally:
            os.close(target)
    finally:
        os.close(source)
    os.rename(temporary, slot, src_dir_fd=kept_fd, dst_dir_fd=kept_fd)


def times_of(root_fd: int, path: bytes) -> tuple[int, int, int] | None:
    """Return inode, mtime and ctime of a directory; None when it is gone."""
    try:
        fd = open_beneath(root_fd, path or b".", os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns
    finally:
        os.close(fd)


def _set_mtime(root_fd: int, path: bytes, mtime_ns: int) -> None:
    # A time that can't be put back is no reason to leave the step open.
    with contextlib.suppress(OSError):
        fd = open_beneath(root_fd, path or b".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.utime(fd, ns=(os.fstat(fd).st_atime_ns, mtime_ns))
        finally:
            os.close(fd)


def _remove_staging(root_fd: int, plan: Plan, outcome: Outcome) -> dict[int, int]:
    """Remove it; return inode → ctime of files that live on under another name."""
    held: list[int] = []
    with contextlib.suppress(FileNotFoundError):
        staging_fd = open_staging(root_fd, plan.staging)
        try:
            held = [_hold(staging_fd, operation) for operation in plan.operations if _has_links(operation, outcome)]
        finally:
            os.close(staging_fd)
    remove_staging(root_fd, plan.staging)
    relinked = {}
    for fd in held:
        if fd != -1:
            status = os.fstat(fd)
            os.close(fd)
            if status.st_nlink:
                relinked[status.st_ino] = status.st_ctime_ns
    return relinked


def _has_links(operation: Operation, outcome: Outcome) -> bool:
    old = operation.old
    return old is not None and old.type == "file" and old.nlink > 1 and operation.index in outcome.left


def _hold(staging_fd: int, operation: Operation) -> int:
    try:
        return os.open(operation.slot, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging_fd)
    except FileNotFoundError:
        return -1


def _update(
    marks: Marks,
    plan: Plan,
    outcome: Outcome,
    relinked: dict[int, int],
    after: dict[bytes, tuple[int, int, int]],
    root_fd: int,
) -> None:
    marks.relinked |= relinked
    for operation in plan.operations:
        if operation.index not in outcome.left:
            continue
        left = outcome.left[operation.index]
        marks.applied.pop(operation.path, None)
        marks.settled.pop(operation.path, None)
        if left is None:
            continue
        times = times_of(root_fd, operation.path) if left.type == "directory" else None
        marks.applied[operation.path] = (left.ino, times[2] if times is not None else left.ctime_ns)
        if not operation.staged:
            marks.settled[operation.path] = left.stamp
    marks.forget(operation.path for operation in plan.operations if operation.index in outcome.left)
    for path, (ino, _, ctime_ns) in after.items():
        before_ino, _, before_ns = plan.directories[path]
        known_ino, first_ns, last_ns = marks.directories.get(path, (0, 0, 0))
        ours = (known_ino, last_ns) == (before_ino, before_ns)
        marks.directories[path] = (ino, first_ns if ours else before_ns, ctime_ns)
