"""What is found at a target, and how it is looked at: by descriptor, no link followed, no mount entered, all bounded.

Standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import Any, Final

from supervisor.errors import ConflictError, RefusedError
from supervisor.linux.openat2 import (
    AT_FDCWD,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from supervisor.workspace.target import problem_with

MAX_ITEMS: Final = 4096
MAX_SEEN: Final = 100_000
MAX_DEPTH: Final = 64
MAX_LISTED: Final = 100
_MAX_LABEL_BYTES: Final = 256
LABELS: Final = ("user.deskwarden.level", "user.deskwarden.classes")
LOOK: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_WHY: Final = {
    errno.EXDEV: "a mount",
    errno.EACCES: "not readable",
    errno.EPERM: "not readable",
    errno.ELOOP: "a link",
    errno.ENAMETOOLONG: "its path is too long",
    errno.EWOULDBLOCK: "another program holds a lease on it",
}
ASK_AGAIN: Final = "ask again: the request is about files that are no longer there in that state"

Identity = tuple[int, int]
"""(st_dev, st_ino)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may never be part of an answer, and what is told of a tree.

    Attributes:
        owner_uid: Files of others than this one and root are left out.
        forbidden: Deskwarden's own state; *above* what holds it.
        watched: Component patterns of the sensitivity rules, such as ``(".config", "google-chrome")``.
    """

    owner_uid: int
    forbidden: frozenset[Identity] = frozenset()
    above: frozenset[Identity] = frozenset()
    watched: tuple[tuple[str, ...], ...] = ()

    def check(self, status: os.stat_result, path: str) -> None:
        """Refuse Deskwarden's own state.

        Raises:
            RefusedError: It is that.
        """
        if (status.st_dev, status.st_ino) in self.forbidden:
            raise RefusedError(f"{path}: Deskwarden's own files are never granted", "ask for another folder")

    def is_foreign(self, status: os.stat_result) -> bool:
        """Tell whether it is another user's. Rootless, root's files look like another's: both are not the owner's."""
        return status.st_uid not in (self.owner_uid, 0)


@dataclass(slots=True)
class Survey:
    """What was found; `complete` is false when a bound ended it or something of a tree could not be looked at."""

    root: str
    bounds: Bounds
    items: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    left_out_count: int = 0
    sensitive: list[str] = field(default_factory=list)
    labels: set[tuple[str, str]] = field(default_factory=set)
    files: int = 0
    size_bytes: int = 0
    complete: bool = True
    seen: int = 0

    def leave_out(self, relative: str, why: str) -> None:
        """Note what is no part of the answer; the first hundred by name."""
        self.left_out_count += 1
        if len(self.left_out) < MAX_LISTED:
            self.left_out.append({"name": escaped(relative), "why": why})

    def take(self, relative: str, status: os.stat_result, label: tuple[str, str]) -> None:
        """Note a regular file."""
        self.files += 1
        self.size_bytes += status.st_size
        self.note_label(label)
        if len(self.items) >= MAX_ITEMS:
            self.complete = False
            return
        self.items.append(item_of(f"{self.root.rstrip('/')}/{relative}", status) | {"label": list(label)})

    def note_label(self, label: tuple[str, str]) -> None:
        """Note a label that holds for some of it."""
        if any(label):
            self.labels.add(label)

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the answer."""
        names = ("root", "items", "left_out", "left_out_count", "sensitive", "files", "complete")
        return {name: getattr(self, name) for name in names} | {
            "bytes": self.size_bytes,
            "labels": sorted(list(label) for label in self.labels),
        }


def item_of(path: str, status: os.stat_result) -> dict[str, Any]:
    """Return one file with the identity that any change of it breaks."""
    return {
        "path": path,
        "device": status.st_dev,
        "inode": status.st_ino,
        "size": status.st_size,
        "ctime_ns": status.st_ctime_ns,
        "uid": status.st_uid,
    }


def escaped(name: str) -> str:
    """Return a name for a message and JSON: what is no printable UTF-8 of one spelling as hexadecimal escapes."""
    return repr(os.fsencode(name))[2:-1] if problem_with(name) else name


def look(root_fd: int, relative: str) -> int:
    """Hold what lies at *relative* (O_PATH), a link itself; no way out, no mount entered."""
    return openat2(root_fd, os.fsencode(relative), os.O_PATH | os.O_NOFOLLOW, LOOK)


def reopen(holder_fd: int) -> int:
    """Open for reading exactly the inode that is held; neither FIFO nor lease makes it wait."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    return os.open(f"/proc/self/fd/{holder_fd}", flags)


def label_at(place: str | int) -> tuple[str, str]:
    """Return the label (level, classes) at a path, a link's own, or of a descriptor; empty where there is none."""
    try:
        present = os.listxattr(place, follow_symlinks=isinstance(place, int))
    except OSError:
        return ("", "")
    level, classes = (_label_value(place, name) if name in present else "" for name in LABELS)
    return (level, classes)


def _label_value(place: str | int, name: str) -> str:
    try:
        raw = os.getxattr(place, name, follow_symlinks=isinstance(place, int))
    except OSError:
        return ""
    # A label that can't be read counts as the strictest word that there is, by not being a word at all.
    return raw[:_MAX_LABEL_BYTES].decode("ascii", "replace")


def why_no_item(status: os.stat_result, bounds: Bounds) -> str:
    """Return why an entry is no file that can be granted, or nothing."""
    if stat.S_ISREG(status.st_mode):
        return f"belongs to another user ({status.st_uid})" if bounds.is_foreign(status) else ""
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(status.st_mode), "a device")


def why_not(error: OSError) -> str:
    """Return the reason of a failed look, in words."""
    return _WHY.get(error.errno or 0, f"{error.strerror}")


def hold_item(item: dict[str, Any], root_fd: int = AT_FDCWD) -> int:
    """Hold (O_PATH) the file or folder of an item, as it was when it was found; the caller owns the descriptor.

    Raises:
        ConflictError: It was changed, replaced or removed since.
    """
    path = str(item["path"])
    strict = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | (0 if root_fd == AT_FDCWD else RESOLVE_BENEATH)
    try:
        fd = openat2(root_fd, os.fsencode(path), os.O_PATH | os.O_NOFOLLOW, strict)
    except OSError as error:
        raise ConflictError(f"{path}: {why_not(error)}, and was there when it was asked for", ASK_AGAIN) from error
    try:
        check_unchanged(fd, item)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_unchanged(fd: int, item: dict[str, Any]) -> os.stat_result:
    """Compare a descriptor with an item; of a folder only which one it is.

    Raises:
        ConflictError: It is not the same, or not in the same state.
    """
    status = os.fstat(fd)
    same = (status.st_dev, status.st_ino) == (int(item["device"]), int(item["inode"]))
    if same and not stat.S_ISDIR(status.st_mode):
        same = stat.S_ISREG(status.st_mode) and (status.st_size, status.st_ctime_ns) == (
            int(item["size"]),
            int(item["ctime_ns"]),
        )
    if not same:
        raise ConflictError(f"{item['path']}: it changed since it was asked for", ASK_AGAIN)
    return status
