"""Profiles with their compiled filters, kept while their files stay the same."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor.sandbox import profile_source, seccomp_filter
from supervisor.sandbox.profile import Profile
from supervisor.sandbox.profile_source import Origin, ProfileFile
from supervisor.session.hands import OPEN_DEADLINE_S, Hand


@dataclass(frozen=True, slots=True)
class Compiled:
    """A profile and its seccomp filters: for a staged workspace, and for the real folder."""

    profile: Profile
    seccomp: bytes
    seccomp_direct: bytes

    def filter_for(self, mode: str) -> bytes:
        """Return the filter of a workspace mode."""
        return self.seccomp_direct if mode == "direct" else self.seccomp


class Profiles:
    """Load, validate and compile each profile once per version of the files."""

    def __init__(self) -> None:
        self._signature: tuple[object, ...] = ()
        self._files: tuple[ProfileFile, ...] = ()
        self._known: dict[tuple[object, ...], Compiled] = {}

    async def get(self, name: str, hand: Hand, home: str) -> Compiled:
        """Return the effective profile *name*: packaged, IT's, or the owner's own, which only their hand can read.

        Raises:
            UsageError: It does not exist or is wrong, with file, line and column.
        """
        files = self._common()
        if all(file.name != name for file in files):
            directory = f"{home}/.config/deskwarden/profiles.d"
            answer, _fds = await hand.ask("profiles", (), OPEN_DEADLINE_S, directory=directory)
            files += tuple(
                ProfileFile(
                    item["name"],
                    Origin.USER,
                    item["path"],
                    item["text"].encode("utf-8", "surrogateescape"),
                    item["problem"],
                )
                for item in answer["files"]
            )
        return self._compile(name, files)

    def warm(self) -> None:
        """Compile the default profile now, while everything that takes is surely readable."""
        self._compile("coding", self._common())

    def _common(self) -> tuple[ProfileFile, ...]:
        now = _signature([profile_source.packaged_directory(), profile_source.IT_DIRECTORY])
        if now != self._signature:
            self._files = profile_source.find_profiles(None)
            self._signature = now
            self._known.clear()
        return self._files

    def _compile(self, name: str, files: Sequence[ProfileFile]) -> Compiled:
        key = (name, *files[len(self._files) :])
        if key not in self._known:
            profile = profile_source.resolve(name, files).profile
            rules, machine = profile.seccomp, platform.machine()
            self._known[key] = Compiled(
                profile,
                seccomp_filter.compile_filter(rules, machine),
                seccomp_filter.compile_filter(replace(rules, direct=True), machine),
            )
        return self._known[key]


def _signature(directories: list[Path]) -> tuple[object, ...]:
    """What changes when any file in *directories* does."""
    found: list[object] = []
    for directory in directories:
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    found.append((entry.path, status.st_mtime_ns, status.st_ino, status.st_size))
        except OSError as error:
            found.append((str(directory), error.errno))
    return tuple(sorted(found, key=str))
