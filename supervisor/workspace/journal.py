"""The plan of one step as it lies in the store: every operation, and the identity of what it replaces and leaves.

Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast

from supervisor.workspace.change import Change
from supervisor.workspace.version import Version, raw_bytes, text

Action = Literal["put", "remove", "adjust"]


@dataclass(frozen=True, slots=True)
class Meta:
    """Whose step it is.

    Args:
        session: Its marks are kept up to date by the step.
        folder: The real folder's path, from which a later undo or recovery opens it again.
        note: Words for the list of steps.
    """

    session: str
    folder: bytes
    note: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry put in place, removed, or (a directory's mode and attributes) adjusted.

    `new` is the staged entry, whose inode ends up at the path; `partner` is the other path of a rename; `staged` is
    False for contents that the upper does not hold.
    """

    index: int
    path: bytes
    action: Action
    old: Version | None
    new: Version | None
    partner: bytes = b""
    staged: bool = True

    @property
    def slot(self) -> bytes:
        """Return the operation's name in the staging directory and below `old/`."""
        return b"%d" % self.index

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able value; `from_json` is the inverse."""
        return {
            "index": self.index,
            "path": text(self.path),
            "action": self.action,
            "old": self.old.to_json() if self.old else None,
            "new": self.new.to_json() if self.new else None,
            "partner": text(self.partner),
            "staged": self.staged,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild what `to_json` returned."""
        return cls(
            value["index"],
            raw_bytes(value["path"]),
            cast(Action, value["action"]),
            Version.from_json(value["old"]) if value["old"] else None,
            Version.from_json(value["new"]) if value["new"] else None,
            raw_bytes(value["partner"]),
            value["staged"],
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a step.

    Args:
        staging: Name of the staging directory in the folder's root.
        root_ino: The folder's inode, by which a later recovery knows it again.
        directories: Directories whose entries change → inode, mtime and ctime before.
        mtimes: Directory → mtime that it gets at the end.
        undoes: The step that this one takes back; 0 for an apply.
    """

    meta: Meta
    created_ns: int
    staging: bytes
    root_ino: int
    operations: tuple[Operation, ...]
    directories: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)
    mtimes: dict[bytes, int] = field(default_factory=dict)
    undoes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able value; `from_json` is the inverse."""
        return {
            "session": self.meta.session,
            "folder": text(self.meta.folder),
            "note": self.meta.note,
            "created_ns": self.created_ns,
            "staging": text(self.staging),
            "root_ino": self.root_ino,
            "operations": [operation.to_json() for operation in self.operations],
            "directories": {text(path): list(times) for path, times in self.directories.items()},
            "mtimes": {text(path): mtime_ns for path, mtime_ns in self.mtimes.items()},
            "undoes": self.undoes,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild what `to_json` returned."""
        return cls(
            Meta(value["session"], raw_bytes(value["folder"]), value["note"]),
            value["created_ns"],
            raw_bytes(value["staging"]),
            value["root_ino"],
            tuple(Operation.from_json(operation) for operation in value["operations"]),
            {raw_bytes(path): (ino, mtime, ctime) for path, (ino, mtime, ctime) in value["directories"].items()},
            {raw_bytes(path): mtime_ns for path, mtime_ns in value["mtimes"].items()},
            value["undoes"],
        )


@dataclass(slots=True)
class Outcome:
    """What a step did: per operation what it left (None after a removal), or why not."""

    left: dict[int, Version | None] = field(default_factory=dict)
    conflicts: dict[int, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able value; `from_json` is the inverse."""
        return {
            "left": {str(index): one.to_json() if one else None for index, one in self.left.items()},
            "conflicts": {str(index): why for index, why in self.conflicts.items()},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild what `to_json` returned."""
        return cls(
            {int(index): Version.from_json(one) if one else None for index, one in value["left"].items()},
            {int(index): why for index, why in value["conflicts"].items()},
        )


def operations_for(changes: list[Change]) -> list[Operation]:
    """Return the operations that carry out *changes*, in an order that works.

    Removals first, deepest first, so that a directory is empty when its turn comes; then what is put in place,
    outermost first, so that parents exist. `new` still is what the agent left; staging replaces it by the staged entry.
    """
    removals = [(c.path, c.old, b"") for c in changes if c.kind == "deleted"]
    removals += [(c.old_path, c.old, c.path) for c in changes if c.kind == "renamed"]
    removals.sort(key=lambda one: (-one[0].count(b"/"), one[0]))
    found = [Operation(n, path, "remove", old, None, partner) for n, (path, old, partner) in enumerate(removals)]
    rest = sorted((c for c in changes if c.kind != "deleted"), key=lambda c: (c.path.count(b"/"), c.path))
    for index, change in enumerate(rest, start=len(found)):
        renamed = change.kind == "renamed"
        action: Action = "adjust" if change.kind in ("mode", "metadata") and change.is_directory else "put"
        old = None if renamed else change.old
        found.append(Operation(index, change.path, action, old, change.new, change.old_path, change.staged))
    return found
