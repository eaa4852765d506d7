"""The rule about skips, checked by running pytest on small suites that break it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def run_suite(directory: Path, test: str) -> tuple[int, str]:
    """Run *test* as tests/integration/test_it.py under this repository's rules and a table of known findings."""
    suite = directory / "tests" / "integration"
    suite.mkdir(parents=True)
    shutil.copy(TESTS.parent / "pyproject.toml", directory)
    shutil.copy(TESTS / "conftest.py", directory / "tests")
    findings = {"landlock": "", "quota": "absent: no quota here; to have it: an overlay with landlock"}
    layers = (
        TESTS / "layers.py"
    ).read_text() + f"\n\ndef layer_findings() -> dict[str, str]:\n    return {findings!r}\n"
    (directory / "tests" / "layers.py").write_text(layers)
    (suite / "test_it.py").write_text(f"import pytest\nfrom tests.layers import requires_layer\n\n{test}")
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def outcome(output: str) -> str:
    """Return the counts of pytest's last line, without the time."""
    found = re.search(r"^=+ (.*) in [\d.]+s =+$", output, re.MULTILINE)
    return found[1] if found else output


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ('def test_it():\n    pytest.skip("no landlock here")\n', "1 failed"),
        ('pytest.skip("needs landlock", allow_module_level=True)\n', "1 error"),
        ('@pytest.mark.skip(reason="landlock")\ndef test_it():\n    pass\n', "1 error"),
        ('@requires_layer("landlock")\ndef test_it():\n    pass\n', "1 passed"),
        ('@requires_layer("quota")\ndef test_it():\n    raise AssertionError\n', "1 skipped"),
        ('@requires_layer("landlock", "qouta")\ndef test_it():\n    pass\n', "1 error"),
        ('def test_it():\n    pytest.skip("no licence for landlock-like things")\n', "1 skipped"),
    ],
    ids=["skip", "module", "marker", "present", "absent", "unknown", "another-word"],
)
def test_skip_passes_only_for_a_layer_that_is_not_there(tmp_path: Path, test: str, expected: str) -> None:
    _, output = run_suite(tmp_path, test)
    assert outcome(output) == expected, output


def test_a_test_may_leave_itself_to_the_other_half_of_the_run(tmp_path: Path) -> None:
    mine, other = ("as root", "by root") if os.geteuid() == 0 else ("by root", "as an ordinary user")
    reasons = f'@pytest.mark.parametrize("reason", ["landlock {mine}", "landlock {other}"])'
    _, output = run_suite(tmp_path, f"{reasons}\ndef test_it(reason):\n    pytest.skip(reason)\n")
    assert outcome(output) == "1 failed, 1 skipped", output


def test_tests_get_the_marker_of_their_directory(tmp_path: Path) -> None:
    test = 'def test_it(request):\n    assert request.node.get_closest_marker("integration")\n'
    assert run_suite(tmp_path, test)[0] == 0
