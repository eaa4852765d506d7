"""The stage of a session looks like the real folder, as far as its owner may make it so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
# In a user namespace that maps one group only: the overflow group (65534) stands for all others.
CODE = """
import os, sys
from supervisor.workspace.opening import make_stage
real = os.stat_result((0o42750, 0, 0, 1, 0, int(sys.argv[2]), 0, 0, 0, 0))
store = os.open(sys.argv[1], os.O_RDONLY)
os.stat("upper", dir_fd=make_stage(store, "s", 0, real))
"""


def test_a_folder_of_a_group_that_has_no_number_here_is_staged_all_the_same(tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", CODE, str(tmp_path), "65534"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "sessions/s/a0/upper").stat().st_mode & 0o777 == 0o750
