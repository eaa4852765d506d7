"""`deskwarden policy` and `deskwarden role`: what they print and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from supervisor.cli.main import main
from supervisor.policy.bundle_source import default_directory


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for file in default_directory().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_the_shipped_bundle_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["revision"].startswith("sha256:")
    assert main(["policy", "test"]) == 0
    assert ", 0 failed" in capsys.readouterr().out


def test_a_changed_rule_fails_the_test_and_shows_in_the_diff(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = copy / "deny.rego"
    rules.write_text(rules.read_text().replace('if input.rule.answer == "never"', 'if input.rule.answer == "nope"'))
    junit = copy / "results.xml"
    assert main(["policy", "test", str(copy), "--junit", str(junit), "--json"]) == 1
    failed = json.loads(capsys.readouterr().out)["failed"]
    assert {row["name"].split(" ")[0] for row in failed} == {"never"}
    suite = ET.parse(junit).getroot()
    assert int(suite.attrib["failures"]) == len(failed) == len(suite.findall("testcase/failure"))
    assert main(["policy", "diff", str(default_directory()), str(copy), "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert {(change["scenario"], change["old"], change["new"]) for change in changes} >= {
        ("never × personal", "deny never", "allow low-risk")
    }


def test_a_rego_test_that_is_not_true_fails(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "extra_test.rego").write_text('package deskwarden\n\nimport rego.v1\n\ntest_no if decision.effect == "x"\n')
    assert main(["policy", "test", str(copy)]) == 1
    assert "FAILED extra_test.rego: deskwarden.test_no" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["check"], ["test"], ["diff", str(default_directory())]])
def test_a_bundle_that_may_not_decide_is_refused(
    copy: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "extra.rego").write_text("package deskwarden\n\nimport rego.v1\n\nx := time.now_ns()\n")
    assert main(["policy", *words, str(copy)]) == 125
    assert "extra.rego:5: time.now_ns: use input.now" in capsys.readouterr().err


def test_nothing_to_test_is_an_error(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "matrix.yaml").unlink()
    (copy / "decision_test.rego").unlink()
    assert main(["policy", "test", str(copy)]) == 125
    assert "nothing to test" in capsys.readouterr().err


def test_roles_are_listed_and_shown(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["role", "list", "--json"]) == 0
    assert "agent-viewer" in {role["name"] for role in json.loads(capsys.readouterr().out)}
    assert main(["role", "show", "agent-secrets-proxy"]) == 0
    assert "15 min, asks each time" in capsys.readouterr().out
    roles = copy / "roles.json"
    roles.write_text(roles.read_text().replace("2027-06-30", "2020-06-30"))
    assert main(["role", "list", "--bundle", str(copy)]) == 0
    assert "2020-06-30 (over: grants nothing)" in capsys.readouterr().out
    assert main(["role", "show", "agent-nobody"]) == 125
