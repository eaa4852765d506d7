"""The start scripts of a checkout, run for real: quick, and wherever the checkout lies."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"

MAIN = """\
import sys

def main():
    import inside_venv
    print(*sys.argv[1:], sys.flags.isolated, sys.flags.no_site, sep="|")
    return 7

main_listening = main
"""


def make_checkout(root: Path) -> Path:
    """Make a checkout with the programs and a virtual environment that holds one module."""
    for module in ("cli/main", "agent/main", "daemon/main", "sandbox/launcher"):
        path = root / "supervisor" / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MAIN)
    venv.create(root / ".venv", symlinks=True)
    [packages] = (root / ".venv/lib").glob("python3*/site-packages")
    (packages / "inside_venv.py").touch()
    # What site would do at each start, and these scripts must not.
    (packages / "evil.pth").write_text("import sys; sys.exit('a .pth file ran')\n")
    command = [sys.executable, "-I", SCRIPTS / "start_scripts.py", root, root / ".venv"]
    subprocess.run(command, check=True, timeout=60)
    return root


@pytest.mark.parametrize("name", ["plain", "with a space", "quote ' \" $HOME \\", "x" * 150, "Größe"])
def test_start_script_works_wherever_the_checkout_lies(tmp_path: Path, name: str) -> None:
    checkout = make_checkout(tmp_path / name)
    for program in ("deskwarden", "deskwardend", "deskwarden-agent", "deskwarden-launcher"):
        command = [checkout / ".venv/bin" / program, "two words", "*"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd="/")
        assert (done.returncode, done.stdout, done.stderr) == (7, "two words|*|1|1\n", "")


def test_start_script_ignores_the_callers_python_settings(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "inside_venv.py").write_text("raise SystemExit('taken from PYTHONPATH')\n")
    environment = {**os.environ, "PYTHONPATH": str(evil), "PYTHONSTARTUP": "/nonexistent", "PYTHONHOME": str(evil)}
    program = checkout / ".venv/bin/deskwarden"
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=60, env=environment, cwd=evil)
    assert (done.returncode, done.stderr) == (7, "")
