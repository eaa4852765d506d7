"""Profiles with their compiled filters, kept while their files stay the same."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from supervisor.sandbox import profile_source, seccomp_filter
from supervisor.sandbox.profile import Profile


@dataclass(frozen=True, slots=True)
class Compiled:
    """A profile and its seccomp filter."""

    profile: Profile
    seccomp: bytes


class Profiles:
    """Load, validate and compile each profile once per version of the files."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[tuple[object, ...], Compiled]] = {}

    def get(self, name: str, user: Path | None) -> Compiled:
        """Return the effective profile *name*.

        Raises:
            UsageError: It does not exist or is wrong, with file, line and column.
        """
        key = (name, str(user))
        now = _signature([profile_source.packaged_directory(), profile_source.IT_DIRECTORY, user])
        known = self._known.get(key)
        if known and known[0] == now:
            return known[1]
        profile = profile_source.load_profile(name, user)
        compiled = Compiled(profile, seccomp_filter.compile_filter(profile.seccomp, platform.machine()))
        self._known[key] = (now, compiled)
        return compiled


def _signature(directories: list[Path | None]) -> tuple[object, ...]:
    """What changes when any file in *directories* does."""
    found: list[object] = []
    for directory in directories:
        if directory is None:
            continue
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    found.append((entry.path, status.st_mtime_ns, status.st_ino, status.st_size))
        except OSError as error:
            found.append((str(directory), error.errno))
    return tuple(sorted(found, key=str))
