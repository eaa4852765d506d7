"""What the hand opens for a launch: every path of the plan becomes a descriptor, as the owner, symlinks refused.

A path is first resolved by the owner's own rights and then opened by `openat2` without any symlink; what changed in
between is an error, never a different file. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import stat
from dataclasses import asdict, dataclass
from typing import Any, Final

from supervisor.errors import LaunchError, RefusedError
from supervisor.linux.openat2 import AT_FDCWD, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from supervisor.workspace import area_check
from supervisor.workspace.area import take_baseline
from supervisor.workspace.protection import MAX_MOUNTS, find_protection
from supervisor.workspace.runs_later import RunsLater

# What a path that is not there, or not for this owner, answers.
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
_STRICT: Final = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
# Of SCM_MAX_FD: what the plan adds to the sources (stages, mapping, standard streams, a long message's memfd).
_MOST_SOURCES: Final = 253 - 24


@dataclass(frozen=True, slots=True)
class Opened:
    """One answer; `fd` is an index into the descriptors that go with it, -1 for a symlink."""

    path: str
    kind: str
    purpose: str
    fd: int = -1
    target: str = ""


class Opener:
    """Collect descriptors for one launch; `close` gives them back when it fails."""

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.opened: list[Opened] = []
        self.notes: list[str] = []
        self.protected: list[str] = []
        self._listings: dict[str, list[str]] = {}

    def add(self, item: dict[str, Any]) -> None:
        """Open one item: ``{path, purpose, required}``; a path with ``*`` is a glob (system files only)."""
        path, purpose, required = str(item["path"]), str(item["purpose"]), bool(item.get("required"))
        if purpose == "etc" and "*" in path:
            directory, pattern = os.path.split(path)
            for name in fnmatch.filter(self._names(directory), pattern):
                self._add_plain(f"{directory}/{name}", purpose, False)
        elif purpose == "protected":
            self.protected.append(path)
        elif purpose == "ask":
            self._add_kind(path)
        elif purpose in ("system", "etc", "device"):
            self._add_plain(path, purpose, required)
        else:
            self.add_resolved(path, purpose, required)

    def _names(self, directory: str) -> list[str]:
        if directory not in self._listings:
            try:
                self._listings[directory] = sorted(os.listdir(directory))
            except OSError:
                self._listings[directory] = []
        return self._listings[directory]

    def _add_kind(self, path: str) -> None:
        """What can be asked for is not opened; only that it is a file is told, and a directory is taken for granted."""
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.stat(path).st_mode):
                self.opened.append(Opened(path, "file", "ask"))

    def _add_plain(self, path: str, purpose: str, required: bool) -> None:
        """System paths: a symlink stays one."""
        try:
            self._keep(path, purpose)
        except OSError as error:
            if error.errno == errno.ELOOP:
                self._add_link(path, purpose, required)
            elif required or error.errno not in _ABSENT:
                raise _not_opened(path, error) from error

    def _add_link(self, path: str, purpose: str, required: bool) -> None:
        try:
            self.opened.append(Opened(path, "symlink", purpose, -1, os.readlink(path)))
        except OSError as error:  # EINVAL: the link is not the last part but one above it
            if required:
                raise _not_opened(path, error) from error

    def protect(self, folder: str, asked: str, fd: int, rules: RunsLater) -> None:
        """Open what mode ``direct`` protects in *folder* (*fd* refers to it), as it stands, never through a link.

        Args:
            asked: The folder as it was named, which may lead there through symlinks.
        """
        below = folder.rstrip("/") + "/"
        named = [os.fsencode(path.removeprefix(asked.rstrip("/") + "/")) for path in self.protected]
        found = find_protection(fd, rules, named, mounts=min(MAX_MOUNTS, max(0, _MOST_SOURCES - len(self.fds))))
        self.notes += found.notes(folder)
        for path, purpose in found.mounts.items():
            self._keep(below + os.fsdecode(path), purpose)

    def add_resolved(self, path: str, purpose: str, required: bool) -> None:
        """The owner's paths: shown where they really are, and linked to from where they were named."""
        real = path
        try:
            try:
                self._keep(path, purpose)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                real = os.path.realpath(path)
                self._keep(real, purpose)
        except OSError as error:
            if required or error.errno not in _ABSENT:
                raise _not_opened(path, error) from error
            return
        if real != path:
            self.opened.append(Opened(path, "symlink", purpose, -1, real))

    def _keep(self, path: str, purpose: str) -> None:
        fd = openat2(AT_FDCWD, path, os.O_PATH, _STRICT)
        mode = os.fstat(fd).st_mode
        kind = (
            "directory"
            if stat.S_ISDIR(mode)
            else "file"
            if stat.S_ISREG(mode)
            else "device"
            if stat.S_ISCHR(mode)
            else ""
        )
        if not kind:
            os.close(fd)
            raise RefusedError(f"{path}: neither a file nor a directory", "only files and directories can be shown")
        self.fds.append(fd)
        self.opened.append(Opened(path, kind, purpose, len(self.fds) - 1))

    def close(self) -> None:
        """Close everything that was opened."""
        while self.fds:
            with contextlib.suppress(OSError):
                os.close(self.fds.pop())


def _not_opened(path: str, error: OSError) -> LaunchError:
    return LaunchError(f"open {path}", error.errno or 0, "", f"check the path and your rights to it: ls -ld {path}")


def open_all(request: dict[str, Any], store_fd: int, empty_fd: int) -> tuple[dict[str, Any], list[int]]:
    """Answer an ``open`` request: open its items, check its areas, make the stages.

    Returns:
        The answer's fields and the descriptors that go with it (the caller closes them after sending).
    """
    opener = Opener()
    made: list[str] = []
    try:
        for item in request["items"]:
            opener.add(item)
        answer: dict[str, Any] = {"notes": opener.notes}
        answer["areas"] = _check_areas(opener, request, answer["notes"])
        if request["mode"] == "direct":
            _protect(opener, request)
        answer["stages"] = _make_stages(opener, request, answer["areas"], store_fd, made)
        opener.fds.append(os.dup(empty_fd))
        opener.opened.append(Opened("", "directory", "empty", len(opener.fds) - 1))
        baseline = take_baseline()
        answer["baseline"] = {
            "started_ns": baseline.started_ns,
            "realtime_minus_boottime_ns": baseline.realtime_minus_boottime_ns,
        }
        answer["sources"] = [asdict(item) for item in opener.opened]
        return answer, opener.fds
    except BaseException:
        opener.close()
        raise


def _check_areas(opener: Opener, request: dict[str, Any], notes: list[str]) -> list[str]:
    """Check each area that the agent may write; returns their paths, the workspace first."""
    areas = []
    # A list that grows: a git worktree brings the repository it belongs to.
    for item in opener.opened:
        if item.purpose not in ("workspace", "write") or item.kind == "symlink":
            continue
        fd = opener.fds[item.fd]
        if item.kind != "directory":
            what = "the workspace" if item.purpose == "workspace" else "what is staged for writing"
            raise RefusedError(f"{item.path}: {what} is not a directory", "name the directory that it lies in")
        area_check.check(item.path, fd, request["home"], request["mode"], notes)
        areas.append(item.path)
        if item.purpose == "workspace":
            for path in area_check.git_common_directory(item.path, fd):
                opener.add_resolved(path, "write", True)
    _refuse_overlaps(areas)
    return areas


def _protect(opener: Opener, request: dict[str, Any]) -> None:
    extra = [os.fsencode(pattern) for pattern in request.get("runs_later", ())]
    asked = next(str(item["path"]) for item in request["items"] if item["purpose"] == "workspace")
    for item in [one for one in opener.opened if one.purpose == "workspace" and one.kind == "directory"]:
        rules = RunsLater().extend(extra).in_folder(os.fsencode(item.path))
        try:
            opener.protect(item.path, asked, opener.fds[item.fd], rules)
        except OSError as error:
            why = "it changed while it was opened"
            raise LaunchError(f"protect {item.path}", error.errno or 0, why, "run the command again") from error


def _refuse_overlaps(areas: list[str]) -> None:
    """Two overlays over one real folder would stage the same file twice."""
    for one in areas:
        for other in areas:
            if one is not other and (one == other or one.startswith(other.rstrip("/") + "/")):
                raise RefusedError(f"{one} and {other}: one lies in the other", "stage the outer one alone: -C or -w")


def _make_stages(
    opener: Opener, request: dict[str, Any], areas: list[str], store_fd: int, made: list[str]
) -> list[dict[str, Any]]:
    """Make ``sessions/ID/aN/{upper,work,review}`` for each staged area; the upper looks like the real folder's root."""
    stages: list[dict[str, Any]] = []
    workspace = next((item.path for item in opener.opened if item.purpose == "workspace"), None)
    for number, path in enumerate(areas):
        if path == workspace and request["mode"] == "direct":
            continue
        source = next(item for item in opener.opened if item.path == path and item.kind == "directory")
        fd = make_stage(store_fd, str(request["id"]), number, os.fstat(opener.fds[source.fd]), path)
        opener.fds.append(fd)
        stages.append({"area": path, "number": number, "fd": len(opener.fds) - 1})
        made.append(path)
    return stages


def make_stage(store_fd: int, session: str, number: int, real: os.stat_result, real_path: str) -> int:
    """Make the stage of area *number*, which lies at *real_path*; returns its directory descriptor.

    Raises:
        RefusedError: Without root, the folder's group is one that cannot be kept.
    """
    current = os.dup(store_fd)
    try:
        for part in ("sessions", session, f"a{number}"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=current)
            following = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = following
        os.mkdir("upper", 0o700, dir_fd=current)
        os.mkdir("work", 0o700, dir_fd=current)
        os.mkdir("review", 0o700, dir_fd=current)  # now: at the time of the review the disk may be full
        try:
            os.chown("upper", -1, real.st_gid, dir_fd=current)
        except PermissionError:
            pass  # another's group: what is changed there gets the owner's
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Rootless the user namespace has no number for it: the overlay could not change a file (EOVERFLOW).
            raise RefusedError(
                f"{real_path}: belongs to a group other than your own, whose files cannot be staged without root",
                f'chgrp -R "$(id -gn)" {real_path}; or --mode direct; or ask IT for the system service',
            ) from error
        os.chmod("upper", stat.S_IMODE(real.st_mode), dir_fd=current)
        return current
    except BaseException:
        os.close(current)
        raise
