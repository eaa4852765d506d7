"""The owner's durable store: small JSON files that are there wholly or not at all, and the numbered steps.

::

    steps/000001/plan.json     what will be done; written before anything is
                 old/N         contents of the versions that operation N replaces
                 commit        from here on the step is carried through, also after a crash
                 abort         the step failed and is taken back, also after a crash
                 done.json     what was done
                 closed        nothing of it is left to do
    sessions/ID.json           the marks of a session

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from typing import Any, Final

_STEP: Final = re.compile(rb"\d{6,}")


def make_directory(dir_fd: int, name: bytes) -> None:
    """Make a private directory, durable on return; one that exists is fine."""
    try:
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    except FileExistsError:
        return
    sync_directory(dir_fd, name.rpartition(b"/")[0] or b".")


def sync_directory(dir_fd: int, name: bytes = b".") -> None:
    """Make the entries of a directory durable."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(dir_fd: int, name: bytes, value: object) -> None:
    """Replace a JSON file by rename; durable on return. A failed write leaves the old one."""
    _replace(dir_fd, name, json.dumps(value, separators=(",", ":")).encode("ascii"))


def read_json(dir_fd: int, name: bytes) -> Any | None:
    """Return a JSON file's value, or None when there is none.

    Raises:
        ValueError: it is damaged.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        return json.loads(file.read())


def set_flag(dir_fd: int, name: bytes) -> None:
    """Create the empty file *name*; durable on return."""
    _replace(dir_fd, name, b"")


def has(dir_fd: int, name: bytes) -> bool:
    """Tell whether *name* exists."""
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _replace(dir_fd: int, name: bytes, contents: bytes) -> None:
    temporary = name + b".new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o600, dir_fd=dir_fd), "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    sync_directory(dir_fd, name.rpartition(b"/")[0] or b".")


def step_numbers(store_fd: int) -> list[int]:
    """Return the numbers of all steps, oldest first."""
    try:
        fd = os.open(b"steps", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=store_fd)
    except FileNotFoundError:
        return []
    try:
        return sorted(int(name) for name in map(os.fsencode, os.listdir(fd)) if _STEP.fullmatch(name))
    finally:
        os.close(fd)


def open_step(store_fd: int, number: int) -> int:
    """Open the directory of a step; the caller owns the descriptor.

    Raises:
        FileNotFoundError: there is no such step.
    """
    return os.open(b"steps/%06d" % number, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=store_fd)


def new_step(store_fd: int) -> tuple[int, int]:
    """Make the next step; return its number and its directory, which the caller owns."""
    make_directory(store_fd, b"steps")
    number = max(step_numbers(store_fd), default=0) + 1
    while True:
        try:
            os.mkdir(b"steps/%06d" % number, 0o700, dir_fd=store_fd)
            break
        except FileExistsError:
            number += 1
    sync_directory(store_fd, b"steps")
    fd = open_step(store_fd, number)
    try:
        make_directory(fd, b"old")
    except OSError:
        os.close(fd)
        drop_step(store_fd, number)
        raise
    return number, fd


def drop_step(store_fd: int, number: int) -> None:
    """Remove a step with all it holds: it was never committed, or is pruned."""
    with contextlib.suppress(FileNotFoundError):
        fd = open_step(store_fd, number)
        try:
            # The plan goes first: a step without one is an empty shell for the next recovery.
            for name in (b"closed", b"done.json", b"abort", b"commit", b"plan.json", b"plan.json.new"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=fd)
            _empty(fd, b"old")
            _empty(fd, b".")
        finally:
            os.close(fd)
        os.rmdir(b"steps/%06d" % number, dir_fd=store_fd)


def _empty(dir_fd: int, name: bytes) -> None:
    """Remove the files of a directory, and the directory unless it is `.`."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    try:
        for entry in os.listdir(fd):
            os.unlink(entry, dir_fd=fd)
    finally:
        os.close(fd)
    if name != b".":
        try:
            os.rmdir(name, dir_fd=dir_fd)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
