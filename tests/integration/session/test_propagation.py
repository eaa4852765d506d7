"""On most systems ``/`` is shared (systemd makes it so): what a sandbox mounts must not show in the host's mounts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
# Root has a namespace where it may make everything shared; an ordinary user looks at the machine's own.
_SHARED = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", 'mount --make-rshared /; exec "$@"', "sh"]
_CODE = """
import json
from tests.service import Service

def mounts():
    with open("/proc/self/mountinfo", "rb") as file:
        return sorted(line.split()[4].decode(errors="replace") for line in file)

service = Service()
try:
    workspace = service.folder()
    (workspace / ".git/hooks").mkdir(parents=True)
    (workspace / "a.txt").write_text("old")
    before = mounts()
    session = service.start_session(*FLAGS, "--", "sleep", "60", cwd=workspace)
    service.run("exec", session, "--", "sh", "-c", "echo new > a.txt")
    if not FLAGS:
        service.run("diff", session, cwd=workspace)
        service.run("apply", session, cwd=workspace)
    after = mounts()
    print(json.dumps([before == after, [one for one in after if one not in before], (workspace / "a.txt").read_text()]))
finally:
    service.close()
"""


@pytest.mark.parametrize("flags", [[], ["--mode", "direct", "-p", "coding"]], ids=["staged", "direct"])
def test_nothing_mounted_for_a_session_or_a_review_shows_on_a_shared_host(flags: list[str]) -> None:
    prefix = _SHARED if os.geteuid() == 0 else []
    code = _CODE.replace("FLAGS", repr(flags))
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    command = [*prefix, sys.executable, "-B", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [True, [], "new\n"], done.stderr
