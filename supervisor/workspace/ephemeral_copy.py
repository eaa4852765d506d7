"""The ephemeral copy of a grant: exactly the files that were asked for, in the owner's store, gone with the grant.

::

    grants/ID/files/…      read-only for the owner too; no extended attribute, no other name of the same inode

No fsync: after a crash nothing of it is wanted. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from typing import Any, Final

from supervisor.errors import ConflictError, LaunchError, RefusedError, UsageError
from supervisor.linux.openat2 import open_beneath
from supervisor.workspace.copying import copy_contents
from supervisor.workspace.resolving import BATCH, Answer, open_items
from supervisor.workspace.survey import MAX_ITEMS, check_unchanged, hold_item, item_of, reopen

MAX_BYTES: Final = 2 << 30
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def answer_copy(request: dict[str, Any], fds: list[int]) -> Answer:
    """Copy ``{id, root, items}``; nothing is left of it when one file is not what was asked for.

    Returns:
        The copy's own items (paths relative to it) and, in this order: an O_PATH descriptor of its folder, and one of
        each of the first `BATCH` - 1 copied files, for the classifier.

    Raises:
        ConflictError: A file changed, was replaced or is gone; or a copy of that id exists.
        RefusedError: More than the bounds.
        LaunchError: The disk is full.
    """
    name, items = id_of(request), list(request["items"])
    _check_bounds(items)
    store_fd = fds[0]
    _make(store_fd, "grants")
    try:
        os.mkdir(f"grants/{name}", 0o700, dir_fd=store_fd)
    except FileExistsError:
        raise ConflictError(f"grant {name} has a copy already", "withdraw that grant first") from None
    try:
        return _filled(store_fd, name, str(request["root"]), items)
    except BaseException as error:
        drop(store_fd, name)
        if isinstance(error, OSError) and error.errno in _FULL:
            step = "free space on the disk that holds Deskwarden's state"
            raise LaunchError("copy the files of the grant", error.errno, "", step) from error
        raise


def answer_read_copy(request: dict[str, Any], fds: list[int]) -> Answer:
    """Open items of a copy for the classifier, at most `BATCH`."""
    items = list(request["items"])
    if len(items) > BATCH:
        raise UsageError(f"{len(items)} items, at most {BATCH} are opened at once")
    root = open_beneath(fds[0], f"grants/{id_of(request)}/files", os.O_PATH | os.O_DIRECTORY)
    try:
        opened, changed, out = open_items(items, root_fd=root)
    finally:
        os.close(root)
    return {"opened": opened, "changed": changed}, out


def answer_drop_copy(request: dict[str, Any], fds: list[int]) -> Answer:
    """Remove the copy of a grant; `removed` is false when there was none."""
    return {"removed": drop(fds[0], id_of(request))}, []


def drop_copies(store_fd: int, living: list[str]) -> int:
    """Remove every copy whose grant is not among the *living*; returns how many."""
    try:
        fd = os.open("grants", _DIRECTORY, dir_fd=store_fd)
    except FileNotFoundError:
        return 0
    try:
        names = [name for name in os.listdir(fd) if name not in living]
    finally:
        os.close(fd)
    return sum(drop(store_fd, name) for name in names)


def drop(store_fd: int, name: str) -> bool:
    """Remove one copy with all it holds; tells whether there was one."""
    try:
        grants = os.open("grants", _DIRECTORY, dir_fd=store_fd)
    except FileNotFoundError:
        return False
    try:
        os.stat(name, dir_fd=grants, follow_symlinks=False)
        _remove(grants, name)
    except FileNotFoundError:
        return False
    finally:
        os.close(grants)
    return True


def _remove(dir_fd: int, name: str) -> None:
    # Our own folders: as many levels as a path has at most, made by `_filled` and read-only to all since.
    os.chmod(name, 0o700, dir_fd=dir_fd)
    fd = os.open(name, _DIRECTORY, dir_fd=dir_fd)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _remove(fd, entry.name)
                else:
                    os.unlink(entry.name, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=dir_fd)


def id_of(request: dict[str, Any]) -> str:
    """Return the request's id, which becomes a file's name."""
    name = str(request["id"])
    if not _ID.fullmatch(name):
        raise UsageError(f"grant id {name[:80]!r}: want letters, digits, _ and -, at most 64")
    return name


def _check_bounds(items: list[dict[str, Any]]) -> None:
    if not 0 < len(items) <= MAX_ITEMS:
        raise RefusedError(f"{len(items)} files to copy, want 1 to {MAX_ITEMS}", "ask for fewer files")
    total = sum(int(item["size"]) for item in items)
    if total > MAX_BYTES:
        raise RefusedError(f"{total} bytes to copy, at most {MAX_BYTES}", "ask for fewer files")


def _filled(store_fd: int, name: str, root: str, items: list[dict[str, Any]]) -> Answer:
    os.mkdir(f"grants/{name}/files", 0o700, dir_fd=store_fd)
    files_fd = open_beneath(store_fd, f"grants/{name}/files", _DIRECTORY)
    out: list[int] = []
    try:
        folders: set[str] = set()
        copies = [_copy(files_fd, _relative(root, str(item["path"])), item, folders) for item in items]
        for folder in sorted(folders, reverse=True):
            os.chmod(folder, 0o500, dir_fd=files_fd)
        os.fchmod(files_fd, 0o500)
        opened, changed, out = open_items(copies[: BATCH - 1], root_fd=files_fd)
        if changed:
            raise ConflictError(f"{changed[0]['path']}: its copy changed in the store", "ask again")
        held = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=files_fd)
        return {"items": copies, "opened": opened}, [held, *out]
    except BaseException:
        for fd in out:
            os.close(fd)
        raise
    finally:
        os.close(files_fd)


def _relative(root: str, path: str) -> str:
    below = root.rstrip("/") + "/"
    relative = path.removeprefix(below)
    if not path.startswith(below) or any(part in ("", ".", "..") for part in relative.split("/")):
        raise UsageError(f"{path}: not below {root}")
    return relative


def _copy(files_fd: int, relative: str, item: dict[str, Any], folders: set[str]) -> dict[str, Any]:
    for parent in _parents(relative):
        if parent not in folders:
            _make(files_fd, parent)
            folders.add(parent)
    holder = hold_item(item)
    try:
        if not stat.S_ISREG(os.fstat(holder).st_mode):
            raise ConflictError(f"{item['path']}: it is a folder; a copy is made of files", "ask again")
        source = reopen(holder)
    finally:
        os.close(holder)
    try:
        target = os.open(
            relative, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=files_fd
        )
        try:
            copy_contents(source, target)
            status = check_unchanged(source, item)  # what was copied is what was decided on
            os.fchmod(target, 0o400)
            os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
            return item_of(relative, os.fstat(target))
        finally:
            os.close(target)
    finally:
        os.close(source)


def _parents(relative: str) -> list[str]:
    parts = relative.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _make(dir_fd: int, name: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=dir_fd)


HANDLERS: Final = {"copy": answer_copy, "read_copy": answer_read_copy, "drop_copy": answer_drop_copy}
