"""What mode ``direct`` mounts read-only: the names in the real folder that run later and exist.

A walk by descriptor, as the owner, outermost directories first. Each protected file or directory is a mount of its own,
and so is each directory above it, else ``mv .git .git2; mkdir .git`` would leave the protection behind. Mounts are
bounded by the descriptors that one message carries; what is left out is named, never passed over.
Standard library only.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from supervisor.linux.openat2 import open_beneath
from supervisor.workspace.bare_repository import is_repository, obeying
from supervisor.workspace.change import ancestors
from supervisor.workspace.runs_later import RunsLater, worktrees_of
from supervisor.workspace.version import text

# Of SCM_MAX_FD (253, include/net/scm.h) the rest is left to the other sources of a launch.
MAX_MOUNTS: Final = 160
# About two seconds of a warm disk.
MAX_ENTRIES: Final = 500_000
# Code of others, which its owner runs as it is: it comes last when mounts are short.
_OF_OTHERS: Final = frozenset((b"node_modules", b"site-packages", b"bower_components", b"vendor", b"third_party"))
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_SHOWN: Final = 5


@dataclass(slots=True)
class Protection:
    """What to mount, outermost first, and what stays open to the agent.

    Attributes:
        mounts: Path → ``protected`` (read-only) or ``pinned`` (writable, but it cannot be renamed).
        links: Symlinks: no mount can stand in their place.
        linked: Files with further names, through which they can be written.
        left_out: Names for which no mount was left.
        unseen: Directories that were not looked into.
    """

    mounts: dict[bytes, str] = field(default_factory=dict)
    links: list[bytes] = field(default_factory=list)
    linked: list[bytes] = field(default_factory=list)
    left_out: list[bytes] = field(default_factory=list)
    unseen: list[bytes] = field(default_factory=list)

    def notes(self, folder: str) -> Iterator[str]:
        """Yield what a person should know about *folder*."""
        for paths, why in (
            (self.links, "a symlink can be replaced"),
            (self.linked, "it can be written by another name (hard link)"),
            (self.left_out, "too many names that run later"),
            (self.unseen, "not searched for names that run later"),
        ):
            if paths:
                names = ", ".join(f"{folder}/{text(path)}" if path else folder for path in paths[:_SHOWN])
                more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
                yield f"not protected in mode direct: {names}{more}: {why}"


def find_protection(
    root_fd: int, rules: RunsLater, named: Iterable[bytes] = (), *, mounts: int = MAX_MOUNTS, entries: int = MAX_ENTRIES
) -> Protection:
    """Return what to mount in the folder *root_fd*.

    Args:
        named: Paths that are protected whatever the list says, if they exist.
        mounts: How many mounts there may be.
        entries: How many directory entries are looked at.
    """
    search = _Search(root_fd, rules, frozenset(named))
    search.run(entries)
    found = search.protection
    for path in sorted(search.files | search.trees, key=_order):
        needed = [above for above in [*ancestors(path), path] if above not in found.mounts]
        if len(found.mounts) + len(needed) > mounts:
            found.left_out.append(path)
            continue
        found.mounts |= dict.fromkeys(needed, "pinned")
        found.mounts[path] = "protected"
        inside = worktrees_of(path)
        if inside in search.worktrees:
            found.mounts[inside] = "pinned"
    return found


def _order(path: bytes) -> tuple[bool, int, bytes]:
    parts = path.split(b"/")
    return not _OF_OTHERS.isdisjoint(parts), len(parts), path


class _Search:
    """One walk: `files` and `trees` are what runs later; of a tree everything."""

    def __init__(self, root_fd: int, rules: RunsLater, named: frozenset[bytes]) -> None:
        self._root, self._rules, self._named = root_fd, rules, named
        self._repositories: set[bytes] = set()
        self._waiting = deque([b""])
        self.files: set[bytes] = set()
        self.trees: set[bytes] = set()
        self.worktrees: set[bytes] = set()
        self.protection = Protection()

    def run(self, entries: int) -> None:
        """Walk until *entries* are seen; what is waiting then is unseen."""
        while self._waiting:
            if entries <= 0:
                self.protection.unseen += self._waiting
                return
            entries -= self._directory(self._waiting.popleft())

    def _directory(self, path: bytes) -> int:
        try:
            fd = open_beneath(self._root, path or b".", _DIRECTORY)
        except OSError:  # unreadable for its owner, or too deep for a path
            self.protection.unseen.append(path)
            return 1
        try:
            with os.scandir(fd) as found:
                entries = [(os.fsencode(entry.name), entry) for entry in found]
            names = frozenset(name for name, _ in entries)
            if path.rpartition(b"/")[2] == b".git" or is_repository(names):
                self._repositories.add(path)
            if path.rpartition(b"/")[2] == b"objects" and path.rpartition(b"/")[0] in self._repositories:
                entries = [(name, entry) for name, entry in entries if name == b"info"]
            for name, entry in sorted(entries, key=lambda pair: pair[0]):
                self._entry(path + b"/" + name if path else name, entry)
        finally:
            os.close(fd)
        return len(names) + 1

    def _entry(self, path: bytes, entry: os.DirEntry[str]) -> None:
        if entry.is_symlink():
            if self._runs_later(path) or self._rules.why_link(path):
                self.protection.links.append(path)
        elif entry.is_dir(follow_symlinks=False):
            if self._is_tree(path):
                self.trees.add(path)
                self._look_for_worktrees(path)
            else:
                self._waiting.append(path)
        elif entry.is_file(follow_symlinks=False) and self._runs_later(path):
            self.files.add(path)
            if entry.stat(follow_symlinks=False).st_nlink > 1:
                self.protection.linked.append(path)

    def _runs_later(self, path: bytes) -> bool:
        return path in self._named or bool(self._rules.why(path)) or self._is_obeyed(path)

    def _is_tree(self, path: bytes) -> bool:
        if path in self._named or self._rules.covers(path):
            return True
        # `info` as a whole, so that no `attributes` is made where there was none.
        return path.rpartition(b"/")[2] in (b"hooks", b"info") and path.rpartition(b"/")[0] in self._repositories

    def _is_obeyed(self, path: bytes) -> bool:
        return bool(self._repositories) and any(one in self._repositories for one in obeying(path))

    def _look_for_worktrees(self, path: bytes) -> None:
        """Go on in an agent's worktrees: they are projects to work on."""
        place = worktrees_of(path)
        if not place:
            return
        try:
            os.close(open_beneath(self._root, place, _DIRECTORY))
        except OSError:
            return
        self.worktrees.add(place)
        self._waiting.append(place)
