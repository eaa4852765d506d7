"""Looking at one directory entry by descriptor: never through a symlink, never out of the tree.

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from supervisor.linux.openat2 import open_beneath

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO swapped in for a file must not hang the reader.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NUMBER_64: Final = (1 << 56) - 1
_NUMBER_32: Final = (1 << 32) - 1


def is_number_of(merged: int, lower: int) -> bool:
    """Tell whether the inode number *merged* of an overlay is that of *lower* in its lower layer."""
    return lower in lower_numbers(merged)


def lower_numbers(merged: int) -> tuple[int, int]:
    """Return what the number in the lower layer can be of an overlay's inode number.

    With xino, and layers on several file systems, the layer's number lies in the bits above: at least the top 8, or all
    above 32 where no file system has larger numbers, as with ext4 (fs/overlayfs/super.c, ovl_map_dev_ino).
    """
    return merged & _NUMBER_64, merged & _NUMBER_32


def lstat_at(dir_fd: int, name: bytes) -> os.stat_result | None:
    """Return the entry *name* of a directory, or None when there is none."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def lstat_below(root_fd: int, path: bytes) -> os.stat_result | None:
    """Return the entry at *path* below *root_fd*, or None when it or a parent is missing or no directory."""
    try:
        with parent_of(root_fd, path) as (dir_fd, name):
            return lstat_at(dir_fd, name)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


@contextlib.contextmanager
def parent_of(root_fd: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Open the directory that holds *path*; yield it and the last component.

    Raises:
        OSError: ELOOP when a component is a symlink, ENOTDIR, ENOENT.
    """
    parent, _, name = path.rpartition(b"/")
    dir_fd = open_beneath(root_fd, parent or b".", os.O_PATH | os.O_DIRECTORY)
    try:
        yield dir_fd, name
    finally:
        os.close(dir_fd)


def open_directory(dir_fd: int, name: bytes) -> int:
    """Open the directory *name* for listing; the caller owns the descriptor."""
    return os.open(name, _DIRECTORY, dir_fd=dir_fd)


def names_in(dir_fd: int) -> list[bytes]:
    """Return the names in a directory; a fresh descriptor, since listing moves the offset that duplicates share."""
    fd = os.open(b".", _DIRECTORY, dir_fd=dir_fd)
    try:
        return [os.fsencode(name) for name in os.listdir(fd)]
    finally:
        os.close(fd)


def open_file(root_fd: int, path: bytes) -> int:
    """Open a regular file for reading, without touching its atime where that is allowed."""
    for extra in (os.O_NOATIME, 0):
        try:
            fd = open_beneath(root_fd, path, _FILE | extra)
            break
        except PermissionError as error:
            if error.errno != errno.EPERM or not extra:
                raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file any more", path)
    return fd


@contextlib.contextmanager
def opened(root_fd: int, path: bytes) -> Iterator[int]:
    """`open_file`, closed at the end."""
    fd = open_file(root_fd, path)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened_staged(merged_fd: int, upper_fd: int, path: bytes) -> Iterator[int]:
    """Open a file as the agent left it, also one that the agent made unreadable for its owner.

    The owner may read what is his: the mode of such a file is opened up in the upper for the moment of the open(2), by
    its own descriptor, and put back. That moves its ctime.
    """
    try:
        fd = open_file(merged_fd, path)
    except PermissionError as error:
        if error.errno != errno.EACCES:
            raise
        fd = _open_unreadable(upper_fd, path)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_unreadable(upper_fd: int, path: bytes) -> int:
    holder = open_beneath(upper_fd, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        status = os.fstat(holder)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file any more", path)
        # fchmod(2) refuses O_PATH; the magic link leads to the inode held, whatever its name is now.
        link = b"/proc/self/fd/%d" % holder
        os.chmod(link, stat.S_IMODE(status.st_mode) | stat.S_IRUSR)
        try:
            return os.open(link, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        finally:
            os.chmod(link, stat.S_IMODE(status.st_mode))
    except OSError as error:
        raise OSError(error.errno, f"cannot open the unreadable file: {error.strerror}", path) from error
    finally:
        os.close(holder)


def is_whiteout(status: os.stat_result) -> bool:
    """Tell whether an upper entry is overlayfs's mark for "deleted": a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
