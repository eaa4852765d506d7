"""What cannot be staged without root is refused by name, before the agent finds out file by file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
# In a user namespace that maps one group only; the overflow group (65534) stands for all others.
CODE = """
import os, sys
from supervisor.errors import RefusedError
from supervisor.workspace.opening import make_stage
real = os.stat_result((0o42750, 0, 0, 1, 0, 65534, 0, 0, 0, 0))
store = os.open(sys.argv[1], os.O_RDONLY)
try:
    make_stage(store, "s", 0, real, "/srv/shared")
except RefusedError as error:
    print(error.message, "|", error.next_step)
"""


def test_a_folder_of_a_group_without_a_number_here_is_refused_with_what_to_do(tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", CODE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    said = done.stdout.decode()
    assert said.startswith("/srv/shared: belongs to a group other than your own")
    assert "chgrp -R" in said
    assert "--mode direct" in said
