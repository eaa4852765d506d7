"""One difference between the real folder and the agent's view of it, as a person reviews it.

Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from supervisor.workspace.version import Version, raw_bytes, text

Kind = Literal["added", "modified", "deleted", "renamed", "mode", "type", "metadata"]


@dataclass(frozen=True, slots=True)
class Change:
    """A difference at one path.

    Args:
        path: Relative to the folder, no leading `./`.
        kind: `mode` and `metadata` leave the contents alone; `type` turns a file into a directory, and so on.
        old: What the real folder holds (for a rename: at `old_path`); None for an addition.
        new: What the agent left; None for a deletion.
        staged: The upper holds an entry of this path. False below a renamed directory, whose files stay in the lower.
        digest: SHA-256 of the contents, kept when reading them moved the ctime that would tell of a later change.
        notes: What `apply` drops or carries beside the contents, in words.
        held: Why it is applied only when named; empty when it is not held.
        conflict: Why it is never applied: the real disk changed too.
        refused: Why it can't be applied at all.
    """

    path: bytes
    kind: Kind
    old: Version | None = None
    new: Version | None = None
    old_path: bytes = b""
    staged: bool = True
    digest: str = ""
    notes: tuple[str, ...] = ()
    held: str = ""
    conflict: str = ""
    refused: str = ""

    @property
    def is_directory(self) -> bool:
        """Tell whether the path is a directory, or was one before it was deleted."""
        version = self.new or self.old
        return version is not None and version.type == "directory"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able value without loss, also for names that are not UTF-8; `from_json` is the inverse."""
        return {
            "path": text(self.path),
            "kind": self.kind,
            "old_path": text(self.old_path),
            "old": self.old.to_json() if self.old else None,
            "new": self.new.to_json() if self.new else None,
            "staged": self.staged,
            "digest": self.digest,
            "notes": list(self.notes),
            "held": self.held,
            "conflict": self.conflict,
            "refused": self.refused,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild what `to_json` returned."""
        return cls(
            path=raw_bytes(value["path"]),
            kind=cast(Kind, value["kind"]),
            old=Version.from_json(value["old"]) if value["old"] else None,
            new=Version.from_json(value["new"]) if value["new"] else None,
            old_path=raw_bytes(value["old_path"]),
            staged=value["staged"],
            digest=value["digest"],
            notes=tuple(value["notes"]),
            held=value["held"],
            conflict=value["conflict"],
            refused=value["refused"],
        )


def is_below(path: bytes, directory: bytes) -> bool:
    """Tell whether *path* is *directory* or lies below it; the empty directory is the whole folder."""
    return not directory or path == directory or path.startswith(directory + b"/")


def ancestors(path: bytes) -> list[bytes]:
    """Return the directories above *path*, outermost first, without the folder itself."""
    parts = path.split(b"/")[:-1]
    return [b"/".join(parts[: n + 1]) for n in range(len(parts))]
