"""Find what the agent changed: walk the upper, compare the merged view with the real folder.

How a directory is read (each tried on 6.18, upper on the lower's file system and on another, both modes):

- `st_ino` of a merged entry is the lower's inode number as long as nothing was copied up, and for what was copied up
  too (`xino=on`, or one file system); with xino a high bit marks the lower. Only directories of a rootless overlay
  whose upper lies on another file system have numbers of their own.
- So a merged directory is *straight*, the lower one of the same path with changes on top, when it has that one's
  number and not its upper's, or (rootless) when the upper's carries `user.overlay.origin` that the mount hides. Then
  only names in the upper can differ, and the cost is that of the upper, not of the lower.
- Else it is opaque, redirected (renamed) or new: its listing is compared entry by entry, and what is still the very
  same inode is left out. `trusted.overlay.*` is never needed.
- A regular file was copied up rather than created when the index holds a second link of it (system mode,
  `nfs_export=on`), or by `user.overlay.origin` (rootless): so "deleted on the host meanwhile" can be told from "new".

Standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final

from supervisor.workspace.area import Area, Baseline
from supervisor.workspace.bare_repository import BareRepositories
from supervisor.workspace.change import Change, Kind
from supervisor.workspace.entry import is_number_of, lstat_at, names_in, open_directory, opened, opened_staged
from supervisor.workspace.links import Links
from supervisor.workspace.marks import Marks
from supervisor.workspace.pairing import pair_renames
from supervisor.workspace.private_group import private_group
from supervisor.workspace.runs_later import RunsLater
from supervisor.workspace.tree import files_below
from supervisor.workspace.verdict import Landing, judge
from supervisor.workspace.version import Version, version_at, xattrs_at

# Each level holds three descriptors of the usual 1,024, and five of Python's 1,000 frames.
MAX_DEPTH: Final = 100
_BLOCK: Final = 1 << 20
STAGING_NAME: Final = re.compile(rb"\.deskwarden-[0-9a-f]{32}")
_VANISHED: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ESTALE)
CLOCK_WENT_BACK: Final = "the clock went back since the session started: what changed on the real disk can't be told"


def scan(area: Area, baseline: Baseline, rules: RunsLater, marks: Marks) -> list[Change]:
    """Return what the agent changed, sorted by path; what equals the real folder now is no change.

    May be called again and again while the agent runs. Reads contents only of files present in the upper or below a
    renamed directory. *marks* tells what the session's own applies left and what was discarded.

    Raises:
        OSError: with the path, when a directory can't be read.
    """
    walk = _Walk(area, baseline, marks)
    with ExitStack() as stack:
        fds = (area.merged_fd, area.lower_fd, area.upper_fd)
        merged_fd, lower_fd, upper_fd = (_opened_dir(stack, fd, b".") for fd in fds)
        walk.directory(b"", merged_fd, lower_fd, upper_fd, straight=True)
    found = [change for change in walk.found if not marks.is_discarded(change)]
    paired = pair_renames(area, found)
    repositories, links = BareRepositories(area), Links(area.lower_fd, rules, paired)
    judged = [judge(one, rules, walk.landing(one.path), repositories.why(one) or links.why(one)) for one in paired]
    return sorted((_with_digest(change, area) for change in judged), key=lambda change: change.path)


def _opened_dir(stack: ExitStack, dir_fd: int, name: bytes) -> int:
    fd = open_directory(dir_fd, name)
    stack.callback(os.close, fd)
    return fd


class _TooDeepError(Exception):
    """A directory lies deeper than is followed."""


class _Walk:
    """One pass over the three trees; `found` collects the changes."""

    def __init__(self, area: Area, baseline: Baseline, marks: Marks) -> None:
        self.area, self.baseline, self.marks = area, baseline, marks
        self._names: Counter[int] | None = None
        self.clock_back = baseline.clock_went_back()
        self.found: list[Change] = []
        self._landings: dict[bytes, Landing] = {}
        self._private_gid = private_group(os.geteuid())

    def directory(self, path: bytes, merged: int, lower: int, upper: int | None, *, straight: bool) -> None:
        """Compare two directories of the same path."""
        lower_status = os.fstat(lower)
        self._landings[path] = Landing(lower_status.st_mode, lower_status.st_gid, self._private_gid)
        if straight and upper is not None:
            names = names_in(upper)
        else:
            names = sorted({*names_in(merged), *names_in(lower)})
        dirty = self.marks.is_touched_directory(path, lower_status, self.baseline.started_ns)
        for name in names:
            here = path + b"/" + name if path else name
            if not path and STAGING_NAME.fullmatch(name):
                self._reserved(here, upper, name)
            else:
                self._steadily(here, name, (merged, lower, upper), dirty)

    def landing(self, path: bytes) -> Landing:
        """Return the real directory that holds *path*, or the nearest one that exists."""
        folder = path.rpartition(b"/")[0]
        return self._landings[folder] if folder in self._landings else self.landing(folder)

    def _steadily(self, path: bytes, name: bytes, fds: tuple[int, int, int | None], dirty: bool) -> None:
        """Compare one name, again when it changes under the reader: agent and host keep working meanwhile."""
        before = len(self.found)
        for _ in range(3):
            try:
                self._entry(path, name, fds, dirty)
                return
            except _TooDeepError:
                # The whole of it, not the part that can be followed: half a tree is nobody's wish.
                del self.found[before:]
                self._note(self._unfollowed(path, name, fds))
                return
            except OSError as error:
                if error.errno not in _VANISHED:
                    raise
                del self.found[before:]
        self._note(Change(path, "modified", refused="keeps changing while it is read"))

    def _unfollowed(self, path: bytes, name: bytes, fds: tuple[int, int, int | None]) -> Change:
        merged, lower, _ = fds
        old, new = (
            version_at(dir_fd, name, status) if (status := lstat_at(dir_fd, name)) is not None else None
            for dir_fd in (lower, merged)
        )
        kind: Kind = "added" if old is None else "deleted"
        if old is not None and new is not None:
            kind = "metadata" if old.type == new.type else "type"
        return Change(path, kind, old, new, refused=f"holds folders nested more than {MAX_DEPTH} deep")

    def _entry(self, path: bytes, name: bytes, fds: tuple[int, int, int | None], dirty: bool) -> None:
        merged, lower, upper = fds
        old, new = lstat_at(lower, name), lstat_at(merged, name)
        top = lstat_at(upper, name) if upper is not None else None
        if new is not None and old is not None:
            if top is not None or not _same_inode(new, old):
                self._both(path, name, fds, (new, old, top))
        elif new is not None:
            gone = dirty and (_was_copied_up(upper, merged, name, new, top) or self._is_indexed(top))
            self._added(path, name, merged, upper, new, top, "deleted on the real disk since" if gone else "")
        elif old is not None and (top is not None or not self.marks.is_settled(path, old)):
            self._deleted(path, name, lower, old)

    def _is_indexed(self, top: os.stat_result | None) -> bool:
        """Tell whether a file of one name has a second link, which is the index's.

        A review's mount has no index of its own (the session's has it, and two cannot), so it counts that link too.
        """
        if top is None or not stat.S_ISREG(top.st_mode) or top.st_nlink < 2:
            return False
        if self._names is None:
            self._names = Counter(status.st_ino for status in files_below(self.area.upper_fd))
        return self._names[top.st_ino] == 1

    def _both(
        self,
        path: bytes,
        name: bytes,
        fds: tuple[int, int, int | None],
        statuses: tuple[os.stat_result, os.stat_result, os.stat_result | None],
    ) -> None:
        (merged, lower, upper), (new, old, top) = fds, statuses
        if stat.S_IFMT(new.st_mode) != stat.S_IFMT(old.st_mode):
            self._type_changed(path, name, fds, statuses)
            return
        before, after = version_at(lower, name, old), version_at(merged, name, new)
        after = self._without_private(after, upper, name, top)
        if stat.S_ISDIR(new.st_mode):
            self._pair(path, before, after, "metadata", top)
            self._descend(path, name, fds, statuses)
            return
        try:
            same, digest = self._same_contents(path, before, after)
        except PermissionError as error:
            why = f"can't be compared: {error.strerror}"
            self._note(Change(path, "modified", before, after, staged=top is not None, refused=why))
            return
        if not same:
            self._pair(path, before, after, "modified", top, digest)
        else:
            self._pair(path, before, after, "metadata", top, digest)

    def _pair(
        self, path: bytes, old: Version, new: Version, kind: Kind, top: os.stat_result | None, digest: str = ""
    ) -> None:
        if kind == "metadata":
            # A link's own mode and owner mean nothing; its target was compared.
            if new.type == "symlink" or (old.mode, old.uid, old.gid, old.xattrs) == (
                new.mode,
                new.uid,
                new.gid,
                new.xattrs,
            ):
                return
            if (old.uid, old.gid, old.xattrs) == (new.uid, new.gid, new.xattrs):
                kind = "mode"
        conflict = self._conflict(path, old)
        self._note(Change(path, kind, old, new, staged=top is not None, digest=digest, conflict=conflict))

    def _type_changed(
        self,
        path: bytes,
        name: bytes,
        fds: tuple[int, int, int | None],
        statuses: tuple[os.stat_result, os.stat_result, os.stat_result | None],
    ) -> None:
        (merged, lower, upper), (new, old, top) = fds, statuses
        before, after = version_at(lower, name, old), version_at(merged, name, new)
        after = self._without_private(after, upper, name, top)
        conflict = self._conflict(path, before)
        self._note(Change(path, "type", before, after, staged=top is not None, conflict=conflict))
        if before.type == "directory":
            self._each_deleted(path, name, lower)
        if after.type == "directory":
            self._each_added(path, name, merged, upper, top)

    def _descend(
        self,
        path: bytes,
        name: bytes,
        fds: tuple[int, int, int | None],
        statuses: tuple[os.stat_result, os.stat_result, os.stat_result | None],
    ) -> None:
        (merged, lower, upper), (new, old, top) = fds, statuses
        with self._entered(path, (merged, name), (lower, name)) as stack:
            if stack is None:
                return
            below_merged, below_lower = _opened_dir(stack, merged, name), _opened_dir(stack, lower, name)
            below_upper = _opened_dir(stack, upper, name) if upper is not None and _is_dir(top) else None
            straight = (
                below_upper is not None and top is not None and _is_straight(new, old, top, below_upper, below_merged)
            )
            self.directory(path, below_merged, below_lower, below_upper, straight=straight)

    @contextmanager
    def _entered(self, path: bytes, *places: tuple[int, bytes]) -> Iterator[ExitStack | None]:
        """Give a stack for the descriptors of one level; None when the directory can't be entered, which is noted."""
        problem = ""
        if path.count(b"/") >= MAX_DEPTH:
            raise _TooDeepError
        for dir_fd, name in places:
            try:
                os.close(open_directory(dir_fd, name))
            except PermissionError:
                problem = "a directory that its owner can't read or enter; what is below it is not shown"
        if problem:
            dir_fd, name = places[0]
            version = version_at(dir_fd, name)
            self.found = [change for change in self.found if change.path != path]
            self._note(Change(path, "metadata", version, version, refused=problem))
            yield None
            return
        with ExitStack() as stack:
            yield stack

    def _added(
        self,
        path: bytes,
        name: bytes,
        merged: int,
        upper: int | None,
        new: os.stat_result,
        top: os.stat_result | None,
        conflict: str = "",
    ) -> None:
        version = self._without_private(version_at(merged, name, new), upper, name, top)
        self._note(Change(path, "added", new=version, staged=top is not None, conflict=conflict))
        if version.type == "directory":
            self._each_added(path, name, merged, upper, top)

    def _each_added(self, path: bytes, name: bytes, merged: int, upper: int | None, top: os.stat_result | None) -> None:
        with self._entered(path, (merged, name)) as stack:
            if stack is None:
                return
            below = _opened_dir(stack, merged, name)
            below_upper = _opened_dir(stack, upper, name) if upper is not None and _is_dir(top) else None
            for child in sorted(names_in(below)):
                status = lstat_at(below, child)
                child_top = lstat_at(below_upper, child) if below_upper is not None else None
                if status is not None:
                    self._added(path + b"/" + child, child, below, below_upper, status, child_top)

    def _deleted(self, path: bytes, name: bytes, lower: int, old: os.stat_result) -> None:
        version = version_at(lower, name, old)
        self._note(Change(path, "deleted", old=version, conflict=self._conflict(path, version)))
        if version.type == "directory":
            self._each_deleted(path, name, lower)

    def _each_deleted(self, path: bytes, name: bytes, lower: int) -> None:
        with self._entered(path, (lower, name)) as stack:
            if stack is None:
                return
            below = _opened_dir(stack, lower, name)
            for child in sorted(names_in(below)):
                status = lstat_at(below, child)
                if status is not None:
                    self._deleted(path + b"/" + child, child, below, status)

    def _reserved(self, path: bytes, upper: int | None, name: bytes) -> None:
        top = lstat_at(upper, name) if upper is not None else None
        if top is not None and upper is not None:
            self._note(
                Change(path, "added", new=version_at(upper, name, top), refused="the name is reserved for Deskwarden")
            )

    def _conflict(self, path: bytes, old: Version) -> str:
        """Return how the host touched *old* since the session started, or an empty string."""
        if self.clock_back:
            return CLOCK_WENT_BACK
        if old.ctime_ns < self.baseline.started_ns or self.marks.is_own(path, old):
            return ""
        if old.type != "directory":
            return "changed on the real disk since the session started"
        # Entries that come and go move both times of a directory; a chmod or chown moves the ctime alone.
        return "its mode or owner changed on the real disk since" if old.ctime_ns > old.mtime_ns else ""

    def _same_contents(self, path: bytes, old: Version, new: Version) -> tuple[bool, str]:
        if new.type == "symlink":
            return old.target == new.target, ""
        if new.type != "file":
            return (new.dev, new.ino) == (old.dev, old.ino), ""
        unreadable = not new.mode & stat.S_IRUSR
        if old.size != new.size and not unreadable:
            return False, ""
        return _compare(self.area, path, with_digest=unreadable)

    def _without_private(self, version: Version, upper: int | None, name: bytes, top: os.stat_result | None) -> Version:
        """Fill in the extended attributes that an unreadable file hides, from the upper."""
        if version.type != "file" or version.mode & stat.S_IRUSR or upper is None or top is None:
            return version
        return version.with_xattrs(xattrs_at(upper, name))

    def _note(self, change: Change) -> None:
        self.found.append(change)


def _same_inode(new: os.stat_result, old: os.stat_result) -> bool:
    """Tell whether a merged entry that the upper does not hold is the lower's of the same path."""
    if not is_number_of(new.st_ino, old.st_ino) or stat.S_IFMT(new.st_mode) != stat.S_IFMT(old.st_mode):
        return False
    return _is_dir(new) or new.st_ctime_ns == old.st_ctime_ns


def _is_dir(status: os.stat_result | None) -> bool:
    return status is not None and stat.S_ISDIR(status.st_mode)


def _is_straight(new: os.stat_result, old: os.stat_result, top: os.stat_result, upper: int, merged: int) -> bool:
    if is_number_of(new.st_ino, old.st_ino) and new.st_ino != top.st_ino:
        return True
    return _hidden_mark(upper, merged, "user.overlay.origin") and not _hidden_mark(upper, merged, "user.overlay.opaque")


def _hidden_mark(upper: int | str, merged: int | str, name: str) -> bool:
    """Tell whether the upper carries overlayfs's attribute: one that the agent set itself shows in the mount too."""
    try:
        return name in os.listxattr(upper) and name not in os.listxattr(merged)
    except OSError:
        return False


def _was_copied_up(
    upper: int | None, merged: int, name: bytes, new: os.stat_result, top: os.stat_result | None
) -> bool:
    if upper is None or top is None or not stat.S_ISREG(top.st_mode):
        return False
    if top.st_nlink > new.st_nlink:
        return True
    with ExitStack() as stack:
        links = []
        for dir_fd in (upper, merged):
            holder = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
            stack.callback(os.close, holder)
            links.append(f"/proc/self/fd/{holder}")
        return _hidden_mark(links[0], links[1], "user.overlay.origin")


def _compare(area: Area, path: bytes, *, with_digest: bool) -> tuple[bool, str]:
    digest = hashlib.sha256()
    same = True
    with opened(area.lower_fd, path) as old_fd, opened_staged(area.merged_fd, area.upper_fd, path) as new_fd:
        while same or with_digest:
            new = os.read(new_fd, _BLOCK)
            same = same and new == os.read(old_fd, _BLOCK)
            digest.update(new)
            if not new:
                break
    return same, digest.hexdigest() if with_digest else ""


def _with_digest(change: Change, area: Area) -> Change:
    new = change.new
    if change.digest or change.refused or new is None or new.type != "file" or new.mode & stat.S_IRUSR:
        return change
    digest = hashlib.sha256()
    try:
        with opened_staged(area.merged_fd, area.upper_fd, change.path) as fd:
            while block := os.read(fd, _BLOCK):
                digest.update(block)
    except OSError as error:
        return replace(change, refused=f"can't be read: {error.strerror}")
    return replace(change, digest=digest.hexdigest())
