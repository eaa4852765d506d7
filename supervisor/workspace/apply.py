"""Apply what the agent changed to the real folder, all of it or by path.

Runs again and again while the session goes on: what an apply leaves is remembered in the session's marks, so the next
scan does not take it for the host's. Standard library only.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from supervisor.workspace.area import Area
from supervisor.workspace.change import Change
from supervisor.workspace.entry import opened_staged
from supervisor.workspace.journal import Meta
from supervisor.workspace.marks import load_marks, save_marks
from supervisor.workspace.recovery import locked, recover_locked
from supervisor.workspace.selection import Selection, select
from supervisor.workspace.staging import SINCE_REVIEW, ChangedMeanwhileError, Source
from supervisor.workspace.step import Order, carry_out
from supervisor.workspace.transaction import Observer, no_observer
from supervisor.workspace.version import Version


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What an apply did. `step_id` names it for `undo`; 0 when nothing was applied."""

    step_id: int
    applied: list[Change]
    conflicts: list[Change]
    held: list[Change]
    refused: list[Change]


def apply(
    area: Area,
    changes: list[Change],
    store_fd: int,
    meta: Meta,
    paths: Iterable[bytes] = (),
    *,
    confirm_held: bool = False,
    observe: Observer = no_observer,
) -> ApplyResult:
    """Put the changes named by *paths* (none: all) in place; wholly or not at all, also across a crash.

    *changes* is a whole `scan` as the person saw it: what differs from it now is a conflict. A conflict does not stop
    the others unless they depend on it. Durable on return. A step that a crash left open is brought to its end first.

    Args:
        store_fd: The owner's durable store.
        confirm_held: Apply held changes below *paths* without each being named.

    Raises:
        UsageError: a path names no change.
        RefusedError: the folder's file system can't swap files.
        OSError: ENOSPC, EROFS and the like, with the path; the folder is as before.
    """
    selection = select(changes, paths, confirm_held=confirm_held)
    with locked(store_fd):
        recover_locked(lambda path: _same_folder(area, meta, path), store_fd)
        step = carry_out(area.lower_fd, store_fd, selection.chosen, Order(meta, _agents_contents(area)), observe)
    conflicts = sorted([*selection.conflicts, *step.conflicts], key=lambda change: change.path)
    return ApplyResult(step.number, step.applied, conflicts, selection.held, selection.refused)


def discard(
    changes: list[Change], store_fd: int, session: str, paths: Iterable[bytes] = (), *, confirm_held: bool = True
) -> Selection:
    """Mark changes as discarded: they show again only when the agent changes them again. The agent's view stays.

    Returns:
        The selection; what it chose is discarded, and what was held, refused or in conflict too.

    Raises:
        UsageError: a path names no change.
    """
    selection = select(changes, paths, confirm_held=confirm_held)
    with locked(store_fd):
        marks = load_marks(store_fd, session)
        marks.discard([*selection.chosen, *selection.conflicts, *selection.refused, *selection.held])
        save_marks(store_fd, session, marks)
    return selection


def _same_folder(area: Area, meta: Meta, path: bytes) -> int:
    """Give recovery this folder only: others are not ours to open here."""
    if path != meta.folder:
        raise FileNotFoundError(errno.ENOENT, "another folder", path)
    return os.dup(area.lower_fd)


def _agents_contents(area: Area) -> Source:
    @contextmanager
    def open_it(change: Change) -> Iterator[int]:
        if change.new is None:
            raise ValueError("a deletion has no contents")
        try:
            with opened_staged(area.merged_fd, area.upper_fd, change.path) as fd:
                yield fd
                # Reading an unreadable file moved its ctime: its digest speaks instead.
                if not change.digest and not Version.of(os.fstat(fd)).is_same_object(change.new):
                    raise ChangedMeanwhileError(SINCE_REVIEW)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ChangedMeanwhileError(SINCE_REVIEW) from error

    return open_it
