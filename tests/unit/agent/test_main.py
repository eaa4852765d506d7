"""The command in the sandbox, against a real server: its words, its exit codes, what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.agent.main import main
from supervisor.broker.agent_door import Phase
from tests.agent_door import SECRET, house

ROOT = Path(__file__).parents[3]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def path() -> Iterator[str]:
    name, path = house().open()
    yield path
    house().end(name)


def run(path: str, *words: str) -> int:
    return main(["--socket", path, *words])


def value(capsys: Captured) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(capsys.readouterr().out)
    return read


def test_a_granted_request_is_0_and_says_where_it_is_shown(path: str, capsys: Captured) -> None:
    assert run(path, "request", "file:read", "~/open/*.txt", "--reason", "to read", "--for", "20m", "--wait") == 0
    assert capsys.readouterr().out == (
        "granted gr1  file:read ~/open/*.txt  until 2030-03-17 17:46:40 UTC  at /home/a/open\n".replace(
            "gr1", f"g{list(house().door.records)[-1]}"
        )
    )
    assert list(house().door.records.values())[-1].ask.duration_s == 1200
    assert run(path, "have", "--json") == 0
    [grant] = value(capsys)["grants"]
    assert run(path, "release", grant["id"]) == 0
    capsys.readouterr()
    assert run(path, "have", "--json") == 0
    assert value(capsys)["grants"] == []


def test_a_denied_request_is_126_with_its_reason_and_every_next_step(path: str, capsys: Captured) -> None:
    assert run(path, "request", "file:read", "~/.ssh/id", "--reason", "to push") == 126
    said = capsys.readouterr()
    assert said.out == ""
    for text in ("denied: keys are never given to agents", "next: ask the owner to run", "next: use https"):
        assert text in said.err
    assert run(path, "why") == 0
    assert "path-protected" in capsys.readouterr().out
    assert run(path, "request", "file:read", "~/.ssh/id", "--reason", "to push", "--json") == 126
    assert value(capsys)["reasons"][0]["code"] == "path-protected"


def test_without_wait_an_undecided_request_is_124_and_can_be_waited_for(path: str, capsys: Captured) -> None:
    assert run(path, "request", "net:connect", "example.com:443", "--reason", "to fetch", "--json") == 124
    state = value(capsys)
    assert state["waiting_for"] == ["owner"]
    assert run(path, "wait", state["id"], "--timeout", "1s") == 124
    threading.Timer(0.5, house().decide, (state["id"], Phase.LAPSED)).start()
    assert run(path, "wait", state["id"]) == 126
    assert "lapsed" in capsys.readouterr().err


def test_a_withdrawn_request_is_126_for_who_waits(path: str, capsys: Captured) -> None:
    assert run(path, "request", "exec:run", "/bin/x", "--reason", "r", "--json") == 124
    name = value(capsys)["id"]
    assert run(path, "cancel", name) == 0
    assert run(path, "wait", name) == 126


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "VERB"),
        (("grab",), "grab"),
        (("request", "file:read"), "TARGET"),
        (("request", "file:read", "/x"), "--reason"),
        (("request", "files", "/x", "--reason", "r"), "file:read"),
        (("request", "file:read", "/x", "--reason", "r", "--for", "soon"), "soon"),
        (("request", "file:read", "/x", "--reas", "r"), "--reason"),
        (("release", "gr0"), "gr0"),
        (("have", "--", "ls"), "ls"),
    ],
)
def test_wrong_words_are_named_with_a_next_step(
    path: str, capsys: Captured, words: tuple[str, ...], named: str
) -> None:
    assert run(path, *words) in (125, 126)
    said = capsys.readouterr()
    assert named in said.err
    assert "\n  next: " in said.err
    assert said.out == ""


def test_without_a_session_it_says_so(tmp_path: Path, capsys: Captured) -> None:
    assert run(f"{tmp_path}/none.sock", "have", "--json") == 125
    assert "is not here" in value(capsys)["error"]["message"]


def test_a_child_is_started_with_a_grant_and_its_own_flags(path: str, capsys: Captured) -> None:
    assert run(path, "request", "file:read", "~/open/x", "--reason", "r", "--json") == 0
    grant = value(capsys)["grant"]["id"]
    words = ("spawn", "helper", "--reason", "r", "--with", grant, "--for", "1m", "--", "tool", "--json")
    assert run(path, *words) == 0
    assert "session child123" in capsys.readouterr().out
    assert house().door.children[-1].command == ("tool", "--json")


def test_a_secret_goes_into_a_pipe_and_nowhere_else(path: str, capsys: Captured, tmp_path: Path) -> None:
    assert run(path, "request", "secret:use", "github", "--reason", "r", "--json") == 124
    name = value(capsys)["id"]
    house().decide(name, Phase.GRANTED)
    command = [sys.executable, "-B", "-m", "supervisor.agent.main", "use", f"g{name}"]
    environment = {**os.environ, "DESKWARDEN_AGENT_SOCKET": path}
    piped = subprocess.run(command, capture_output=True, check=False, timeout=300, cwd=ROOT, env=environment)
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, SECRET, b"")
    with open(tmp_path / "leak", "wb") as file:
        kept = subprocess.run(
            command, stdout=file, stderr=subprocess.PIPE, check=False, timeout=300, cwd=ROOT, env=environment
        )
    assert kept.returncode == 125
    assert b"into a pipe only" in kept.stderr
    assert (tmp_path / "leak").read_bytes() == b""


def test_who_waits_when_the_session_loses_its_broker_is_told_how_to_go_on(capsys: Captured) -> None:
    name, path = house().open()
    asked = len(house().door.records)

    def end_it() -> None:
        while len(house().door.records) == asked or not house().door.listening:
            time.sleep(0.02)
        house().end(name)

    threading.Thread(target=end_it).start()
    assert run(path, "request", "file:read", "/waits", "--reason", "r", "--wait") == 125
    request = list(house().door.records)[-1]
    assert f"\n  next: deskwarden-agent wait {request}\n" in capsys.readouterr().err


def test_help_needs_neither_grpc_nor_a_broker() -> None:
    text = "import sys; from supervisor.agent.main import main; main(['--help']); print(int('grpc' in sys.modules))"
    done = subprocess.run([sys.executable, "-B", "-c", text], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "0"
    assert "request" in done.stdout
