"""Pair a deletion with an addition into a rename, when the contents prove it.

By inode number (while mounted, overlayfs shows the lower's number of what was copied up), which also finds a file
that was edited after its move; else by equal contents. Never by likeness alone. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Final

from supervisor.workspace.area import Area
from supervisor.workspace.change import Change
from supervisor.workspace.entry import lower_numbers, lstat_below, opened, opened_staged

_BLOCK: Final = 1 << 20


def pair_renames(area: Area, changes: list[Change]) -> list[Change]:
    """Return *changes* with each proven pair of a deletion and an addition joined; each path is used once."""
    removed = [change for change in changes if change.kind == "deleted" and _fits(change)]
    added = [change for change in changes if change.kind == "added" and _fits(change)]
    if not removed or not added:
        return changes
    partners = _by_inode(area, removed, added)
    taken = set(partners.values())
    rest_removed = [change for change in removed if change.path not in taken]
    rest_added = [change for change in added if change.path not in partners]
    partners |= _by_contents(area, rest_removed, rest_added)
    old = {change.path: change for change in removed}
    gone = set(partners.values())
    return [
        _joined(change, old[partners[change.path]]) if change.kind == "added" and change.path in partners else change
        for change in changes
        if not (change.kind == "deleted" and change.path in gone)
    ]


def _fits(change: Change) -> bool:
    version = change.new or change.old
    return not change.refused and version is not None and version.type in ("file", "symlink")


def _joined(added: Change, removed: Change) -> Change:
    # The move explains why the file was copied up, so a conflict can only be the source's.
    return replace(added, kind="renamed", old=removed.old, old_path=removed.path, conflict=removed.conflict)


def _by_inode(area: Area, removed: Iterable[Change], added: Iterable[Change]) -> dict[bytes, bytes]:
    """Return new path → old path. A file that is a directory entry of several names is left to the contents."""
    by_ino = {change.old.ino: change for change in removed if change.old is not None and change.old.nlink == 1}
    found: dict[bytes, bytes] = {}
    for change in added:
        new = change.new
        if new is None or new.nlink != 1:
            continue
        other = next((by_ino[number] for number in lower_numbers(new.ino) if number in by_ino), None)
        if other is None or other.old is None or other.old.type != new.type:
            continue
        # The upper's own number says nothing about the lower.
        top = lstat_below(area.upper_fd, change.path)
        if top is None or top.st_ino != new.ino:
            found[change.path] = by_ino.pop(other.old.ino).path
    return found


def _by_contents(area: Area, removed: Iterable[Change], added: list[Change]) -> dict[bytes, bytes]:
    sources: dict[tuple[str, int], list[Change]] = defaultdict(list)
    for change in removed:
        if change.old is not None and change.old.size:
            sources[(change.old.type, change.old.size)].append(change)
    found: dict[bytes, bytes] = {}
    digests: dict[bytes, bytes] = {}
    for change in added:
        new = change.new
        candidates = sources.get((new.type, new.size), []) if new is not None else []
        if not candidates or new is None:
            continue
        mine = _identity(new.target, partial(opened_staged, area.merged_fd, area.upper_fd, change.path))
        # The same name elsewhere first: what people mean by "moved".
        name = change.path.rpartition(b"/")[2]
        for other in sorted(candidates, key=lambda one: one.path.rpartition(b"/")[2] != name):
            if other.old is None:
                continue
            if other.path not in digests:
                digests[other.path] = _identity(other.old.target, partial(opened, area.lower_fd, other.path))
            if mine and digests[other.path] == mine:
                found[change.path] = other.path
                candidates.remove(other)
                break
    return found


def _identity(target: bytes, open_it: Callable[[], AbstractContextManager[int]]) -> bytes:
    """Return what names the contents: a link's target, a file's digest; nothing when it can't be read."""
    if target:
        return b"link:" + target
    digest = hashlib.sha256()
    try:
        with open_it() as fd:
            while block := os.read(fd, _BLOCK):
                digest.update(block)
    except OSError:
        return b""
    return b"file:" + digest.digest()
