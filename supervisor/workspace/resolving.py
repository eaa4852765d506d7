"""The hand's answer to what a target refers to: resolved once by the owner's rights, then held to by identity.

Links in the typed part are followed once, by the kernel; the canonical path that comes out is opened again without any.
What a ``*`` matches is never followed: links, mounts, FIFOs, sockets, devices, other users' files, and names that can't
stand in a selector (no UTF-8, control characters, a ``*``) are left out by name. Standard library only.
"""

from __future__ import annotations

import os
import stat
from typing import Any, Final

from supervisor.errors import ConflictError, RefusedError, UsageError
from supervisor.linux.openat2 import AT_FDCWD, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from supervisor.linux.statfs import fs_type
from supervisor.workspace.census import survey_tree
from supervisor.workspace.expansion import expand
from supervisor.workspace.survey import (
    Bounds,
    Identity,
    Survey,
    hold_item,
    label_at,
    reopen,
    why_no_item,
    why_not,
)
from supervisor.workspace.target import Target, parse_target, problem_with, refuse_kernel_paths, shown

Answer = tuple[dict[str, Any], list[int]]

# Descriptors of one answer; SCM_MAX_FD is 253.
BATCH: Final = 128
# No person's files, whatever they are mounted at (linux/magic.h; statfs gives the rest as numbers).
_KERNEL_FILE_SYSTEMS: Final = frozenset(
    {"proc", "sysfs"}
    | {
        "0x63677270",  # cgroup2
        "0x27e0eb",  # cgroup
        "0x64626720",  # debugfs
        "0x74726163",  # tracefs
        "0x73636673",  # securityfs
        "0x1cd1",  # devpts
        "0xcafe4a11",  # bpf
        "0x6165676c",  # pstore
        "0x62656570",  # configfs
        "0x65735543",  # fusectl
        "0x42494e4d",  # binfmt_misc
        "0x19800202",  # mqueue
        "0x6e736673",  # nsfs
    }
)


def answer_resolve(request: dict[str, Any], fds: list[int]) -> Answer:
    """Resolve ``{target, home, forbidden, above, watched}``.

    *forbidden* and *above* are lists of ``[st_dev, st_ino]``: Deskwarden's own state, and what holds it. The answer has
    the canonical selector, its kind (``file``, ``tree``, ``pattern``), the items, and with it descriptors of the first
    `BATCH` items for the classifier; `answer_read_items` opens the others.

    Raises:
        UsageError: The target is no path, or nothing is there.
        RefusedError: It is nothing that may be granted.
    """
    asked = str(request["target"])
    target = parse_target(asked, str(request["home"]))
    bounds = _bounds(request, fds[0])
    fd, path = _canonical(target.prefix, asked)
    try:
        status = os.fstat(fd)
        labels = _check_ancestors(path, bounds)
        kind = _kind(target, status, asked)
        if kind == "file":
            found, selector = _one_file(fd, path, status, bounds), path
        else:
            _refuse_too_wide(path, status, str(request["home"]), bounds, kind)
            found, selector = Survey(path, bounds), "/".join([path.rstrip("/"), *(target.tail or ("**",))])
            if kind == "tree":
                survey_tree(fd, found)
            else:
                expand(fd, target.tail, found)
    finally:
        os.close(fd)
    found.labels |= labels
    opened, changed, out = open_items(found.items[:BATCH])
    answer = {"selector": selector, "kind": kind, "device": status.st_dev, "inode": status.st_ino}
    return answer | found.to_json() | {"opened": opened, "changed": changed}, out


def answer_read_items(request: dict[str, Any], _fds: list[int]) -> Answer:
    """Open items of an earlier answer, at most `BATCH`: for reading, or with ``held`` as O_PATH to be mounted.

    Returns:
        ``opened``, the index of each descriptor's item, and ``changed``, those that are not what they were.
    """
    items = list(request["items"])
    if len(items) > BATCH:
        raise UsageError(f"{len(items)} items, at most {BATCH} are opened at once")
    opened, changed, out = open_items(items, held=bool(request.get("held")))
    return {"opened": opened, "changed": changed}, out


def open_items(
    items: list[dict[str, Any]], *, held: bool = False, root_fd: int = AT_FDCWD
) -> tuple[list[int], list[dict[str, str]], list[int]]:
    """Open *items*; returns indices, what could not be opened and why, and descriptors, which the caller owns."""
    opened: list[int] = []
    changed: list[dict[str, str]] = []
    out: list[int] = []
    for at, item in enumerate(items):
        try:
            fd = hold_item(item, root_fd)
        except ConflictError as error:
            changed.append({"path": str(item["path"]), "why": error.message})
            continue
        if not held:
            try:
                fd, holder = reopen(fd), fd
                os.close(holder)
            except OSError as error:
                os.close(fd)
                changed.append({"path": str(item["path"]), "why": why_not(error)})
                continue
        opened.append(at)
        out.append(fd)
    return opened, changed, out


def _canonical(prefix: str, asked: str) -> tuple[int, str]:
    """Follow the links of *prefix* once; returns what is there (O_PATH) and the one path without links to it."""
    try:
        fd = openat2(AT_FDCWD, os.fsencode(prefix), os.O_PATH, RESOLVE_NO_MAGICLINKS)
    except FileNotFoundError as error:
        raise UsageError(f"{shown(asked)}: no such file or folder", "check the name: ls") from error
    except OSError as error:
        raise RefusedError(f"{shown(asked)}: {why_not(error)}", "ask for what its owner may open") from error
    try:
        path = os.fsdecode(os.readlink(f"/proc/self/fd/{fd}"))
        problem = problem_with(path) or ("holds a *" if "*" in path else "")
        if problem:
            raise RefusedError(f"{shown(asked)}: its real path can't be granted: {problem}", "rename it")
        refuse_kernel_paths(path, asked)
        if fs_type(fd) in _KERNEL_FILE_SYSTEMS:
            raise RefusedError(f"{shown(asked)}: the kernel's own file systems are never granted", "ask for a file")
        _check_same(fd, path)
        return fd, path
    except BaseException:
        os.close(fd)
        raise


def _check_same(fd: int, path: str) -> None:
    try:
        again = openat2(AT_FDCWD, os.fsencode(path), os.O_PATH, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        raise ConflictError(f"{path}: it changed while it was looked at: {error.strerror}", "ask again") from error
    try:
        if not os.path.samestat(os.fstat(fd), os.fstat(again)):
            raise ConflictError(f"{path}: it changed while it was looked at", "ask again")
    finally:
        os.close(again)


def _bounds(request: dict[str, Any], store_fd: int) -> Bounds:
    forbidden = frozenset((int(device), int(inode)) for device, inode in request.get("forbidden", ()))
    above = frozenset((int(device), int(inode)) for device, inode in request.get("above", ()))
    watched = tuple(tuple(str(one).lower() for one in rule) for rule in request.get("watched", ()))
    store = os.fstat(store_fd)
    return Bounds(
        os.geteuid(), forbidden | {(store.st_dev, store.st_ino)}, above | _identities_above(store_fd), watched
    )


def _identities_above(fd: int) -> frozenset[Identity]:
    """Return the folders that hold *fd*, as far up as the owner may go; the daemon knows those further up."""
    found = set()
    current = os.dup(fd)
    try:
        while True:
            following = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = following
            status = os.fstat(current)
            identity = (status.st_dev, status.st_ino)
            if identity in found:  # the root is its own parent
                break
            found.add(identity)
    except PermissionError:
        pass
    finally:
        os.close(current)
    return frozenset(found)


def _check_ancestors(path: str, bounds: Bounds) -> set[tuple[str, str]]:
    """Refuse what lies in Deskwarden's own state; returns the labels above, which hold for all below them."""
    labels = set()
    while True:
        bounds.check(os.stat(path, follow_symlinks=False), path)
        label = label_at(path)
        if any(label):
            labels.add(label)
        if path == "/":
            return labels
        path = os.path.dirname(path)


def _kind(target: Target, status: os.stat_result, asked: str) -> str:
    is_folder = stat.S_ISDIR(status.st_mode)
    if target.tail and not is_folder:
        raise UsageError(f"{shown(asked)}: what comes before the * is no folder", "check the name: ls")
    if target.tail and target.tail != ("**",):
        return "pattern"
    return "tree" if is_folder else "file"


def _one_file(fd: int, path: str, status: os.stat_result, bounds: Bounds) -> Survey:
    why = why_no_item(status, bounds)
    if not why:
        try:
            os.close(reopen(fd))
        except OSError as error:
            why = why_not(error)
    if why:
        raise RefusedError(f"{path}: {why}", "ask for a file that is the owner's")
    folder, _, name = path.rpartition("/")
    found = Survey(folder, bounds)
    found.take(name, status, label_at(path))
    return found


def _refuse_too_wide(path: str, status: os.stat_result, home: str, bounds: Bounds, kind: str) -> None:
    if path in ("/", "/home") or os.path.realpath(home).startswith(path.rstrip("/") + "/"):
        raise RefusedError(f"{path}: too wide: it holds more than the owner's files", "name a folder below")
    if kind == "tree" and (status.st_dev, status.st_ino) in bounds.above:
        raise RefusedError(f"{path}: Deskwarden's own files lie in it", "name the folder below that is needed")
    if bounds.is_foreign(status):
        raise RefusedError(f"{path}: belongs to another user ({status.st_uid})", "ask for a folder that is the owner's")


HANDLERS: Final = {"resolve": answer_resolve, "read_items": answer_read_items}
