"""A directory of any name is a repository to git when it holds HEAD, objects and refs: what git obeys there is held.

Every git command below such a directory reads its `config` (fsmonitor, pager, aliases: programs), so it takes no `.git`
to run code. `commondir` stands in for objects and refs, which then lie where it points (setup.c, is_git_directory).

An ordinary repository that exists stays workable: HEAD, objects and refs run nothing and are held only where they would
turn a directory into a repository. Directories named `.git` are left to `runs_later`, which knows them by name.
Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from supervisor.workspace.area import Area
from supervisor.workspace.change import Change
from supervisor.workspace.entry import lstat_below

# `info` alone: a symlink in its place.
_OBEYED: Final = re.compile(
    rb"config|config\.worktree|commondir|info|info/attributes|objects/info/alternates"
    rb"|(?:hooks|rebase-merge|rebase-apply|sequencer)(?:/.*)?",
    re.DOTALL,
)
_MAKES: Final = (b"HEAD", b"objects", b"refs")
_PARTS: Final = (*_MAKES, b"commondir")
_OBEYED_HERE: Final = "runs later: git obeys it, its directory is a bare repository"
_MADE_HERE: Final = "runs later: it makes its directory a repository, whose configuration git obeys"


class BareRepositories:
    """Answers for one scan of *area*; what it found about a directory is kept."""

    def __init__(self, area: Area) -> None:
        self._trees = (area.merged_fd, area.lower_fd)
        self._known: dict[bytes, tuple[frozenset[bytes], frozenset[bytes]]] = {}

    def why(self, change: Change) -> str:
        """Return why *change* is held, or an empty string."""
        for path in {change.path, change.old_path} - {b""}:
            if not change.is_directory and any(self._is_repository(one) for one in obeying(path)):
                return _OBEYED_HERE
        return _MADE_HERE if change.new is not None and self._is_made_by(change.path) else ""

    def _is_made_by(self, path: bytes) -> bool:
        directory, _, name = path.rpartition(b"/")
        if name not in _MAKES or directory.rpartition(b"/")[2] == b".git" or not self._is_repository(directory):
            return False
        _merged, real = self._parts(directory)
        # Where HEAD is new, holding it is enough, and what lies in objects and refs has its folders.
        return not is_repository(real) and (name == b"HEAD" or b"HEAD" in real)

    def _is_repository(self, directory: bytes) -> bool:
        # Either tree may bring a part: not everything in the merged view has to be applied.
        merged, real = self._parts(directory)
        return is_repository(merged | real)

    def _parts(self, directory: bytes) -> tuple[frozenset[bytes], frozenset[bytes]]:
        if directory not in self._known:
            merged, real = (frozenset(_found(tree, directory)) for tree in self._trees)
            self._known[directory] = merged, real
        return self._known[directory]


def is_repository(parts: frozenset[bytes]) -> bool:
    """Tell whether git takes a directory with these entries for a repository; of whatever type, links are followed."""
    return b"HEAD" in parts and (b"commondir" in parts or {b"objects", b"refs"} <= parts)


def obeying(path: bytes) -> Iterator[bytes]:
    """Yield the directories that would have to be repositories for git to obey *path*."""
    parts = path.split(b"/")
    for at in range(len(parts)):
        if _OBEYED.fullmatch(b"/".join(parts[at:])):
            yield b"/".join(parts[:at])


def _found(tree_fd: int, directory: bytes) -> Iterator[bytes]:
    for name in _PARTS:
        try:
            status = lstat_below(tree_fd, directory + b"/" + name if directory else name)
        except OSError:
            yield name  # what can't be looked at counts as there
        else:
            if status is not None:
                yield name
