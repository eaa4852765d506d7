"""The keys that a manifest's signatures are held against: the machine's, root's alone, and the owner's own.

What the machine's keys say of a key, or of a publisher's name, holds over the owner's files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from supervisor.config import SYSTEM_CONFIG, system_config
from supervisor.errors import UsageError
from supervisor.identity.trust import MAX_TRUST_FILE_BYTES, Role, TrustedKey, parse_trusted_key

# Below the configuration directory; each of them is checked.
_PARTS: Final = ("policies", "managed", "keys")
_OVERFLOW_UID: Final = "/proc/sys/kernel/overflowuid"


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys there are; *problems* are files that were left out, and why."""

    managed: tuple[TrustedKey, ...] = ()
    own: tuple[TrustedKey, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[TrustedKey, ...]:
        """All of them."""
        return (*self.managed, *self.own)


def combined(managed: Keyring, own: Keyring) -> Keyring:
    """Return both, the machine's first: an owner's file says nothing about its keys and its publishers."""
    held = {trusted.key for trusted in managed.managed}
    publishers = {trusted.name for trusted in managed.managed if Role.PUBLISHER in trusted.roles}
    kept, problems = [], [*managed.problems, *own.problems]
    for trusted in own.own:
        if trusted.key in held:
            continue
        if Role.PUBLISHER in trusted.roles and trusted.name in publishers:
            problems.append(f"a key of your own for the publisher {trusted.name}: the machine's keys name that one")
            continue
        kept.append(trusted)
    return Keyring(managed.managed, tuple(kept), tuple(problems))


def own_keys(files: Iterable[dict[str, Any]]) -> Keyring:
    """Read the owner's key files as their hand handed them over."""
    keys, problems = [], []
    for file in files:
        path, problem = str(file["path"]), str(file["problem"])
        if problem:
            problems.append(f"{path}: {problem}")
            continue
        try:
            keys.append(parse_trusted_key(str(file["text"]).encode("utf-8", "surrogateescape"), path))
        except UsageError as error:
            problems.append(error.message)
    return Keyring(own=tuple(keys), problems=tuple(problems))


class ManagedKeys:
    """Reads ``policies/managed/keys/*.json`` below IT's configuration directory: root's files, or none.

    Args:
        rootless: In the caller's own user namespace real root's files show the overflow uid (user_namespaces(7)), and
            the place cannot be moved.
    """

    def __init__(self, rootless: bool, environment: dict[str, str]) -> None:
        self._base = SYSTEM_CONFIG if rootless else system_config(environment)
        self._root = _overflow_uid() if rootless else 0

    def read(self) -> Keyring:
        """Return the keys of now; a file that others than root may change is left out, and named."""
        place = self._base
        for part in ("", *_PARTS):
            place = os.path.join(place, part) if part else place
            try:
                problem = self._problem(os.stat(place, follow_symlinks=False), stat.S_ISDIR)
            except (FileNotFoundError, NotADirectoryError):
                return Keyring()
            except OSError as error:
                problem = f"cannot be read: {error.strerror}"
            if problem:
                return Keyring(problems=(f"{place}: {problem}",))
        try:
            names = sorted(name for name in os.listdir(place) if name.endswith(".json"))
        except OSError as error:
            return Keyring(problems=(f"{place}: cannot be read: {error.strerror}",))
        keys, problems = [], []
        for name in names:
            try:
                keys.append(self._key(os.path.join(place, name)))
            except UsageError as error:
                problems.append(error.message)
        return Keyring(managed=tuple(keys), problems=tuple(problems))

    def _key(self, path: str) -> TrustedKey:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            if problem := self._problem(os.fstat(fd), stat.S_ISREG):
                raise UsageError(f"{path}: {problem}")
            data = os.read(fd, MAX_TRUST_FILE_BYTES + 1)
        finally:
            os.close(fd)
        return parse_trusted_key(data, path)

    def _problem(self, status: os.stat_result, is_kind: Any) -> str:
        if not is_kind(status.st_mode):
            return "is a link, or neither a directory nor a regular file where one is wanted"
        if status.st_uid != self._root:
            return f"belongs to uid {status.st_uid}, want root"
        if status.st_mode & 0o022:
            return f"others may write it (mode {stat.S_IMODE(status.st_mode):04o}); chmod go-w"
        return ""


def _overflow_uid() -> int:
    with open(_OVERFLOW_UID, encoding="ascii") as file:
        return int(file.read())
