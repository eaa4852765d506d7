"""Take an apply back, whole or by path, also days later and after the session is gone.

An undo is a step of its own, the inverse of another: crash-safe like it, with the same conflict rule, and it can be
undone itself (which is redo). Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from supervisor.errors import RefusedError, UsageError
from supervisor.workspace.apply import ApplyResult
from supervisor.workspace.change import Change, Kind
from supervisor.workspace.closing import times_of
from supervisor.workspace.entry import open_file
from supervisor.workspace.journal import Meta, Operation, Outcome, Plan
from supervisor.workspace.recovery import OpenFolder, locked, recover_locked
from supervisor.workspace.selection import select
from supervisor.workspace.staging import Source
from supervisor.workspace.step import Order, carry_out
from supervisor.workspace.store import open_step, read_json, step_numbers
from supervisor.workspace.transaction import Observer, no_observer
from supervisor.workspace.version import raw_bytes, text

State = Literal["applied", "partly undone", "undone", "open"]


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One line of the list of steps. `open` waits for recovery; `undone` can't be undone again."""

    number: int
    meta: Meta
    created_ns: int
    undoes: int
    state: State
    paths: tuple[bytes, ...]
    undone: frozenset[bytes]
    conflicts: tuple[bytes, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able value."""
        return {
            "step": self.number,
            "session": self.meta.session,
            "folder": text(self.meta.folder),
            "note": self.meta.note,
            "created_ns": self.created_ns,
            "undoes": self.undoes,
            "state": self.state,
            "paths": [text(path) for path in self.paths],
            "undone": sorted(text(path) for path in self.undone),
            "conflicts": [text(path) for path in self.conflicts],
        }


def list_steps(store_fd: int) -> list[StepInfo]:
    """Return all steps, oldest first."""
    return _listed(_load_all(store_fd))


def _load_all(store_fd: int) -> dict[int, tuple[Plan, Outcome | None]]:
    return {number: one for number in step_numbers(store_fd) if (one := _load(store_fd, number)) is not None}


def _listed(loaded: dict[int, tuple[Plan, Outcome | None]]) -> list[StepInfo]:
    undone: dict[int, set[bytes]] = {number: set() for number in loaded}
    # Newest first: an undo that was undone itself takes nothing back any more.
    for number, (plan, outcome) in sorted(loaded.items(), reverse=True):
        if plan.undoes in undone and outcome is not None:
            undone[plan.undoes] |= _paths(plan, outcome) - undone[number]
    return [_info(number, plan, outcome, undone[number]) for number, (plan, outcome) in sorted(loaded.items())]


def undo(
    open_folder: OpenFolder,
    store_fd: int,
    step: int,
    paths: Iterable[bytes] = (),
    *,
    observe: Observer = no_observer,
) -> ApplyResult:
    """Take the changes of *step* at *paths* (none: all) back. What the host changed since is a conflict, left alone.

    Raises:
        UsageError: there is no such step, or it changed nothing at a path.
        RefusedError: it is undone already, not finished yet, or another folder lies at its path now.
        OSError: ENOSPC and the like, with the path; the folder is as before.
    """
    with locked(store_fd):
        recover_locked(open_folder, store_fd)
        every = _load_all(store_fd)
        info = next((one for one in _listed(every) if one.number == step), None)
        if info is None:
            raise UsageError(f"there is no step {step}", "deskwarden undo --list")
        plan, outcome = every.pop(step)
        every.clear()  # a step of 10^5 files takes 100 MB
        if outcome is None:
            raise RefusedError(
                f"step {step} is not finished, and its folder {text(plan.meta.folder)!r} can't be found",
                "mount or move the folder back, then try again",
            )
        if info.state == "undone":
            raise RefusedError(f"step {step} is undone already", "deskwarden undo --list")
        inverse = [change for change in _inverse(plan, outcome) if not _is_undone(change, info.undone)]
        selection = select(inverse, paths)
        root_fd = open_folder(plan.meta.folder)
        step_fd = open_step(store_fd, step)
        try:
            if os.fstat(root_fd).st_ino != plan.root_ino:
                raise RefusedError(f"{text(plan.meta.folder)} is another folder than the one of step {step}")
            order = _order(root_fd, step_fd, step, plan)
            done = carry_out(root_fd, store_fd, selection.chosen, order, observe)
        finally:
            os.close(step_fd)
            os.close(root_fd)
    return ApplyResult(done.number, done.applied, [*selection.conflicts, *done.conflicts], [], [])


def _order(root_fd: int, step_fd: int, number: int, plan: Plan) -> Order:
    slots = {op.path: op.slot for op in plan.operations if op.old is not None}
    meta = replace(plan.meta, note=f"undo of step {number}")
    return Order(meta, _kept_contents(step_fd, slots), number, _old_mtimes(root_fd, step_fd, plan))


def _kept_contents(step_fd: int, slots: dict[bytes, bytes]) -> Source:
    @contextmanager
    def open_it(change: Change) -> Iterator[int]:
        fd = open_file(step_fd, b"old/" + slots[change.path])
        try:
            yield fd
        finally:
            os.close(fd)

    return open_it


def _old_mtimes(root_fd: int, step_fd: int, plan: Plan) -> dict[bytes, int]:
    """Return the mtimes to give back to directories that nobody but the step changed."""
    left = {raw_bytes(path): mtime_ns for path, mtime_ns in (read_json(step_fd, b"closed") or {}).items()}
    found = {}
    for path, (ino, mtime_ns, _) in plan.directories.items():
        now = times_of(root_fd, path)
        if now is not None and now[0] == ino and now[1] == left.get(path):
            found[path] = mtime_ns
    return found


def _load(store_fd: int, number: int) -> tuple[Plan, Outcome | None] | None:
    """Return a step's plan, and its outcome once it is closed; None for an empty shell."""
    step_fd = open_step(store_fd, number)
    try:
        plan = read_json(step_fd, b"plan.json")
        closed = read_json(step_fd, b"closed")
        done = read_json(step_fd, b"done.json") if closed is not None else None
    finally:
        os.close(step_fd)
    if plan is None:
        return None
    return Plan.from_json(plan), Outcome.from_json(done) if done is not None else None


def _is_ours(operation: Operation, outcome: Outcome) -> bool:
    """Tell whether there is something of the operation to take back: not for a folder that existed already."""
    if operation.index not in outcome.left:
        return False
    left = outcome.left[operation.index]
    return left is not None or operation.new is None or operation.new.type != "directory"


def _paths(plan: Plan, outcome: Outcome) -> set[bytes]:
    return {op.path for op in plan.operations if _is_ours(op, outcome)}


def _info(number: int, plan: Plan, outcome: Outcome | None, undone: set[bytes]) -> StepInfo:
    paths = _paths(plan, outcome) if outcome is not None else set()
    state: State = "applied"
    if outcome is None:
        state = "open"
    elif undone and undone >= paths:
        state = "undone"
    elif undone:
        state = "partly undone"
    conflicts = tuple(op.path for op in plan.operations if outcome is not None and op.index in outcome.conflicts)
    return StepInfo(
        number, plan.meta, plan.created_ns, plan.undoes, state, tuple(sorted(paths)), frozenset(undone), conflicts
    )


def _is_undone(change: Change, undone: frozenset[bytes]) -> bool:
    return change.path in undone or (bool(change.old_path) and change.old_path in undone)


def _inverse(plan: Plan, outcome: Outcome) -> list[Change]:
    """Return the changes that turn what the step left into what it found."""
    ours = {op.path: op for op in plan.operations if _is_ours(op, outcome)}
    found = []
    for path, operation in ours.items():
        left, partner = outcome.left[operation.index], ours.get(operation.partner)
        gone = "" if left is not None or operation.action == "remove" else "changed on the real disk since"
        if operation.action == "remove" and partner is not None:
            moved = outcome.left[partner.index]
            gone = "" if moved is not None else "changed on the real disk since"
            found.append(Change(path, "renamed", moved, operation.old, operation.partner, conflict=gone))
        elif operation.action == "put" and partner is not None:
            continue
        elif operation.old is None:
            found.append(Change(path, "deleted", left or operation.new, None, conflict=gone))
        elif left is None:
            kind: Kind = "added" if operation.action == "remove" else "modified"
            found.append(Change(path, kind, None if not gone else operation.new, operation.old, conflict=gone))
        else:
            kind = "mode" if operation.action == "adjust" else "type" if left.type != operation.old.type else "modified"
            found.append(Change(path, kind, left, operation.old))
    return found
