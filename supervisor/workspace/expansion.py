"""The files that a pattern matches: links and mounts left out by name, everything bounded.

Standard library only.
"""

from __future__ import annotations

import errno
import os
import stat

from supervisor.errors import RefusedError
from supervisor.linux.openat2 import openat2
from supervisor.policy.wildcard import matches_visible
from supervisor.workspace.survey import (
    LOOK,
    MAX_ITEMS,
    MAX_SEEN,
    Survey,
    label_at,
    look,
    why_no_item,
    why_not,
)
from supervisor.workspace.target import problem_with


def expand(root_fd: int, tail: tuple[str, ...], found: Survey) -> None:
    """Find the regular files that the segments *tail* describe below *root_fd*.

    Raises:
        RefusedError: It matches, or has to look at, more than the bounds.
    """
    folders = [""]
    for segment in tail[:-1]:
        folders = [
            below
            for folder in folders
            for below in _matched(root_fd, folder, segment, found)
            if _enters(root_fd, below, found)
        ]
    for folder in folders:
        for relative in _matched(root_fd, folder, tail[-1], found):
            _judge(root_fd, relative, found)
            if not found.complete:
                raise RefusedError(
                    f"{found.root}: the pattern matches more than {MAX_ITEMS} files", "ask for fewer, or for a folder"
                )


def _matched(root_fd: int, folder: str, segment: str, found: Survey) -> list[str]:
    """Return what the segment matches in a folder, sorted; names that can't be part of a selector are left out."""
    below = f"{folder}/" if folder else ""
    if "*" not in segment:
        return [below + segment]
    names = []
    try:
        fd = openat2(root_fd, os.fsencode(folder or "."), os.O_RDONLY | os.O_DIRECTORY, LOOK)
    except OSError as error:
        found.leave_out(folder or ".", why_not(error))
        return []
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                found.seen += 1
                if found.seen > MAX_SEEN:
                    raise RefusedError(f"{found.root}: more than {MAX_SEEN} entries to look at", "name a folder below")
                if matches_visible(segment, entry.name):
                    names.append(entry.name)
    finally:
        os.close(fd)
    return [below + name for name in sorted(names) if _is_sayable(below + name, found)]


def _is_sayable(relative: str, found: Survey) -> bool:
    name = relative.rpartition("/")[2]
    problem = problem_with(name) or ("its name holds a *" if "*" in name else "")
    if problem:
        found.leave_out(relative, problem)
    return not problem


def _enters(root_fd: int, relative: str, found: Survey) -> bool:
    try:
        fd = look(root_fd, relative)
    except OSError as error:
        if error.errno != errno.ENOENT:
            found.leave_out(relative, why_not(error))
        return False
    try:
        status = os.fstat(fd)
        found.bounds.check(status, f"{found.root}/{relative}")
        if stat.S_ISLNK(status.st_mode):
            found.leave_out(relative, "a link")
        return stat.S_ISDIR(status.st_mode)
    finally:
        os.close(fd)


def _judge(root_fd: int, relative: str, found: Survey) -> None:
    try:
        fd = look(root_fd, relative)
    except OSError as error:
        if error.errno != errno.ENOENT:
            found.leave_out(relative, why_not(error))
        return
    try:
        status = os.fstat(fd)
        found.bounds.check(status, f"{found.root}/{relative}")
        why = why_no_item(status, found.bounds)
        if not why and not os.access(f"/proc/self/fd/{fd}", os.R_OK, effective_ids=True):
            why = "not readable"
        if why:
            found.leave_out(relative, why)
        else:
            found.take(relative, status, label_at(f"/proc/self/fd/{root_fd}/{relative}"))
    finally:
        os.close(fd)
