"""A policy bundle as it lies on disk: `*.rego`, `data.json`, `roles.json`, and beside them what only tests read.

Files are read once, as bytes (`read_files`), and judged as these bytes (`parse_bundle`): a signature is over what
decides, whatever happens to the directory meanwhile.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from supervisor import strict_json
from supervisor.errors import RefusedError, UsageError

MAX_FILES: Final = 64
MAX_FILE_BYTES: Final = 256 << 10
MAX_DATA_BYTES: Final = 4 << 20
MATRIX_FILE: Final = "matrix.yaml"
SIGNATURES_FILE: Final = ".signatures.json"
# The tree `data` has one owner for each name: the rules' package, and what the worker adds.
TAKEN_ROOTS: Final = frozenset({"deskwarden", "bundle"})

_OTHERS: Final = ("data.json", "roles.json", MATRIX_FILE, SIGNATURES_FILE)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\.rego")
_NEXT: Final = "deskwarden policy check DIR"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What decides, and what tests it.

    Attributes:
        modules: File name → Rego; *tests* the same of ``*_test.rego``.
        data: The content of data.json.
        roles: The content of roles.json, as `role.parse_roles` reads it.
        revision: Of all that decides; tests do not change it.
    """

    path: str
    modules: Mapping[str, str]
    tests: Mapping[str, str]
    data: Mapping[str, Any]
    roles: Any
    revision: str

    @property
    def document(self) -> dict[str, Any]:
        """The document ``data`` as the engine gets it: with the revision, which every answer names."""
        return {**self.data, "bundle": {"revision": self.revision}}


def default_directory() -> Path:
    """Return the directory of the bundle that comes with the product."""
    return Path(__file__).parent / "bundle"


def read_bundle(directory: str | os.PathLike[str]) -> Bundle:
    """Read *directory* strictly; what is in it is not judged, see `bundle_lint`.

    Raises:
        UsageError: It cannot be read, is too large, holds no rule, or a file is not what its name says.
    """
    path = os.fspath(directory)
    return parse_bundle(path, read_files(path))


def parse_bundle(path: str, files: Mapping[str, bytes]) -> Bundle:
    """Return the bundle that *files* (name → content) make.

    Raises:
        UsageError: It holds no rule, or a file is not what its name says.
    """
    texts = {name: _text(path, name, data) for name, data in sorted(files.items()) if name.endswith(".rego")}
    modules = {name: text for name, text in texts.items() if not name.endswith("_test.rego")}
    if not modules:
        raise UsageError(f"{path}: no *.rego file", _NEXT)
    data, roles = (_json(path, name, files.get(name)) for name in ("data.json", "roles.json"))
    if not isinstance(data, dict):
        raise UsageError(f"{path}/data.json: want an object", _NEXT)
    if taken := sorted(TAKEN_ROOTS & set(data)):
        raise UsageError(f"{path}/data.json: the name {taken[0]!r} is taken by the rules themselves", "rename it")
    tests = {name: text for name, text in texts.items() if name not in modules}
    return Bundle(path, modules, tests, data, roles, revision_of(modules, data, roles))


def revision_of(modules: Mapping[str, str], data: Any, roles: Any) -> str:
    """Return the digest of everything that decides."""
    return strict_json.digest({"modules": dict(modules), "data": data, "roles": roles})


def read_files(directory: str | os.PathLike[str], owner: int | None = None) -> dict[str, bytes]:
    """Return the content of every file that belongs to a bundle, and of its signatures (`SIGNATURES_FILE`).

    Args:
        owner: The uid that must own the directory and each file, with nobody else able to write; None: anybody.

    Raises:
        UsageError: It cannot be read, or is too large.
        RefusedError: A file is no regular one, or not *owner*'s alone.
    """
    path = os.fspath(directory)
    follow = 0 if owner is None else os.O_NOFOLLOW
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", _NEXT) from error
    try:
        _check_owner(path, os.fstat(fd), owner)
        return {name: _read(fd, path, name, owner, _limit_of(name)) for name in _names(fd, path)}
    finally:
        os.close(fd)


def read_own_file(directory: str, name: str, limit_bytes: int, owner: int) -> bytes:
    """Return the content of one file of *owner*'s, in a directory of *owner*'s, that nobody else can write.

    Raises:
        UsageError: It cannot be read, or is too large.
        RefusedError: It is not *owner*'s alone.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise UsageError(f"{directory}: {error.strerror}") from error
    try:
        _check_owner(directory, os.fstat(fd), owner)
        return _read(fd, directory, name, owner, limit_bytes)
    finally:
        os.close(fd)


def _names(fd: int, path: str) -> list[str]:
    there = sorted(os.listdir(fd))
    rego = [name for name in there if name.endswith(".rego")]
    if len(rego) > MAX_FILES:
        raise UsageError(f"{path}: {len(rego)} files, at most {MAX_FILES} are read", _NEXT)
    if wrong := [name for name in rego if not _NAME.fullmatch(name)]:
        raise UsageError(f"{path}/{wrong[0]}: want a name of small letters, digits, - and _", "rename it")
    return rego + [name for name in _OTHERS if name in there]


def _text(path: str, name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}/{name}: not UTF-8 text", "save the file as UTF-8") from error


def _json(path: str, name: str, data: bytes | None) -> Any:
    return {} if data is None else strict_json.parse(data, MAX_DATA_BYTES, f"{path}/{name}")


def _limit_of(name: str) -> int:
    return MAX_FILE_BYTES if name.endswith(".rego") else MAX_DATA_BYTES


def _read(dir_fd: int, path: str, name: str, owner: int | None, limit_bytes: int) -> bytes:
    """Read a regular file; a link or a pipe in a directory of policies is no policy."""
    where = f"{path}/{name}"
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}", _NEXT) from error
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{where}: not a regular file", _NEXT)
        _check_owner(where, status, owner)
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise UsageError(f"{where}: more than {limit_bytes} bytes", _NEXT)
    return data


def _check_owner(where: str, status: os.stat_result, owner: int | None) -> None:
    if owner is None:
        return
    if status.st_uid != owner:
        raise RefusedError(f"{where}: belongs to uid {status.st_uid}, want root", f"chown root:root {where}")
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        raise RefusedError(f"{where}: others may write it (mode {mode:04o})", f"chmod go-w {where}")
