"""The owner's own configuration files, read as the owner: the service may not enter a private home.

Standard library only.
"""

from __future__ import annotations

import os
import stat
from typing import Any, Final

# Ten times the largest profile that comes with Deskwarden.
MAX_FILE_BYTES: Final = 65536
MAX_FILES: Final = 100


def answer_profiles(request: dict[str, Any], _fds: list[int]) -> tuple[dict[str, Any], list[int]]:
    """Return the profile files of a directory: name, path, and contents or the problem with it."""
    return {"files": _files(str(request["directory"]), ".yaml")}, []


def answer_keys(request: dict[str, Any], _fds: list[int]) -> tuple[dict[str, Any], list[int]]:
    """Return the owner's key files in a directory, as `answer_profiles` does."""
    return {"files": _files(str(request["directory"]), ".json")}, []


def _files(directory: str, ending: str) -> list[dict[str, str]]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(ending))[:MAX_FILES]
    except OSError:
        return []
    return [_read(os.path.join(directory, name), ending) for name in names]


def _read(path: str, ending: str) -> dict[str, str]:
    value = {"name": os.path.basename(path).removesuffix(ending), "path": path, "text": "", "problem": ""}
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return value | {"problem": f"cannot be read: {error.strerror}"}
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return value | {"problem": "not a regular file"}
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            return value | {"problem": "belongs to another user, or others may write it; chmod go-w"}
        return value | {"text": os.read(fd, MAX_FILE_BYTES + 1).decode("utf-8", "surrogateescape")}
    finally:
        os.close(fd)
