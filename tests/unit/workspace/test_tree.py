"""A tree of any depth is visited whole, with few descriptors and no recursion."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.workspace.tree import files_below

DEPTH = 3000


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    fd = os.open(tmp_path, os.O_RDONLY)
    for level in range(DEPTH):
        for name, size in (("before", 1), ("with", level)):
            file = os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd)
            os.truncate(file, size)
            os.close(file)
        for name in ("a", "d", "z"):
            os.mkdir(name, dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    yield tmp_path
    subprocess.run(["rm", "-rf", "--", str(tmp_path / "d")], check=True)


def _sizes(root: Path) -> list[int]:
    fd = os.open(root, os.O_RDONLY)
    try:
        return sorted(status.st_size for status in files_below(fd))
    finally:
        os.close(fd)


def test_every_file_of_a_deep_tree_is_seen_and_every_descriptor_closed(deep: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, before + 300), hard))
    try:
        assert _sizes(deep) == sorted([1] * DEPTH + list(range(DEPTH)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_was_moved_away_meanwhile_ends_only_its_own_part(deep: Path) -> None:
    (deep / "a/once").write_bytes(b"x" * 9999)
    fd = os.open(deep, os.O_RDONLY)
    walk = files_below(fd)
    seen = [next(walk) for _ in range(2 * 1500)]
    # A directory on the way, further down than is held, now lies elsewhere: its `..` is another.
    holder = os.dup(fd)
    for _ in range(1000):
        below = os.open("d", os.O_RDONLY, dir_fd=holder)
        os.close(holder)
        holder = below
    os.rename("d", "moved", src_dir_fd=holder, dst_dir_fd=fd)
    rest = list(walk)
    os.rename("moved", "d", src_dir_fd=fd, dst_dir_fd=holder)
    os.close(holder)
    os.close(fd)
    assert sum(status.st_size == 9999 for status in (*seen, *rest)) == 1


def test_links_are_not_followed_and_count_as_entries(tmp_path: Path) -> None:
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "file").write_text("four", encoding="utf-8")
    assert _sizes(tmp_path) == [2, 4]
