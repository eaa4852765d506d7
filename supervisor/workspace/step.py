"""Carry out a set of changes as one step: wholly or not at all, across a crash, and never over what the host changed.

1. the step is opened in the store, the staging directory made in the folder's root;
2. new versions are staged, old ones copied into the store unless they can be moved there later: whatever needs space
   or can fail does so here;
3. the plan is written, with the identity of all that is replaced and of all that is staged;
4. the commit mark: from here on a crash ends in the new state, before it in the old one;
5. the operations, by rename only;
6. what was done is written, old versions are moved into the store, marks and directory times are set, the staging
   directory goes, the step is closed.

`apply` and `undo` are this with different contents. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from supervisor.linux.syncfs import syncfs
from supervisor.workspace.change import Change
from supervisor.workspace.closing import can_be_moved, times_of
from supervisor.workspace.copying import copy_contents
from supervisor.workspace.entry import lstat_below, opened_staged, parent_of
from supervisor.workspace.journal import Meta, Operation, Outcome, Plan, operations_for
from supervisor.workspace.marks import load_marks
from supervisor.workspace.recovery import carry_through, take_back
from supervisor.workspace.selection import dependents
from supervisor.workspace.staging import ChangedMeanwhileError, Source, Stager, can_move, make_staging, new_staging_name
from supervisor.workspace.store import new_step, set_flag, sync_directory, write_json
from supervisor.workspace.transaction import CHANGED, Observer, no_observer
from supervisor.workspace.verdict import applied_mode
from supervisor.workspace.version import Version, version_at

# An fsync takes about 0.3 ms; from here on one of the whole file system is the cheaper.
_MANY: Final = 64


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one step; `number` is 0 when there was nothing to do."""

    number: int
    applied: list[Change]
    conflicts: list[Change]


@dataclass(frozen=True, slots=True)
class Order:
    """What a step is to do, beside its changes.

    Args:
        meta: Whose step it is.
        source: Opens the new contents of a change.
        undoes: The step that is taken back; 0 for an apply.
        mtimes: Directory → mtime to give at the end.
    """

    meta: Meta
    source: Source
    undoes: int = 0
    mtimes: dict[bytes, int] = field(default_factory=dict)


def carry_out(
    root_fd: int, store_fd: int, changes: list[Change], order: Order, observe: Observer = no_observer
) -> Step:
    """Carry out *changes* in the folder *root_fd*; the caller holds the store (`recovery.locked`).

    Raises:
        OSError: ENOSPC and the like, with the path; the folder is as before, the staging directory gone.
        RefusedError: the file system can't do it.
    """
    conflicts: dict[bytes, str] = {}
    relinked = load_marks(store_fd, order.meta.session).relinked
    changes = [_still_as_seen(root_fd, change, relinked, conflicts) for change in changes]
    chosen = _without(changes, conflicts)
    if not chosen:
        return Step(0, [], _conflicting(changes, conflicts))
    before = times_of(root_fd, b"")
    number, step_fd = new_step(store_fd)
    plan = _empty_plan(root_fd, order)
    try:
        try:
            observe("after opening the step")
            write_json(step_fd, b"plan.json", plan.to_json())
            observe("after announcing the staging directory")
            operations = _prepare(root_fd, step_fd, plan, order, changes, conflicts, observe)
            plan = _full_plan(root_fd, plan, operations, before, order)
            write_json(step_fd, b"plan.json", plan.to_json())
            observe("after writing the plan")
            set_flag(step_fd, b"commit")
            observe("after the commit mark")
            outcome = carry_through(root_fd, store_fd, step_fd, plan, observe)
        except Exception:
            _abandon(root_fd, store_fd, step_fd, number, plan, observe)
            raise
    finally:
        os.close(step_fd)
    _add_conflicts(plan, outcome, conflicts)
    left = [change for change in changes if change.path not in conflicts]
    return Step(number, left, _conflicting(changes, conflicts))


def _abandon(root_fd: int, store_fd: int, step_fd: int, number: int, plan: Plan, observe: Observer) -> None:
    """Take an unfinished step back. Once it is written down as done it is past that: recovery closes it."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(b"done.json", dir_fd=step_fd)
        return
    # A full disk may refuse even an empty file; the commit mark can always be removed instead.
    with contextlib.suppress(OSError):
        set_flag(step_fd, b"abort")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(b"commit", dir_fd=step_fd)
    os.fsync(step_fd)
    take_back(root_fd, store_fd, number, plan, observe)


def _still_as_seen(root_fd: int, change: Change, relinked: dict[int, int], conflicts: dict[bytes, str]) -> Change:
    """Note a conflict where the real disk is not what *change* says; return it with a ctime that our own step moved."""
    now = _version_below(root_fd, change.old_path or change.path)
    if change.old_path and lstat_below(root_fd, change.path) is not None:
        conflicts[change.path] = "created on the real disk too"
    elif change.old is None:
        if now is not None and not (now.type == "directory" and change.is_directory):
            conflicts[change.path] = "created on the real disk too"
    elif now is None:
        conflicts[change.path] = "gone from the real disk"
    elif not now.is_same_object(change.old):
        if not now.is_same_object(change.old, ctime=False) or relinked.get(now.ino) != now.ctime_ns:
            conflicts[change.path] = CHANGED
        else:
            return replace(change, old=replace(change.old, ctime_ns=now.ctime_ns))
    return change


def _version_below(root_fd: int, path: bytes) -> Version | None:
    if lstat_below(root_fd, path) is None:
        return None
    with parent_of(root_fd, path) as (dir_fd, name):
        return version_at(dir_fd, name)


def _without(changes: list[Change], conflicts: dict[bytes, str]) -> list[Change]:
    """Return what can go on; what depends on a conflict becomes one."""
    chosen = {change.path: change for change in changes if change.path not in conflicts}
    conflicts |= dependents(changes, chosen)
    return [change for path, change in chosen.items() if path not in conflicts]


def _conflicting(changes: list[Change], conflicts: dict[bytes, str]) -> list[Change]:
    return [replace(change, conflict=conflicts[change.path]) for change in changes if change.path in conflicts]


def _empty_plan(root_fd: int, order: Order) -> Plan:
    ino = os.fstat(root_fd).st_ino
    return Plan(order.meta, time.time_ns(), new_staging_name(), ino, (), undoes=order.undoes)


def _full_plan(
    root_fd: int, plan: Plan, operations: list[Operation], before: tuple[int, int, int] | None, order: Order
) -> Plan:
    parents = {operation.path.rpartition(b"/")[0] for operation in operations}
    directories = {path: times for path in parents if (times := times_of(root_fd, path)) is not None}
    made = {
        op.path: op.new.mtime_ns for op in operations if op.action == "put" and op.new and op.new.type == "directory"
    }
    mtimes = made | order.mtimes
    if before is not None:
        if b"" in directories:
            directories[b""] = before
        else:
            mtimes[b""] = before[1]
    return replace(plan, operations=tuple(operations), directories=directories, mtimes=mtimes)


def _prepare(
    root_fd: int,
    step_fd: int,
    plan: Plan,
    order: Order,
    changes: list[Change],
    conflicts: dict[bytes, str],
    observe: Observer,
) -> list[Operation]:
    """Do all that needs space: stage the new versions, copy into the store what can't be moved there later."""
    by_path = {change.path: change for change in _without(changes, conflicts)}
    staging_fd = make_staging(root_fd, plan.staging)
    observe("after making the staging directory")
    try:
        planned = operations_for(list(by_path.values()))
        moves = can_move(staging_fd, step_fd)
        is_large = len(planned) > _MANY
        sync: Callable[[int], None] = _not_yet if is_large else os.fsync
        stager = Stager(staging_fd, order.source, partial(_folder, root_fd), sync)
        for at, operation in enumerate(planned):
            change = by_path[
                operation.partner if operation.action == "remove" and operation.partner else operation.path
            ]
            try:
                if not (moves and can_be_moved(operation)):
                    planned[at] = _keep_old(root_fd, step_fd, operation, sync)
                stager.stage(operation, change)
            except ChangedMeanwhileError as error:
                conflicts[change.path] = str(error)
            except OSError as error:
                raise OSError(error.errno, os.strerror(error.errno or 0), operation.path) from error
            observe(f"after staging {operation.index}")
        kept = {change.path for change in _without(changes, conflicts)}
        found = [
            stager.staged(op)
            for op in planned
            if (op.partner if op.action == "remove" and op.partner else op.path) in kept
        ]
        os.fsync(staging_fd)
        if is_large:
            syncfs(staging_fd)
            syncfs(step_fd)
    finally:
        os.close(staging_fd)
    for name in (b"old", b"."):
        sync_directory(step_fd, name)
    sync_directory(root_fd)
    return [_with_applied_mode(operation) for operation in found]


def _not_yet(_: int) -> None:
    """Leave a file to the sync of its whole file system."""


def _with_applied_mode(operation: Operation) -> Operation:
    if operation.action != "adjust" or operation.new is None or operation.old is None:
        return operation
    return replace(operation, new=replace(operation.new, mode=applied_mode(operation.new, operation.old.mode)))


def _folder(root_fd: int, path: bytes) -> os.stat_result | None:
    return lstat_below(root_fd, path) if path else os.fstat(root_fd)


def _keep_old(root_fd: int, step_fd: int, operation: Operation, sync: Callable[[int], None]) -> Operation:
    """Copy the contents that *operation* replaces into the store, for a later undo.

    Returns:
        The operation, with the ctime that reading an unreadable file left.

    Raises:
        ChangedMeanwhileError: the host changed them.
    """
    old = operation.old
    if old is None or old.type != "file":
        return operation
    is_readable = bool(old.mode & stat.S_IRUSR)
    try:
        with opened_staged(root_fd, root_fd, operation.path) as source:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(b"old/" + operation.slot, flags, 0o600, dir_fd=step_fd)
            try:
                copy_contents(source, target)
                sync(target)
            finally:
                os.close(target)
            now = Version.of(os.fstat(source))
            if not now.is_same_object(old, ctime=is_readable):
                raise ChangedMeanwhileError(CHANGED)
            return operation if is_readable else replace(operation, old=replace(old, ctime_ns=now.ctime_ns))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ChangedMeanwhileError(CHANGED) from error


def _add_conflicts(plan: Plan, outcome: Outcome, conflicts: dict[bytes, str]) -> None:
    """Name the changes whose operations met a conflict, or whose target is not what was put there any more."""
    for operation in plan.operations:
        if operation.index in outcome.conflicts:
            is_source = operation.action == "remove" and operation.partner
            conflicts.setdefault(operation.partner if is_source else operation.path, outcome.conflicts[operation.index])
