"""After a crash: finish every step that was committed, take back every one that was not.

Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from supervisor.workspace.closing import close_step
from supervisor.workspace.journal import Outcome, Plan
from supervisor.workspace.marks import load_marks, save_marks
from supervisor.workspace.staging import open_staging, remove_staging
from supervisor.workspace.store import drop_step, has, open_step, read_json, step_numbers, sync_directory, write_json
from supervisor.workspace.transaction import Observer, Transaction, no_observer

OpenFolder = Callable[[bytes], int]
"""Opens the real folder at a path as the owner; raises `OSError` when it can't."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of a step that a crash had cut short."""

    step: int
    folder: bytes
    end: Literal["finished", "taken back", "folder missing"]


def recover(open_folder: OpenFolder, store_fd: int, observe: Observer = no_observer) -> list[Recovered]:
    """Bring every open step of this store to its end; safe to call at any time, and again after being killed.

    A step whose folder is missing (not mounted, moved) stays open for the next call.

    Raises:
        OSError: the disk is full or broken; nothing is lost, call it again.
    """
    with locked(store_fd):
        return recover_locked(open_folder, store_fd, observe)


def recover_locked(open_folder: OpenFolder, store_fd: int, observe: Observer = no_observer) -> list[Recovered]:
    """As `recover`, for a caller that holds the store. Every apply and undo begins with it.

    Else a step left open would later be carried through over what a newer one did.
    """
    found = []
    for number in step_numbers(store_fd):
        step_fd = open_step(store_fd, number)
        try:
            if has(step_fd, b"closed"):
                continue
            one = _recover_step(open_folder, store_fd, step_fd, number, observe)
        finally:
            os.close(step_fd)
        if one is not None:
            found.append(one)
    return found


@contextlib.contextmanager
def locked(store_fd: int) -> Iterator[None]:
    """Hold the store: one step at a time, and no recovery of a step that another process is carrying out."""
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=store_fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _recover_step(
    open_folder: OpenFolder, store_fd: int, step_fd: int, number: int, observe: Observer
) -> Recovered | None:
    value = read_json(step_fd, b"plan.json")
    if value is None:
        drop_step(store_fd, number)
        return None
    plan = Plan.from_json(value)
    try:
        root_fd = open_folder(plan.meta.folder)
    except OSError:
        return Recovered(number, plan.meta.folder, "folder missing")
    try:
        if os.fstat(root_fd).st_ino != plan.root_ino:
            return Recovered(number, plan.meta.folder, "folder missing")
        if has(step_fd, b"abort") or not has(step_fd, b"commit"):
            take_back(root_fd, store_fd, number, plan, observe)
            return Recovered(number, plan.meta.folder, "taken back")
        carry_through(root_fd, store_fd, step_fd, plan, observe)
        return Recovered(number, plan.meta.folder, "finished")
    finally:
        os.close(root_fd)


def carry_through(root_fd: int, store_fd: int, step_fd: int, plan: Plan, observe: Observer) -> Outcome:
    """Do what is left of a committed step, and close it."""
    value = read_json(step_fd, b"done.json")
    if value is not None:
        outcome = Outcome.from_json(value)
    else:
        outcome = _forward(root_fd, plan, observe)
        write_json(step_fd, b"done.json", outcome.to_json())
        observe("after writing what was done")
    close_step(root_fd, store_fd, step_fd, plan, outcome, observe)
    return outcome


def _forward(root_fd: int, plan: Plan, observe: Observer) -> Outcome:
    try:
        staging_fd = open_staging(root_fd, plan.staging)
    except FileNotFoundError:
        gone = "the staged copies are gone: someone removed the staging directory"
        return Outcome(conflicts={operation.index: gone for operation in plan.operations})
    try:
        return Transaction(root_fd, staging_fd, plan, observe).forward()
    finally:
        os.close(staging_fd)


def take_back(root_fd: int, store_fd: int, number: int, plan: Plan, observe: Observer) -> None:
    """Undo what an uncommitted or aborted step did, and remove all of it."""
    with contextlib.suppress(FileNotFoundError):
        staging_fd = open_staging(root_fd, plan.staging)
        try:
            moved = Transaction(root_fd, staging_fd, plan, observe).back()
        finally:
            os.close(staging_fd)
        if moved:
            marks = load_marks(store_fd, plan.meta.session)
            marks.relinked |= moved
            save_marks(store_fd, plan.meta.session, marks)
    remove_staging(root_fd, plan.staging)
    sync_directory(root_fd)
    observe("after removing the staging directory")
    drop_step(store_fd, number)
    observe("after dropping the step")
