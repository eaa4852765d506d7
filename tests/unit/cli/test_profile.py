"""`deskwarden profile`: list, show, check, init, schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from supervisor.cli import profile as verb
from supervisor.errors import DeskwardenError, RefusedError, UsageError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    return verb.run(parser.parse_args(words))


def own(home: Path, name: str) -> Path:
    return home / ".config/deskwarden/profiles.d" / f"{name}.yaml"


def test_init_writes_a_file_that_checks_and_shows(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("init", "mine") == 0
    assert own(home, "mine").stat().st_mode & 0o777 == 0o600
    assert call("check", str(own(home, "mine"))) == 0
    assert "mine → coding → strict" in capsys.readouterr().out
    assert call("show", "mine", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["profile"]["lineage"] == ["mine", "coding", "strict"]
    assert shown["origins"]["limits.memory"] == "coding"


def test_every_commented_line_of_the_starting_file_is_valid_when_uncommented(home: Path) -> None:
    call("init", "mine")
    path = own(home, "mine")
    head, _, tail = path.read_text().partition("extends: coding\n")
    lines = [line.removeprefix("# ") for line in tail.splitlines() if not line.startswith("# A list")]
    path.write_text(f"{head}extends: coding\n" + "\n".join(lines) + "\n")
    assert "wall_time: 8h" in path.read_text()
    assert call("check", str(path)) == 0


def test_init_never_overwrites(home: Path) -> None:
    call("init", "mine")
    own(home, "mine").write_text("precious")
    with pytest.raises(RefusedError, match="exists already"):
        call("init", "mine")
    assert own(home, "mine").read_text() == "precious"


@pytest.mark.parametrize("name", ["coding", "strict"])
def test_init_refuses_a_name_that_is_taken(name: str) -> None:
    with pytest.raises(RefusedError, match="exists already"):
        call("init", name)


@pytest.mark.parametrize("name", ["../x", "A", "", "x/y", "-x"])
def test_init_refuses_what_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="no profile name"):
        verb.run(argparse.Namespace(profile_verb="init", target=name, json=False))


def test_list_names_the_problem_of_a_broken_file_and_goes_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("init", "mine")
    own(home, "mine").write_text("name: [")
    capsys.readouterr()
    assert call("list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["coding"]["description"]
    assert "mine.yaml:1:8" in rows["mine"]["problem"]


def test_check_refuses_an_unknown_system_call_and_a_missing_file(home: Path) -> None:
    call("init", "mine")
    path = own(home, "mine")
    path.write_text("name: mine\ndescription: d\nseccomp: {allow_extra: [opne]}\n")
    with pytest.raises(UsageError, match="opne"):
        call("check", str(path))
    with pytest.raises(UsageError, match="No such file"):
        call("check", str(home / "absent.yaml"))


def test_check_of_a_file_elsewhere_counts_names_that_are_taken(home: Path) -> None:
    path = home / "coding.yaml"
    path.write_text("name: coding\ndescription: d\n")
    path.chmod(0o600)
    with pytest.raises(DeskwardenError, match="used twice"):
        call("check", str(path))


def test_show_says_where_each_value_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("show", "desktop") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "from desktop → coding → strict"
    rows = {tuple(line.split()[:2]): line for line in lines[3:]}
    assert rows["limits.tmp", "4GiB"].endswith("(desktop)")
    assert rows["limits.memory", "8GiB"].endswith("(coding)")
    assert rows["workspace.default_mode", "staged"].endswith("(strict)")


def test_schema_prints_the_published_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Deskwarden sandbox profile"
