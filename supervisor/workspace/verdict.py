"""What a change needs from a person before it is applied: refused, held, or only a note.

Pure. Standard library only.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from supervisor.workspace.change import Change
from supervisor.workspace.runs_later import RunsLater
from supervisor.workspace.version import ACLS, Version

_SPECIAL: Final = ("FIFO", "socket", "character device", "block device")
_SPECIAL_BITS: Final = ((stat.S_ISUID, "setuid"), (stat.S_ISGID, "setgid"), (stat.S_ISVTX, "sticky"))


@dataclass(frozen=True, slots=True)
class Landing:
    """The real folder that a change lands in.

    Args:
        mode: The folder's mode.
        gid: Its group, which a new entry takes over from a setgid folder.
        private_gid: The group that only the owner is in; -1 when there is none.
    """

    mode: int
    gid: int = -1
    private_gid: int = -1


# A .pyc whose header fits the source runs instead of it, whatever it holds (py_compile, PEP 552): what was reviewed is
# not what runs. In mode direct it is left alone, since every run of Python writes some.
_BYTECODE: Final = (b".pyc", b".pyo")


def judge(change: Change, rules: RunsLater, landing: Landing, place: str = "") -> Change:
    """Fill in what needs a person's word: refused, held, notes.

    Args:
        change: What the scan found.
        rules: The names that run later.
        landing: The folder it lands in.
        place: Why it is held for where it lies, which its name does not tell.
    """
    if change.refused:
        return change
    refused = _refusal(change)
    if refused:
        return replace(change, refused=refused)
    notes, held = list(_notes(change)), []
    if not change.is_directory:
        held = sorted({rules.why(change.path), rules.why(change.old_path)} - {""})
    if not held:
        held = sorted({rules.why_link(path) for path in _links(change)} - {""})
    if place and not held:
        held = [place]
    if change.new is not None and change.path.endswith(_BYTECODE) and not held:
        held = ["runs later: Python may run it in place of the source beside it"]
    if change.new is not None:
        held += _exposures(change.new, change.old, landing)
    return replace(change, held="; ".join(held), notes=tuple(notes))


def _links(change: Change) -> Iterator[bytes]:
    """Yield where the change puts or takes a symlink: taking one away changes what runs as much as putting one."""
    for version, path in ((change.new, change.path), (change.old, change.old_path or change.path)):
        if version is not None and version.type == "symlink":
            yield path


def _refusal(change: Change) -> str:
    if change.new is not None and change.new.type in _SPECIAL:
        return f"a {change.new.type} is never applied"
    if change.old is not None and change.old.type in _SPECIAL:
        return f"the real folder holds a {change.old.type} here, whose removal could not be undone: remove it yourself"
    if change.kind in ("mode", "metadata") and change.old is not None and change.new is not None:
        return _nothing_left(change.new, change.old)
    return ""


def _nothing_left(new: Version, old: Version) -> str:
    """Return why nothing of a change of metadata would be applied, or an empty string."""
    if new.xattrs != old.xattrs or applied_mode(new, old.mode) != old.mode & 0o7777:
        return ""
    if new.mode != old.mode:
        return "setuid, setgid and sticky are never applied to a file"
    return "the owner of a file is never changed"


def applied_mode(new: Version, folder_mode: int) -> int:
    """Return the mode that an apply gives: files lose the special bits, folders inherit setgid from theirs."""
    if new.type != "directory":
        return new.mode & 0o777
    return new.mode & ~stat.S_ISUID | folder_mode & stat.S_ISGID


def _notes(change: Change) -> Iterator[str]:
    new, old = change.new, change.old
    if new is None:
        return
    if new.type == "file":
        dropped = [word for bit, word in _SPECIAL_BITS if new.mode & bit]
        if dropped:
            yield f"{', '.join(dropped)} dropped"
    before = {name for name, _ in old.xattrs} if old else set()
    after = {name for name, _ in new.xattrs}
    for verb, names in (("sets", after - before), ("removes", before - after)):
        for name in sorted(names):
            if name not in ACLS:
                yield f"{verb} extended attribute {name}"
    if old is not None and (old.uid, old.gid) != (new.uid, new.gid):
        yield f"owner {old.uid}:{old.gid} is kept, not {new.uid}:{new.gid}"


def _exposures(new: Version, old: Version | None, landing: Landing) -> Iterator[str]:
    """Return what the change would open to other users.

    Execution by those who may read already is no widening. A new entry may be 0644 or 0755 like any umask 022 file, and
    group-writable in a folder that is, or where the group is the owner's alone (umask 002): the bits reach nobody else.
    """
    if new.type == "symlink":
        return
    if new.acls and new.acls != (old.acls if old is not None else ()):
        yield "has an access control list"
    if old is not None and old.type == new.type:
        allowed = old.mode | (old.mode & 0o044) >> 2
    else:
        allowed = 0o755 | landing.mode & 0o020
    if _group_applied(new, old, landing) == landing.private_gid != -1:
        allowed |= 0o070
    if new.mode & 0o077 & ~allowed:
        before = f"{old.mode:04o} to " if old is not None else ""
        yield f"opens the mode to others: {before}{new.mode & 0o777:04o}"
    special = stat.S_ISUID | stat.S_ISGID
    if new.type == "directory" and new.mode & special & ~(old.mode if old is not None else landing.mode):
        yield "sets setuid or setgid on a directory"


def _group_applied(new: Version, old: Version | None, landing: Landing) -> int:
    """Return the group that the entry has after an apply: that of what it replaces, of a setgid folder, or its own."""
    if old is not None:
        return old.gid
    return landing.gid if landing.mode & stat.S_ISGID else new.gid
