"""A policy bundle as it lies on disk: `*.rego`, `data.json`, `roles.json`, and beside them what only tests read."""

from __future__ import annotations

import os
import re
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
# The tree `data` has one owner for each name: the rules' package, and what the worker adds.
TAKEN_ROOTS: Final = frozenset({"deskwarden", "bundle"})

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
    texts = _rego_files(path)
    modules = {name: text for name, text in texts.items() if not name.endswith("_test.rego")}
    if not modules:
        raise UsageError(f"{path}: no *.rego file", _NEXT)
    data = _json_file(path, "data.json")
    if not isinstance(data, dict):
        raise UsageError(f"{path}/data.json: want an object", _NEXT)
    if taken := sorted(TAKEN_ROOTS & set(data)):
        raise UsageError(f"{path}/data.json: the name {taken[0]!r} is taken by the rules themselves", "rename it")
    roles = _json_file(path, "roles.json")
    tests = {name: text for name, text in texts.items() if name not in modules}
    return Bundle(path, modules, tests, data, roles, revision_of(modules, data, roles))


def revision_of(modules: Mapping[str, str], data: Any, roles: Any) -> str:
    """Return the digest of everything that decides."""
    return strict_json.digest({"modules": dict(modules), "data": data, "roles": roles})


def _rego_files(path: str) -> dict[str, str]:
    try:
        names = sorted(name for name in os.listdir(path) if name.endswith(".rego"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", _NEXT) from error
    if len(names) > MAX_FILES:
        raise UsageError(f"{path}: {len(names)} files, at most {MAX_FILES} are read", _NEXT)
    if wrong := [name for name in names if not _NAME.fullmatch(name)]:
        raise UsageError(f"{path}/{wrong[0]}: want a name of small letters, digits, - and _", "rename it")
    return {name: _text(path, name) for name in names}


def _text(path: str, name: str) -> str:
    try:
        return _read(path, name, MAX_FILE_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}/{name}: not UTF-8 text", "save the file as UTF-8") from error


def _json_file(path: str, name: str) -> Any:
    if not os.path.lexists(os.path.join(path, name)):
        return {}
    return strict_json.parse(_read(path, name, MAX_DATA_BYTES), MAX_DATA_BYTES, f"{path}/{name}")


def _read(path: str, name: str, limit_bytes: int) -> bytes:
    """Read a regular file; a link or a pipe in a directory of policies is no policy."""
    where = os.path.join(path, name)
    try:
        fd = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}", _NEXT) from error
    with open(fd, "rb") as file:
        if not os.path.isfile(fd):
            raise RefusedError(f"{where}: not a regular file", _NEXT)
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise UsageError(f"{where}: more than {limit_bytes} bytes", _NEXT)
    return data
