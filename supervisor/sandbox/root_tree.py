"""The new root while it is being built: where a mount may be attached, and where a directory may be made.

Every name is resolved one part at a time with symlinks refused by the kernel. Directories and empty files are made on
tmpfs mounts of this plan only, so that a mount target never appears on a real disk. Directories once opened are kept
open: forty mounts below /etc then cost one look-up of /etc.

Standard library only: runs in the launcher's child between clone and exec.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import Final

from supervisor.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

RESOLVE_STRICT: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


@dataclass(frozen=True, slots=True)
class _Directory:
    fd: int
    device: int
    uid: int
    gid: int


class RootTree:
    """Owns the descriptors it opens; all are close-on-exec."""

    def __init__(self, root_fd: int) -> None:
        self.root_fd = root_fd
        self._own_devices = {os.fstat(root_fd).st_dev}
        self._open: dict[bytes, _Directory] = {b"": _look(root_fd)}

    def add_tmpfs(self, fd: int) -> None:
        """Note that the mount *fd* is a tmpfs of this plan: names may be made on it."""
        self._own_devices.add(os.fstat(fd).st_dev)

    def covered(self, path: str) -> None:
        """Note that a mount was attached at *path*: what was open there lies below it now."""
        name = parts_of(path)
        for known in [one for one in self._open if one == name or one.startswith(name + b"/")]:
            os.close(self._open.pop(known).fd)

    def directory(self, path: str, mode: int = 0o755) -> int:
        """Return the directory at *path* (O_PATH, stays this tree's), making it and its parents where needed.

        Raises:
            OSError: ELOOP for a symlink on the way, ENOENT when it would have to be made on a real disk.
        """
        return self._directory(parts_of(path), mode, path).fd

    def stub(self, path: str) -> None:
        """Make an empty directory at *path* that nobody may open; one that is there already stays as it is."""
        parent, name = self.parent_to_fill(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0, dir_fd=parent)

    def file_target(self, path: str) -> int:
        """Return the file at *path* (O_PATH, the caller's), making it empty where needed."""
        parent, _, name = parts_of(path).rpartition(b"/")
        directory = self._directory(parent, 0o755, path)
        try:
            return openat2(directory.fd, name, os.O_PATH, RESOLVE_STRICT)
        except FileNotFoundError:
            self._check_own(directory, path)
            self._make_file(directory.fd, name)
            return openat2(directory.fd, name, os.O_PATH, RESOLVE_STRICT)

    def existing(self, path: str, flags: int = os.O_PATH) -> int:
        """Open what is at *path* already; the caller owns the descriptor."""
        return openat2(self.root_fd, parts_of(path) or b".", flags, RESOLVE_STRICT)

    def parent_to_fill(self, path: str) -> tuple[int, bytes]:
        """Return a parent on a tmpfs of ours (stays this tree's) and the name to make in it."""
        parent, _, name = parts_of(path).rpartition(b"/")
        directory = self._directory(parent, 0o755, path)
        self._check_own(directory, path)
        return directory.fd, name

    def is_own(self, fd: int) -> bool:
        """Return whether *fd* lies on a tmpfs of this plan."""
        return os.fstat(fd).st_dev in self._own_devices

    def _directory(self, name: bytes, mode: int, path: str) -> _Directory:
        known = self._open.get(name)
        if known is not None:
            return known
        above, _, last = name.rpartition(b"/")
        parent = self._directory(above, 0o755, path)
        try:
            fd = openat2(parent.fd, last, os.O_PATH | os.O_DIRECTORY, RESOLVE_STRICT)
        except FileNotFoundError:
            self._check_own(parent, path)
            self._make_directory(parent.fd, last, mode)
            # Below the agent's home it is the agent's, or it could not write beside what is shown.
            if parent.uid:
                os.chown(last, parent.uid, parent.gid, dir_fd=parent.fd, follow_symlinks=False)
            fd = openat2(parent.fd, last, os.O_PATH | os.O_DIRECTORY, RESOLVE_STRICT)
        found = self._open[name] = _look(fd)
        return found

    def _make_directory(self, parent_fd: int, name: bytes, mode: int) -> None:
        os.mkdir(name, mode, dir_fd=parent_fd)

    def _make_file(self, parent_fd: int, name: bytes) -> None:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444, dir_fd=parent_fd))

    def _check_own(self, directory: _Directory, path: str) -> None:
        if directory.device not in self._own_devices:
            raise OSError(errno.ENOENT, "mount target does not exist, and is not made on a real disk", path)


def parts_of(path: str) -> bytes:
    """Return *path* as bytes without empty and dot parts; ``..`` stays and is refused by the kernel."""
    return b"/".join(part for part in os.fsencode(path).split(b"/") if part not in (b"", b"."))


def _look(fd: int) -> _Directory:
    status = os.fstat(fd)
    return _Directory(fd, status.st_dev, status.st_uid, status.st_gid)
