"""What lies in a tree: how much, and what of it is sensitive by name or label.

Standard library only.
"""

from __future__ import annotations

import errno
import os
import time
from itertools import islice
from typing import Final

from supervisor.linux.openat2 import openat2
from supervisor.policy.wildcard import matches
from supervisor.workspace.survey import (
    LOOK,
    MAX_DEPTH,
    MAX_LISTED,
    MAX_SEEN,
    Survey,
    escaped,
    label_at,
    why_no_item,
    why_not,
)
from supervisor.workspace.target import problem_with

# Of the request's ten seconds; what is left of the tree then counts as not looked at.
_BUDGET_S: Final = 4.0
_CHECK_EVERY: Final = 256


def survey_tree(root_fd: int, found: Survey) -> None:
    """Count a tree up to the bounds, note what is sensitive by name or label in it.

    Raises:
        RefusedError: Deskwarden's own state lies in it.
    """
    waiting = [""]
    until = time.monotonic() + _BUDGET_S
    while waiting and found.seen <= MAX_SEEN and time.monotonic() < until:
        folder = waiting.pop()
        try:
            fd = openat2(root_fd, os.fsencode(folder or "."), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, LOOK)
        except OSError as error:
            if error.errno != errno.ENOENT:
                found.leave_out(folder or ".", why_not(error))
                found.complete = False
            continue
        try:
            found.bounds.check(os.fstat(fd), f"{found.root}/{folder}")
            found.note_label(label_at(fd))
            below = _survey_folder(fd, folder, found, until)
        finally:
            os.close(fd)
        if folder.count("/") + 1 >= MAX_DEPTH and below:
            found.leave_out(folder, f"more than {MAX_DEPTH} folders deep")
            found.complete = False
        else:
            waiting += reversed(below)
    if waiting or found.seen > MAX_SEEN:
        found.complete = False


def _survey_folder(fd: int, folder: str, found: Survey, until: float) -> list[str]:
    folders = []
    with os.scandir(fd) as entries:
        for entry in sorted(islice(entries, MAX_SEEN + 1 - found.seen), key=lambda entry: entry.name):
            found.seen += 1
            if found.seen % _CHECK_EVERY == 0 and time.monotonic() > until:
                found.complete = False
                break
            relative = f"{folder}/{entry.name}" if folder else entry.name
            if is_watched(f"{found.root}/{relative}", found.bounds.watched) and len(found.sensitive) < MAX_LISTED:
                found.sensitive.append(escaped(relative))
            if entry.is_dir(follow_symlinks=False):  # not looked at here: a mount that hangs may lie on it
                folders.append(relative)
            elif not entry.is_symlink():  # a link stays one in the sandbox, and leads nowhere else there
                _survey_file(fd, entry, relative, found)
    return sorted(folders)


def _survey_file(fd: int, entry: os.DirEntry[str], relative: str, found: Survey) -> None:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    found.bounds.check(status, f"{found.root}/{relative}")
    why = why_no_item(status, found.bounds)
    if why:
        found.leave_out(relative, why)
    elif problem := problem_with(entry.name):
        found.leave_out(relative, problem)
        found.complete = False  # it is in the tree, and is not among what is classified
    else:
        found.take(relative, status, label_at(f"/proc/self/fd/{fd}/{entry.name}"))


def is_watched(path: str, watched: tuple[tuple[str, ...], ...]) -> bool:
    """Tell whether the last components of *path* are what a rule watches for, whatever their case."""
    parts = path.lower().split("/")
    return any(
        matches(rule[-1], parts[-1])
        and len(rule) <= len(parts)
        and all(matches(one, part) for one, part in zip(reversed(rule), reversed(parts), strict=False))
        for rule in watched
    )
