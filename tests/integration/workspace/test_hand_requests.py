"""What an agent can make the owner's hand look at: disks that hang, fill up, or never end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).parent / "hand_driver.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if os.geteuid() != 0:
        pytest.skip("mounting FUSE and a small disk needs root")
    unshare = ["unshare", "--mount", "--propagation", "private"]
    command = [*unshare, sys.executable, "-B", str(DRIVER), str(tmp_path_factory.mktemp("hand"))]
    environment = os.environ | {"PYTHONPATH": str(DRIVER.parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_copy_on_a_full_disk_leaves_nothing(results: dict[str, Any]) -> None:
    assert results["full"]["error"] == "LaunchError"
    assert "ENOSPC" in results["full"]["message"]
    assert "free space" in results["full"]["next"]
    assert results["left"] == []


def test_a_file_system_that_hangs_takes_only_its_own_request_with_it(results: dict[str, Any]) -> None:
    assert results["hangs"].get("died")
    assert results["hangs"]["took_s"] < 5
    assert results["after"]["kind"] == "file"


def test_a_hanging_mount_below_a_folder_is_not_entered(results: dict[str, Any]) -> None:
    assert results["around"]["left_out"] == [{"name": "fuse", "why": "a mount"}]
    assert not results["around"]["complete"]
    assert results["pattern"]["left_out"] == [{"name": "fuse", "why": "a mount"}]
    assert results["around"]["took_s"] < 1.9


def test_a_hundred_thousand_files_are_counted_up_to_the_bound(results: dict[str, Any]) -> None:
    assert not results["many"]["complete"]
    assert 4096 < results["many"]["files"] <= 100_001
    assert results["many_pattern"]["error"] == "RefusedError"
    assert "100000 entries" in results["many_pattern"]["message"]
