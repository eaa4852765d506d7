"""Versions for tests that need no file."""

from __future__ import annotations

from supervisor.workspace.version import Type, Version


def make_version(kind: Type = "file", mode: int = 0o644, ino: int = 1, target: bytes = b"", **fields: int) -> Version:
    """Return a version with plain values for all that the test does not name."""
    values = {"size": 1, "uid": 1000, "gid": 1000, "dev": 1, "nlink": 1, "atime_ns": 1, "mtime_ns": 1, "ctime_ns": 1}
    return Version(type=kind, mode=mode, ino=ino, target=target, **(values | fields))
