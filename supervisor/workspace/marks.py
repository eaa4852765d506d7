"""What one session remembers beside its upper: what its own applies left on the real disk, and what was discarded.

Without it, a file that `apply` wrote would look like one the host changed. A small JSON file per session in the
owner's store. Standard library only.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Self

from supervisor.workspace.change import Change
from supervisor.workspace.store import make_directory, read_json, write_json
from supervisor.workspace.version import Stamp, Version, raw_bytes, text

_SESSION: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(slots=True)
class Marks:
    """A session's marks.

    Args:
        applied: Path → what the last apply or undo left there.
        settled: The same, for contents that came from below a renamed directory: the upper holds no copy of them, so
            only these marks tell "applied" from "deleted by the agent".
        relinked: Inode → ctime, for files that a step only moved and put back, or that lost a hard link to it.
        directories: Path → inode, ctime before the first of our own changes in a row, ctime after the last.
        discarded: Path → stamp of what the agent had left, or of what it had deleted.
    """

    applied: dict[bytes, Stamp] = field(default_factory=dict)
    settled: dict[bytes, Stamp] = field(default_factory=dict)
    relinked: dict[int, int] = field(default_factory=dict)
    directories: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)
    discarded: dict[bytes, Stamp] = field(default_factory=dict)

    def is_own(self, path: bytes, version: Version) -> bool:
        """Tell whether this state of *path* is what the session's own apply left."""
        stamp = (version.ino, version.ctime_ns)
        return self.applied.get(path) == stamp or self.relinked.get(version.ino) == version.ctime_ns

    def is_settled(self, path: bytes, status: os.stat_result) -> bool:
        """Tell whether *path* on the real disk is what an apply put there from below a renamed directory."""
        ctime_ns = 0 if stat.S_ISDIR(status.st_mode) else status.st_ctime_ns
        return self.settled.get(path) == (status.st_ino, ctime_ns)

    def is_touched_directory(self, path: bytes, status: os.stat_result, started_ns: int) -> bool:
        """Tell whether the host added, removed or renamed an entry of this real directory since the session's start."""
        ino, before_ns, after_ns = self.directories.get(path, (0, 0, 0))
        own = (ino, after_ns) == (status.st_ino, status.st_ctime_ns)
        return (before_ns if own else status.st_ctime_ns) >= started_ns

    def is_discarded(self, change: Change) -> bool:
        """Tell whether the owner discarded exactly this state of the change."""
        if not self.discarded:
            return False
        return self.discarded.get(change.path) == _discard_stamp(change)

    def discard(self, changes: Iterable[Change]) -> None:
        """Mark *changes* as discarded, a rename on both sides."""
        for change in changes:
            self.discarded[change.path] = _discard_stamp(change)
            if change.old_path and change.old is not None:
                self.discarded[change.old_path] = _deletion_stamp(change.old)

    def forget(self, paths: Iterable[bytes]) -> None:
        """Drop what was discarded at *paths*: they were applied or taken back since."""
        for path in paths:
            self.discarded.pop(path, None)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able value; `from_json` is the inverse."""
        return {
            "applied": {text(path): list(stamp) for path, stamp in self.applied.items()},
            "settled": {text(path): list(stamp) for path, stamp in self.settled.items()},
            "relinked": {str(ino): ctime_ns for ino, ctime_ns in self.relinked.items()},
            "directories": {text(path): list(stamp) for path, stamp in self.directories.items()},
            "discarded": {text(path): list(stamp) for path, stamp in self.discarded.items()},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild what `to_json` returned."""
        return cls(
            applied=_stamps(value["applied"]),
            settled=_stamps(value["settled"]),
            relinked={int(ino): int(ctime_ns) for ino, ctime_ns in value["relinked"].items()},
            directories={raw_bytes(p): (int(a), int(b), int(c)) for p, (a, b, c) in value["directories"].items()},
            discarded=_stamps(value["discarded"]),
        )


def load_marks(store_fd: int, session: str) -> Marks:
    """Return the marks of *session*; empty ones when it has none yet."""
    value = read_json(store_fd, _file(session))
    return Marks() if value is None else Marks.from_json(value)


def save_marks(store_fd: int, session: str, marks: Marks) -> None:
    """Replace the marks of *session*; durable on return."""
    make_directory(store_fd, b"sessions")
    write_json(store_fd, _file(session), marks.to_json())


def _file(session: str) -> bytes:
    if not _SESSION.fullmatch(session):
        raise ValueError(f"session id {session!r}: expected letters, digits, '-' and '_'")
    return b"sessions/%s.json" % session.encode()


def _stamps(value: dict[str, Any]) -> dict[bytes, Stamp]:
    return {raw_bytes(path): (int(ino), int(ctime_ns)) for path, (ino, ctime_ns) in value.items()}


def _discard_stamp(change: Change) -> Stamp:
    if change.new is not None:
        return change.new.stamp
    return _deletion_stamp(change.old) if change.old is not None else (0, 0)


def _deletion_stamp(old: Version) -> Stamp:
    """Whiteouts share one inode, so a deletion is known by what it deletes; the sign keeps it apart from contents."""
    return (-old.ino, old.stamp[1])
