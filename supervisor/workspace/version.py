"""One version of a directory entry: what it is, its metadata, and which inode it was.

The same value describes both sides of a change, the files in the journal, and the old versions kept for undo.
Standard library only.
"""

from __future__ import annotations

import base64
import errno
import os
import stat
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

Type = Literal["file", "directory", "symlink", "FIFO", "socket", "character device", "block device"]

_TYPES: Final[dict[int, Type]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
ACLS: Final = ("system.posix_acl_access", "system.posix_acl_default")
_NO_XATTRS: Final = (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES)


def text(raw: bytes) -> str:
    """Return any bytes as a string that `raw_bytes` turns back, also through JSON."""
    return raw.decode("utf-8", "surrogateescape")


def raw_bytes(value: str) -> bytes:
    """Turn back what `text` made."""
    return value.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Version:
    """A file, directory, symlink or special file at one moment.

    `xattrs` holds what may be carried over: `user.*` without overlayfs's own, and POSIX ACLs.
    """

    type: Type
    mode: int
    size: int
    uid: int
    gid: int
    dev: int
    ino: int
    nlink: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    target: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def of(cls, status: os.stat_result, target: bytes = b"", xattrs: tuple[tuple[str, bytes], ...] = ()) -> Self:
        """Make the version that *status* describes."""
        return cls(
            _TYPES[stat.S_IFMT(status.st_mode)],
            stat.S_IMODE(status.st_mode),
            status.st_size,
            status.st_uid,
            status.st_gid,
            status.st_dev,
            status.st_ino,
            status.st_nlink,
            status.st_atime_ns,
            status.st_mtime_ns,
            status.st_ctime_ns,
            target,
            xattrs,
        )

    @property
    def stamp(self) -> Stamp:
        """Return the identity that a later change of the inode breaks; a directory's entries are no part of it."""
        return (self.ino, 0 if self.type == "directory" else self.ctime_ns)

    @property
    def acls(self) -> tuple[tuple[str, bytes], ...]:
        """Return the POSIX ACLs."""
        return tuple(pair for pair in self.xattrs if pair[0] in ACLS)

    def is_same_object(self, other: Version, *, ctime: bool = True) -> bool:
        """Tell whether both are the same inode, unchanged between. Without *ctime* after our own rename moved it.

        Within one folder, so without st_dev, which another boot may number anew.
        """
        if (self.type, self.ino) != (other.type, other.ino):
            return False
        if self.type == "directory":
            return True
        mine = (self.size, self.mtime_ns, self.mode, self.uid, self.gid)
        theirs = (other.size, other.mtime_ns, other.mode, other.uid, other.gid)
        return mine == theirs and (not ctime or self.ctime_ns == other.ctime_ns)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able value; `from_json` is the inverse."""
        plain = (name for name in self.__slots__ if name not in ("target", "xattrs"))
        value: dict[str, Any] = {name: getattr(self, name) for name in plain}
        if self.target:
            value["target"] = text(self.target)
        if self.xattrs:
            value["xattrs"] = {name: base64.b64encode(raw).decode() for name, raw in self.xattrs}
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild what `to_json` returned."""
        fields = dict(value)
        target = raw_bytes(fields.pop("target", ""))
        xattrs = tuple((name, base64.b64decode(raw)) for name, raw in fields.pop("xattrs", {}).items())
        return cls(**fields, target=target, xattrs=xattrs)

    def with_xattrs(self, xattrs: tuple[tuple[str, bytes], ...]) -> Version:
        """Return this version with other extended attributes."""
        return replace(self, xattrs=xattrs)


Stamp = tuple[int, int]
"""(st_ino, st_ctime_ns): ctime can't be set back by hand, so the pair names one state of one inode."""


def version_at(dir_fd: int, name: bytes, status: os.stat_result | None = None) -> Version:
    """Describe the entry *name* of a directory, its link target and extended attributes included.

    Raises:
        OSError: ENOENT when it is gone.
    """
    if status is None:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return Version.of(status, os.readlink(name, dir_fd=dir_fd))
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return Version.of(status)
    return Version.of(status, xattrs=xattrs_at(dir_fd, name))


def xattrs_at(dir_fd: int, name: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return the allowed extended attributes of an entry, sorted; the entry is not opened for reading."""
    holder = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        # The *xattr(2) calls refuse O_PATH, and only take paths beside; the magic link stands for the inode held.
        return xattrs_of(f"/proc/self/fd/{holder}")
    finally:
        os.close(holder)


def xattrs_of(place: str | int) -> tuple[tuple[str, bytes], ...]:
    """Return the allowed extended attributes of a descriptor or a `/proc/self/fd` link; none where unsupported."""
    try:
        names = os.listxattr(place)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return ()
        raise
    found = []
    for name in sorted(names):
        if is_allowed_xattr(name):
            try:
                found.append((name, os.getxattr(place, name)))
            except OSError as error:
                if error.errno not in _NO_XATTRS:
                    raise
    return tuple(found)


def is_allowed_xattr(name: str) -> bool:
    """Tell whether an extended attribute may be shown and carried over (architecture, the sandbox, 9)."""
    return name in ACLS or (name.startswith("user.") and not name.startswith("user.overlay."))
