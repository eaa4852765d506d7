"""A private copy of the program that a session runs, held against the digest that its manifest names.

What is hashed is the copy, and the copy is what the sandbox shows at the program's path: whatever happens to the file
afterwards, these bytes are executed. The copy has a name only until it is mounted (a file without one cannot be: the
kernel answers ENOENT). Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any, Final

from supervisor.errors import LaunchError, NotFoundError, RefusedError
from supervisor.linux.openat2 import AT_FDCWD, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from supervisor.workspace.copying import copy_contents, digest_of
from supervisor.workspace.ephemeral_copy import id_of

# Agents that carry their runtime with them have some 200 MB.
MAX_PROGRAM_BYTES: Final = 1 << 30
# Below the daemon's own deadline for it.
LIMIT_S: Final = 60
_STRICT: Final = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_FOLDER: Final = "programs"

Answer = tuple[dict[str, Any], list[int]]


def answer_program(request: dict[str, Any], fds: list[int]) -> Answer:
    """Find the program among ``candidates``, copy it, and compare the copy with ``binaries``.

    Returns:
        ``path``, where it is without any link on the way, and a descriptor (O_PATH) of the copy.

    Raises:
        NotFoundError: There is none.
        RefusedError: The manifest does not name it, or names another content.
        LaunchError: It cannot be read or copied.
    """
    path = _found([str(one) for one in request["candidates"]])
    wanted = {str(one["path"]): str(one["sha256"]) for one in request["binaries"]}
    if path not in wanted:
        named = ", ".join(sorted(wanted)[:3])
        raise RefusedError(f"{path}: the manifest does not name this program, only {named}", "run one that it names")
    name = f"{_FOLDER}/{id_of(request)}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(_FOLDER, 0o700, dir_fd=fds[0])
    try:
        found = _copied(path, fds[0], name)
        if found != wanted[path]:
            raise RefusedError(
                f"{path}: its SHA-256 is {found}, the manifest names {wanted[path]}",
                "it was changed: reinstall it, or ask its publisher for the manifest of this version",
            )
        return {"path": path}, [os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fds[0])]
    except OSError as error:
        drop(fds[0], name)
        raise LaunchError(f"copy {path}", error.errno or 0) from error
    except BaseException:
        drop(fds[0], name)
        raise


def answer_drop_program(request: dict[str, Any], fds: list[int]) -> Answer:
    """Take the copy's name away; a sandbox that shows it keeps it."""
    drop(fds[0], f"{_FOLDER}/{id_of(request)}")
    return {}, []


def drop_all(store_fd: int) -> None:
    """Remove what a hand that died left."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=store_fd)
        try:
            for name in os.listdir(fd):
                os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)


def drop(store_fd: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=store_fd)


def _found(candidates: list[str]) -> str:
    """Return where the first candidate that can be executed really is, as the search in the sandbox would find it."""
    for candidate in candidates:
        try:
            mode = os.stat(candidate).st_mode
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            return os.path.realpath(candidate)
    raise NotFoundError(f"{candidates[-1]}: command not found", "name the program by its path")


def _copied(path: str, store_fd: int, name: str) -> str:
    """Copy *path*, which must have no link on the way; returns the digest of the copy."""
    source = openat2(AT_FDCWD, path, os.O_RDONLY | os.O_NONBLOCK, _STRICT)
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{path}: is no regular file any more", "run the command again")
        if status.st_size > MAX_PROGRAM_BYTES:
            raise RefusedError(f"{path}: {status.st_size} bytes, at most {MAX_PROGRAM_BYTES} are verified")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(name, flags, 0o600, dir_fd=store_fd)
        try:
            copy_contents(source, target)
            os.fchmod(target, 0o555)
            return digest_of(target)
        finally:
            os.close(target)
    finally:
        os.close(source)
