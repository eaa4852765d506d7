"""Symlinks on the real disk that give a file a name that runs later: ``.envrc -> scripts/env`` makes `scripts/env` run.

Looked for where a review can afford it: in the folder's root, in the settings directories there (`.git`, `.vscode` and
their kind) as deep as the list goes, and in every directory that holds a change, with those above it. Links that the
agent makes are held by their own name. Standard library only.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Final

from supervisor.linux.openat2 import open_beneath
from supervisor.workspace.change import Change, ancestors
from supervisor.workspace.entry import parent_of
from supervisor.workspace.runs_later import RunsLater
from supervisor.workspace.version import text

MAX_DIRECTORIES: Final = 10_000
# As many as the kernel follows in one path (MAXSYMLINKS, include/linux/namei.h).
_MAX_HOPS: Final = 40


class Links:
    """Answers for one scan: what *changes* reach through the links of the real folder."""

    def __init__(self, lower_fd: int, rules: RunsLater, changes: Iterable[Change]) -> None:
        self._rules = rules
        self._by_target: dict[bytes, list[bytes]] = defaultdict(list)
        self._above: dict[bytes, bytes] = {}
        folder = os.readlink(b"/proc/self/fd/%d" % lower_fd)
        for link in _links(lower_fd, rules, _directories(changes)):
            target = resolve(lower_fd, folder, link)
            if target is not None and target != link:
                self._by_target[target].append(link)
                self._above |= dict.fromkeys(ancestors(target), link)

    def why(self, change: Change) -> str:
        """Return why *change* is held, or an empty string."""
        if change.is_directory or not self._by_target:
            return ""
        if change.new is not None and change.new.type == "symlink" and change.path in self._above:
            return f"runs later: {text(self._above[change.path])!r} on the real disk leads through it"
        for path in (change.path, change.old_path):
            for link, name in self._names(path) if path else ():
                why = self._rules.why(name) or self._rules.why_link(name)
                if why:
                    return f"{why}, by the link {text(link)!r} on the real disk"
        return ""

    def _names(self, path: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the links that lead to *path*, each with the name that they give it."""
        for target in (b"", *ancestors(path), path):
            for link in self._by_target.get(target, ()):
                yield link, link + (path[len(target) :] if target else b"/" + path)


def _directories(changes: Iterable[Change]) -> list[bytes]:
    found = {above: None for change in changes for path in (change.path, change.old_path) for above in ancestors(path)}
    return list(found)


def _links(lower_fd: int, rules: RunsLater, changed: list[bytes]) -> Iterator[bytes]:
    """Yield the symlinks whose own name makes what they lead to run later."""
    waiting, seen = deque([b"", *changed]), {b"", *changed}
    for _ in range(MAX_DIRECTORIES):
        if not waiting:
            return
        directory = waiting.popleft()
        for path, entry in _entries(lower_fd, directory):
            if not entry.is_symlink() and not (path.startswith(b".") and entry.is_dir(follow_symlinks=False)):
                continue
            if not rules.why_link(path) and not rules.why(path):
                continue
            if entry.is_symlink():
                yield path
            elif path not in seen:
                seen.add(path)
                waiting.append(path)


def _entries(lower_fd: int, directory: bytes) -> list[tuple[bytes, os.DirEntry[str]]]:
    try:
        fd = open_beneath(lower_fd, directory or b".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # new, or no directory on the real disk
        return []
    prefix = directory + b"/" if directory else b""
    try:
        with os.scandir(fd) as entries:
            return [(prefix + os.fsencode(entry.name), entry) for entry in entries]
    finally:
        os.close(fd)


def resolve(root_fd: int, folder: bytes, path: bytes) -> bytes | None:
    """Return where *path* leads within *folder* (open as *root_fd*), None for outside; what is missing counts as plain.

    The kernel is never asked to follow a link: each is read where it stands.
    """
    done: list[bytes] = []
    rest, hops = deque(path.split(b"/")), 0
    while rest:
        part = rest.popleft()
        if part in (b"", b"."):
            continue
        if part == b".." and done:
            done.pop()
            continue
        target = b"/".join((folder, b"..", *rest)) if part == b".." else _target(root_fd, b"/".join((*done, part)))
        if not target:
            done.append(part)
            continue
        hops += 1
        if target.startswith(b"/"):
            inside = _inside(folder, target)
            if inside is None:
                return None
            done, target = [], inside
        if part == b"..":
            rest.clear()
        if hops > _MAX_HOPS:
            return None
        rest.extendleft(reversed(target.split(b"/")))
    return b"/".join(done)


def _target(root_fd: int, path: bytes) -> bytes:
    try:
        with parent_of(root_fd, path) as (dir_fd, name):
            return os.readlink(name, dir_fd=dir_fd)
    except OSError:  # EINVAL: no link; ENOENT: nothing
        return b""


def _inside(folder: bytes, path: bytes) -> bytes | None:
    """Return an absolute path relative to *folder*, None when it does not lie there."""
    whole = os.path.normpath(path)
    if whole == folder:
        return b""
    return whole[len(folder) + 1 :] if whole.startswith(folder.rstrip(b"/") + b"/") else None
