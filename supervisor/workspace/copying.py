"""Copy a file's contents and metadata between descriptors: cheap where the file system can share, holes kept.

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from typing import Final

from supervisor.workspace.version import ACLS, Version

FICLONE: Final = 0x40049409  # linux/fs.h, _IOW(0x94, 9, int); the same on x86 and arm64
_BLOCK: Final = 1 << 20
_NOT_SHARED: Final = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)


def copy_contents(source_fd: int, target_fd: int) -> None:
    """Copy all of *source_fd* into the empty file *target_fd*: a reflink, else data only, leaving holes.

    Raises:
        OSError: ENOSPC, EDQUOT, EIO of either side.
    """
    try:
        fcntl.ioctl(target_fd, FICLONE, source_fd)
        return
    except OSError as error:
        if error.errno not in _NOT_SHARED:
            raise
    size = os.fstat(source_fd).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(source_fd, at, os.SEEK_DATA)
            end = os.lseek(source_fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # only a hole is left
            if error.errno != errno.EINVAL:
                raise
            start, end = at, size  # the file system knows no holes
        _copy_range(source_fd, target_fd, start, end)
        at = max(end, start + 1)
    os.ftruncate(target_fd, size)


def _copy_range(source_fd: int, target_fd: int, start: int, end: int) -> None:
    at = start
    with contextlib.suppress(_CannotShare):
        while at < end:
            copied = _copy_file_range(source_fd, target_fd, at, end - at)
            if copied == 0:
                return  # the source was cut meanwhile
            at += copied
    while at < end:
        block = os.pread(source_fd, min(_BLOCK, end - at), at)
        if not block:
            return
        view = memoryview(block)
        while view:
            written = os.pwrite(target_fd, view, at)
            at += written
            view = view[written:]


class _CannotShare(Exception):
    """copy_file_range(2) does not work between these two."""


def _copy_file_range(source_fd: int, target_fd: int, at: int, count: int) -> int:
    try:
        return os.copy_file_range(source_fd, target_fd, count, at, at)
    except OSError as error:
        if error.errno in _NOT_SHARED:
            raise _CannotShare from error
        raise


def digest_of(fd: int) -> str:
    """Return the SHA-256 of a file's contents."""
    digest, at = hashlib.sha256(), 0
    while block := os.pread(fd, _BLOCK, at):
        digest.update(block)
        at += len(block)
    return digest.hexdigest()


def set_metadata(fd: int, version: Version, mode: int) -> None:
    """Give an opened file or directory the owner, attributes, *mode* and times of *version*.

    The owner is kept as far as the caller may. A `user.*` attribute that the file system can't hold is dropped, as by
    `cp -p`; an ACL never is, since the mode alone can be wider than both.

    Raises:
        OSError: ENOTSUP, EPERM for an ACL; ENOSPC.
    """
    _set_owner(fd, version.uid, version.gid)
    for name, value in version.xattrs:
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if name in ACLS or error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EACCES):
                raise
    os.fchmod(fd, mode)
    os.utime(fd, ns=(version.atime_ns, version.mtime_ns))


def _set_owner(fd: int, uid: int, gid: int) -> None:
    status = os.fstat(fd)
    for new_uid, new_gid in ((uid, -1), (-1, gid)):
        if new_uid not in (-1, status.st_uid) or new_gid not in (-1, status.st_gid):
            with contextlib.suppress(PermissionError):
                os.fchown(fd, new_uid, new_gid)
