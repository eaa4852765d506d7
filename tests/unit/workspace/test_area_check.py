"""A folder is searched whole for what an overlay left."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from supervisor.errors import RefusedError
from supervisor.workspace import area_check


def test_a_leftover_behind_more_subfolders_than_descriptors_is_found(tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / f"d{number}").mkdir()
    last = os.listdir(tmp_path)[-1]
    (tmp_path / last / "below").mkdir()
    os.setxattr(tmp_path / last / "below", "user.overlay.opaque", b"y")
    fd = os.open(tmp_path, os.O_RDONLY)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        with pytest.raises(RefusedError, match=rf"{last}/below.*user\.overlay\.opaque"):
            area_check.check(str(tmp_path), fd, "/home/nobody", "staged", [])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(fd)
