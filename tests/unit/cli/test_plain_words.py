"""`run` reads the flags that people type without argparse; it must read them as argparse does, or leave them to it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, dictionaries, integers, lists, none, recursive, text

from supervisor.cli import main, run, service
from supervisor.errors import UsageError


def _by_argparse(words: list[str]) -> dict[str, object] | None:
    try:
        return vars(main._parse("run", run, words))
    except (SystemExit, UsageError):
        return None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-C /w",
        "-p data --mode direct --name fin -d -v --json --verbose",
        "-n --profile strict",
        "-r /a --read /b -w /c --write /d --read-file /e --env A=b --env C",
        "--for 20m --memory 2g",
        "-C /w -C /x",
        "--mode staged --mode live",
        "--env A=-b",
    ],
)
def test_plain_flags_are_read_as_argparse_reads_them(line: str) -> None:
    read = run.read_plain(line.split())
    assert read is not None
    assert vars(read) == _by_argparse(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "-h",
        "--help",
        "--prof data",
        "--profile=data",
        "-C/w",
        "-dv",
        "--mode sideways",
        "--mode",
        "-C",
        "-C -d",
        "--pids 5",
        "--net off",
        "--auto",
        "codex",
        "--no-such-flag",
        "",
    ],
)
def test_everything_else_is_left_to_argparse(line: str) -> None:
    words = line.split() or [""]
    assert run.read_plain(words) is None


def test_every_plain_flag_is_one_that_argparse_knows_for_the_same_name() -> None:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    known = {option: action.dest for action in parser._actions for option in action.option_strings}
    plain = (
        run._ONE | run._MANY | {word: name for word, name in run._SWITCHES.items() if name not in {"json", "verbose"}}
    )
    assert plain.items() <= known.items()


def test_the_launch_verb_imports_nothing_slow_before_its_request_is_sent() -> None:
    code = "import sys; from supervisor.cli import main, run; print(' '.join(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-ISc", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    slow = {
        "argparse",
        "subprocess",
        "asyncio",
        "logging",
        "tempfile",
        "shutil",
        "ctypes",
        "yaml",
        "grpc",
        "importlib.metadata",
    }
    assert not slow & set(shown.stdout.split())


@given(
    recursive(
        none() | booleans() | integers() | text(),
        lambda inner: lists(inner) | dictionaries(text(), inner),
        max_leaves=20,
    )
)
def test_a_request_is_encoded_as_json_dumps_encodes_it(value: object) -> None:
    assert service.encode(value) == json.dumps(value, separators=(",", ":"))


def test_bytes_that_are_not_utf8_survive_the_request() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert json.loads(service.encode({"argv": [name]}))["argv"] == [name]


def test_what_no_request_holds_is_an_error_and_never_sent() -> None:
    with pytest.raises(TypeError, match="float"):
        service.encode({"for_s": 1.5})
