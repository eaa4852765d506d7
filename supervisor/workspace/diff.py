"""Show changes as git does, so that `git apply` and `patch -p1` can read them.

Control characters in contents stay as they are: the program that prints to a terminal filters them. Names are quoted.
Lines beginning `deskwarden:` tell what a patch can't say; patch readers skip them. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from supervisor.workspace.area import Area
from supervisor.workspace.change import Change
from supervisor.workspace.entry import opened, opened_staged
from supervisor.workspace.hunks import TextDiff, compare_texts
from supervisor.workspace.version import Version

# Two such files, and their lines as objects, fit in the hand's memory.
TEXT_LIMIT_BYTES: Final = 4 << 20
TEXT_LIMIT_LINES: Final = 200_000
# git looks for a NUL in as much (FIRST_FEW_BYTES in xdiff-interface.c).
_BINARY_PROBE: Final = 8000
_ESCAPES: Final = {
    7: b"\\a",
    8: b"\\b",
    9: b"\\t",
    10: b"\\n",
    11: b"\\v",
    12: b"\\f",
    13: b"\\r",
    34: b'\\"',
    92: b"\\\\",
}
_GRAPH_WIDTH: Final = 40
_NOTHING: Final = b"0" * 7  # git's name of what does not exist, as short as in a small repository
_BLOCK: Final = 1 << 20
_MODES_GIT_TELLS: Final = frozenset((0o644, 0o755))


@dataclass(frozen=True, slots=True)
class FileStat:
    """How much one change changes: lines, or for what is no text its sizes."""

    change: Change
    added: int
    removed: int
    is_text: bool


def render(area: Area, changes: list[Change]) -> Iterator[bytes]:
    """Yield the changes as a patch, piece by piece; reads each file as it comes to it.

    Raises:
        OSError: with the path, when a file can't be read any more.
    """
    folders = {change.path.rpartition(b"/")[0] for change in changes}
    for change in changes:
        yield from _remarks(change)
        if change.refused and (change.new is None or change.new.type not in ("file", "symlink")):
            continue
        if change.kind == "type":
            yield from _deletion(area, change, change.old)
            yield from _addition(area, change, change.new)
        elif change.is_directory:
            yield from _directory(change, is_empty=change.path not in folders)
        elif change.kind == "added":
            yield from _addition(area, change, change.new)
        elif change.kind == "deleted":
            yield from _deletion(area, change, change.old)
        else:
            yield from _modification(area, change)


def file_stats(area: Area, changes: list[Change]) -> list[FileStat]:
    """Count the lines of each change that is not a folder; a refused folder stands for all below it."""
    found = []
    for change in changes:
        if change.is_directory and change.kind != "type" and not change.refused:
            continue
        text_diff = None if change.refused else _compared(area, change)
        if text_diff is None:
            found.append(FileStat(change, 0, 0, False))
        else:
            found.append(FileStat(change, text_diff.added, text_diff.removed, True))
    return found


def stat(area: Area, changes: list[Change]) -> bytes:
    """Return a summary like `git diff --stat`, with a mark on what is held, in conflict or refused."""
    stats = file_stats(area, changes)
    names = [_shown(one.change) for one in stats]
    width = max(map(len, names), default=0)
    most = max((one.added + one.removed for one in stats), default=0)
    lines = []
    for one, name in zip(stats, names, strict=True):
        graph = _graph(one, most) if one.is_text else _sizes(one.change)
        lines.append(b" %s | %s%s\n" % (name.ljust(width), graph, _mark(one.change)))
    added, removed = sum(one.added for one in stats), sum(one.removed for one in stats)
    lines.append(
        b" %d file%s changed, %d insertion%s(+), %d deletion%s(-)\n"
        % (len(stats), _s(len(stats)), added, _s(added), removed, _s(removed))
    )
    return b"".join(lines)


def quote(path: bytes, prefix: bytes = b"") -> bytes:
    """Return a name as git writes it: in C style when it holds quotes, backslashes, control or non-ASCII bytes."""
    if all(32 <= byte < 127 and byte not in (34, 92) for byte in path):
        return prefix + path
    body = b"".join(_ESCAPES.get(byte) or (bytes((byte,)) if 32 <= byte < 127 else b"\\%03o" % byte) for byte in path)
    return b'"' + prefix + body + b'"'


def _remarks(change: Change) -> Iterator[bytes]:
    name = quote(change.path)
    for word, reason in (("refused", change.refused), ("conflict", change.conflict), ("held", change.held)):
        if reason:
            yield f"deskwarden: {word}: ".encode() + name + f": {reason}\n".encode("utf-8", "replace")
    for note in change.notes:
        yield b"deskwarden: note: " + name + f": {note}\n".encode("utf-8", "replace")


def _directory(change: Change, *, is_empty: bool) -> Iterator[bytes]:
    """A patch knows no folders: an empty one, and a new mode, are told in words."""
    name = quote(change.path)
    if change.old is not None and change.new is not None:
        yield b"deskwarden: folder %s: mode %04o, was %04o\n" % (name, change.new.mode, change.old.mode)
    elif change.kind == "deleted":
        yield b"deskwarden: folder %s: deleted\n" % name
    elif is_empty:
        yield b"deskwarden: folder %s: new\n" % name


def _git_mode(version: Version) -> bytes:
    if version.type == "symlink":
        return b"120000"
    return b"100755" if version.mode & 0o100 else b"100644"


def _header(change: Change) -> bytes:
    return b"diff --git %s %s\n" % (quote(change.old_path or change.path, b"a/"), quote(change.path, b"b/"))


def _addition(area: Area, change: Change, new: Version | None) -> Iterator[bytes]:
    if new is None or new.type not in ("file", "symlink"):
        return
    contents = _contents(area, change, new, is_new=True)
    yield from _too_large(change, contents)
    yield _header(change)
    yield b"new file mode %s\n" % _git_mode(new)
    yield from _index(_NOTHING, _blob_name(contents))
    yield from _body(b"", contents, (b"/dev/null", quote(change.path, b"b/")))


def _deletion(area: Area, change: Change, old: Version | None) -> Iterator[bytes]:
    if old is None or old.type not in ("file", "symlink"):
        return
    contents = _contents(area, change, old, is_new=False)
    yield from _too_large(change, contents)
    yield _header(change)
    yield b"deleted file mode %s\n" % _git_mode(old)
    yield from _index(_blob_name(contents), _NOTHING)
    yield from _body(contents, b"", (quote(change.path, b"a/"), b"/dev/null"))


def _modification(area: Area, change: Change) -> Iterator[bytes]:
    if change.old is None or change.new is None:
        return
    old_mode, new_mode = _git_mode(change.old), _git_mode(change.new)
    if change.old.mode != change.new.mode and {change.old.mode, change.new.mode} != _MODES_GIT_TELLS:
        modes = (quote(change.path), change.new.mode, change.old.mode)
        yield b"deskwarden: file %s: mode %04o, was %04o\n" % modes
    is_rename = change.kind == "renamed"
    if old_mode == new_mode and not is_rename and change.kind != "modified":
        return  # a header that nothing follows spoils the next one for `git apply`
    old = _contents(area, change, change.old, is_new=False)
    new = _contents(area, change, change.new, is_new=True)
    differ = change.kind == "modified" or (is_rename and not _are_same(area, change, old, new))
    if differ:
        yield from _too_large(change, old, new)
    yield _header(change)
    if old_mode != new_mode:
        yield b"old mode %s\nnew mode %s\n" % (old_mode, new_mode)
    if is_rename:
        yield b"similarity index %d%%\n" % (_similarity(old, new) if differ else 100)
        yield b"rename from %s\nrename to %s\n" % (quote(change.old_path), quote(change.path))
    if differ:
        yield from _index(_blob_name(old), _blob_name(new), new_mode if old_mode == new_mode else b"")
        yield from _body(old, new, (quote(change.old_path or change.path, b"a/"), quote(change.path, b"b/")))


def _too_large(change: Change, *contents: bytes | None) -> Iterator[bytes]:
    if None in contents:
        yield b"deskwarden: file %s: too large to be compared here\n" % quote(change.path)


def _index(old: bytes, new: bytes, mode: bytes = b"") -> Iterator[bytes]:
    """Yield the line with git's names of both contents, when both were read."""
    if old and new:
        yield b"index %s..%s%s\n" % (old, new, b" " + mode if mode else b"")


def _blob_name(contents: bytes | None) -> bytes:
    if contents is None:
        return b""
    blob = hashlib.sha1(b"blob %d\0" % len(contents), usedforsecurity=False)
    blob.update(contents)
    return blob.hexdigest()[: len(_NOTHING)].encode()


def _body(old: bytes | None, new: bytes | None, names: tuple[bytes, bytes]) -> Iterator[bytes]:
    """Yield the differing lines; for what is no text, or was not read, git's sentence, which `git apply` refuses."""
    if old == new and old is not None:
        return
    if old is None or new is None or _is_binary(old) or _is_binary(new):
        yield b"Binary files %s and %s differ\n" % names
        return
    # git ends a name that holds a space by a tab, so that readers see where it ends.
    ends = [b"\t" if b" " in name else b"" for name in names]
    yield b"--- %s%s\n+++ %s%s\n" % (names[0], ends[0], names[1], ends[1])
    yield from compare_texts(old, new).hunks()


def _are_same(area: Area, change: Change, old: bytes | None, new: bytes | None) -> bool:
    """Return whether a moved file has its contents still; reads both of a size that is too large for a patch."""
    if old is not None and new is not None:
        return old == new
    if change.old is None or change.new is None or change.old.size != change.new.size:
        return False
    with (
        opened(area.lower_fd, change.old_path) as before,
        opened_staged(area.merged_fd, area.upper_fd, change.path) as after,
    ):
        while True:
            blocks = os.read(before, _BLOCK), os.read(after, _BLOCK)
            if blocks[0] != blocks[1]:
                return False
            if not blocks[0]:
                return True


def _is_binary(contents: bytes) -> bool:
    return b"\0" in contents[:_BINARY_PROBE]


def _similarity(old: bytes | None, new: bytes | None) -> int:
    if old is None or new is None or _is_binary(old) or _is_binary(new):
        return 50
    return compare_texts(old, new).similarity


def _contents(area: Area, change: Change, version: Version, *, is_new: bool) -> bytes | None:
    """Return what a patch compares: the target of a symlink, the contents of a file; None when it is too large."""
    if version.type == "symlink":
        return version.target
    if version.size > TEXT_LIMIT_BYTES:
        return None
    file: AbstractContextManager[int]
    if is_new:
        file = opened_staged(area.merged_fd, area.upper_fd, change.path)
    else:
        file = opened(area.lower_fd, change.old_path or change.path)
    with file as fd:
        pieces, left = [], TEXT_LIMIT_BYTES
        while left and (block := os.read(fd, left)):
            pieces.append(block)
            left -= len(block)
    contents = b"".join(pieces)
    return contents if contents.count(b"\n") <= TEXT_LIMIT_LINES else None


def _compared(area: Area, change: Change) -> TextDiff | None:
    if change.kind in ("mode", "metadata"):
        return compare_texts(b"", b"")
    texts = []
    for version, is_new in ((change.old, False), (change.new, True)):
        if version is None or version.type not in ("file", "symlink"):
            texts.append(b"")
            continue
        contents = _contents(area, change, version, is_new=is_new)
        if contents is None or _is_binary(contents):
            return None
        texts.append(contents)
    return compare_texts(*texts)


def _shown(change: Change) -> bytes:
    return b"%s => %s" % (quote(change.old_path), quote(change.path)) if change.old_path else quote(change.path)


def _graph(one: FileStat, most: int) -> bytes:
    count = one.added + one.removed
    scale = min(1.0, _GRAPH_WIDTH / most) if most else 1.0
    plus, minus = (max(1, int(part * scale)) if part else 0 for part in (one.added, one.removed))
    return b"%5d %s%s" % (count, b"+" * plus, b"-" * minus)


def _sizes(change: Change) -> bytes:
    if change.is_directory:
        return b"  folder"
    old, new = (version.size if version is not None else 0 for version in (change.old, change.new))
    return b"  Bin %d -> %d bytes" % (old, new)


def _mark(change: Change) -> bytes:
    for word, reason in (("refused", change.refused), ("conflict", change.conflict), ("held", change.held)):
        if reason:
            return f"  [{word}: {reason}]".encode("utf-8", "replace")
    return b"  [%s]" % change.kind.encode() if change.kind in ("mode", "metadata") else b""


def _s(count: int) -> bytes:
    return b"" if count == 1 else b"s"
