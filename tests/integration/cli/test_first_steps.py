"""What a person meets who has never used it: help, wrong words, odd terminals, pipes that close."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.main import VERBS
from tests.service import CLI, DEADLINE_S, Service, serving

LOOKING = [
    ["ps", "--all"],
    ["show"],
    ["inspect"],
    ["logs"],
    ["diff"],
    ["diff", "--stat"],
    ["diff", "--json"],
    ["undo", "--list"],
    ["status"],
    ["profile", "list"],
    ["profile", "show", "coding"],
    ["profile", "schema"],
    ["doctor", "--managed"],
    ["run", "-n", "--", "true"],
    ["run", "-n", "--json", "--", "true"],
    ["--help"],
]
TROUBLE = (b"Traceback", b"Exception ignored", b"internal error")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving() as one:
        yield one


@pytest.fixture(scope="module")
def changed(service: Service) -> Path:
    """A folder in which an agent printed and changed something."""
    folder = service.folder()
    (folder / "text").write_text("one\n", encoding="utf-8")
    script = "for i in $(seq 2000); do echo line $i; done; seq 3000 >> text; echo x > neu-ü; printf '\\0' > bin"
    assert service.run("run", "--", "sh", "-c", script, cwd=folder).returncode == 0
    return folder


def _shell(service: Service, folder: Path, words: list[str], after: str) -> subprocess.CompletedProcess[bytes]:
    """Run the CLI in a shell with a redirection or a pipe after it."""
    command = ["/bin/bash", "-c", f'"$0" "$@" {after}', CLI, *words]
    return subprocess.run(
        command,
        cwd=folder,
        env=service.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(service: Service, verb: str) -> None:
    result = service.run(verb, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: deskwarden {verb}".encode())
    assert b"--json" in result.stdout
    assert result.stderr == b""
    assert f"  {verb} ".encode() in service.run("--help").stdout or verb == "inspect"


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_a_reader_that_leaves_or_is_not_there_is_no_accident(service: Service, changed: Path, words: list[str]) -> None:
    whole = _shell(service, changed, words, "")
    assert whole.stdout
    for after in ("| head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", ">&-", "2>&-", "</dev/null >/dev/null 2>&-"):
        result = _shell(service, changed, words, after)
        assert result.returncode in (whole.returncode, 141), (after, result)
        assert not any(word in result.stderr for word in TROUBLE), result.stderr


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_a_full_disk_is_said_and_is_125(service: Service, changed: Path, words: list[str]) -> None:
    result = _shell(service, changed, words, "> /dev/full")
    assert result.returncode == 125
    assert b"No space left on device\n  next: " in result.stderr
    assert not any(word in result.stderr for word in TROUBLE), result.stderr


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_without_a_language_and_a_terminal_type_everything_is_shown(
    service: Service, changed: Path, words: list[str]
) -> None:
    bare = {key: value for key, value in service.environment.items() if key not in ("LANG", "TERM")}
    for language in ({}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "TERM": ""}, {"LC_ALL": "xx_XX.none", "TERM": "dumb"}):
        result = subprocess.run(
            [CLI, *words],
            cwd=changed,
            env=bare | language,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert result.returncode in (0, 1), result
        assert result.stdout
        assert result.stderr == b""


@pytest.mark.parametrize("size", [(1, 1), (0, 0), (2, 200), (500, 3)])
@pytest.mark.parametrize("term", ["xterm", "dumb", ""])
def test_any_size_and_kind_of_terminal_will_do(
    service: Service, changed: Path, size: tuple[int, int], term: str
) -> None:
    for words in (["ps", "--all"], ["show"], ["--help"], ["diff", "--stat"], ["status"], ["run", "--help"]):
        terminal = service.pty_run(*words, cwd=changed, env={"TERM": term}, size=size)
        assert terminal.wait_exit() == 0, words
        assert not any(word in terminal.output for word in TROUBLE), terminal.output
    terminal = service.pty_run("run", "--", "sh", "-c", "echo here", cwd=changed, env={"TERM": term}, size=size)
    terminal.wait_for(b"here")
    assert terminal.wait_exit() == 0


def test_no_pager_is_asked_to_draw_on_a_terminal_that_cannot(service: Service, changed: Path) -> None:
    """less would wait for a key, after a warning."""
    session = next(one["id"] for one in service.json("ps", "--all") if "seq 3000" in " ".join(one["argv"]))
    for term in ("dumb", ""):
        terminal = service.pty_run("diff", session, "text", cwd=changed, env={"TERM": term})
        assert terminal.wait_exit() == 0
        assert b"+3000" in terminal.output
        assert b"\x1b" not in terminal.output


def test_a_pager_that_cannot_be_started_is_done_without(service: Service, changed: Path) -> None:
    session = next(one["id"] for one in service.json("ps", "--all") if "seq 3000" in " ".join(one["argv"]))
    for pager in ("/no/such/pager", "/etc"):
        terminal = service.pty_run("diff", session, "text", cwd=changed, env={"PAGER": pager})
        assert terminal.wait_exit() == 0
        assert b"+3000" in terminal.output


def test_ctrl_c_in_the_pager_is_the_pagers(service: Service, changed: Path) -> None:
    session = next(one["id"] for one in service.json("ps", "--all") if "seq 3000" in " ".join(one["argv"]))
    pager = service.folder() / "pager"
    pager.write_text("#!/bin/sh\ntrap 'echo interrupted; exit 0' INT\ncat >/dev/null\necho paging\nsleep 60 & wait\n")
    pager.chmod(0o755)
    terminal = service.pty_run("diff", session, "text", cwd=changed, env={"PAGER": str(pager)})
    terminal.wait_for(b"paging")
    terminal.send(b"\x03")
    terminal.wait_for(b"interrupted")
    assert terminal.wait_exit() == 0


MISSING_DASHES = {
    ("run", "ls", "-la"): "deskwarden run -- ls -la",
    ("run", "-p", "data", "python3", "my agent.py"): "deskwarden run -p data -- python3 'my agent.py'",
    ("exec", "last", "make", "-j2"): "deskwarden exec last -- make -j2",
}


@pytest.mark.parametrize("words", MISSING_DASHES, ids=" ".join)
def test_forgotten_dashes_are_put_into_the_next_step(service: Service, words: tuple[str, ...]) -> None:
    result = service.run(*words)
    assert result.returncode == 125
    assert result.stderr.decode().splitlines()[-1] == f"  next: {MISSING_DASHES[words]}"


@pytest.mark.parametrize("flag", ["-C", "-p", "--mode", "--name", "--for", "--memory", "-r", "-w"])
def test_an_empty_word_is_not_taken_for_the_default(service: Service, workspace: Path, flag: str) -> None:
    """`deskwarden run -C "$FOLDER"` with a variable that is not set must not work on the current directory."""
    result = service.run("run", flag, "", "--", "touch", "made", cwd=workspace)
    assert result.returncode == 125
    assert b"next: " in result.stderr
    assert service.run("diff", cwd=workspace).stdout == b""


def test_limits_are_said_as_one_types_them(service: Service, workspace: Path) -> None:
    said = {
        ("--memory", "1k"): "--memory 1k: no program starts below 16m\n",
        ("--memory", "99t"): "profile coding allows 8g\n  next: at most --memory 8g\n",
        ("--pids", "2"): "--pids 2: no program starts below 4\n",
        ("--pids", "99999999"): "profile coding allows 4096\n  next: at most --pids 4096\n",
    }
    for flag, message in said.items():
        result = service.run("run", *flag, "--", "true", cwd=workspace)
        assert result.returncode in (125, 126)
        assert message in result.stderr.decode()


def test_step_zero_is_no_step(service: Service, workspace: Path) -> None:
    """Not the last one, which would be undone unasked."""
    assert service.run("run", "--", "touch", "made", cwd=workspace).returncode == 0
    assert service.run("apply", cwd=workspace).returncode == 0
    result = service.run("undo", "--step", "0", cwd=workspace)
    assert result.returncode == 125
    assert b"no step 0 to undo" in result.stderr
    assert os.listdir(workspace) == ["made"]


def test_all_and_some_are_not_said_at_once(service: Service, workspace: Path) -> None:
    session = service.start_session("--", "sleep", "60", cwd=workspace)
    assert service.run("kill", "--all", "another").returncode == 125
    assert [one["id"] for one in service.json("ps")] == [session]
    assert json.loads(service.run("kill", "--all", "--json").stdout) == [session]


def test_what_a_session_printed_is_a_value_with_json(service: Service, workspace: Path) -> None:
    assert service.run("run", "--", "printf", "ü\\n\\377 raw", cwd=workspace).returncode == 0
    lines = service.run("logs", "--json").stdout.splitlines()
    assert "".join(json.loads(line)["output"] for line in lines) == "ü\n\udcff raw"


def test_a_silent_session_has_an_empty_log_with_json(service: Service, workspace: Path) -> None:
    assert service.run("run", "--", "true", cwd=workspace).returncode == 0
    assert json.loads(service.run("logs", "--json").stdout) == {"output": ""}
    assert service.run("logs").stdout == b""


def test_the_version_is_a_value_with_json(service: Service) -> None:
    version = json.loads(service.run("--version", "--json").stdout)["version"]
    assert service.run("--version").stdout.decode() == f"deskwarden {version}\n"


@pytest.mark.parametrize("verb", ["events", "audit", "replay", "break-glass", "fly"])
def test_a_verb_that_is_not_there_says_so_as_a_value(service: Service, verb: str) -> None:
    result = service.run(verb, "--json")
    assert (result.returncode, result.stderr) == (125, b"")
    assert verb in json.loads(result.stdout)["error"]["message"]


def test_a_run_with_json_leaves_stdout_to_the_command(service: Service, workspace: Path) -> None:
    result = service.run("run", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 4", cwd=workspace)
    assert (result.returncode, result.stdout) == (4, b"out\n")
    *errors, value = result.stderr.splitlines()
    assert errors == [b"err"]
    assert json.loads(value)["code"] == 4


def test_an_exec_is_a_value_with_json(service: Service, workspace: Path) -> None:
    session = service.start_session("--", "sleep", "60", cwd=workspace)
    result = service.run("exec", session, "--json", "--", "sh", "-c", "echo out; exit 4")
    assert (result.returncode, result.stdout) == (4, b"out\n")
    assert json.loads(result.stderr)["code"] == 4
    assert service.run("kill", session).returncode == 0


def test_what_would_be_applied_is_a_value_with_json(service: Service, workspace: Path) -> None:
    assert service.run("run", "--", "touch", "made", cwd=workspace).returncode == 0
    assert [change["path"] for change in service.json("apply", "--stat", cwd=workspace)] == ["made"]
    assert os.listdir(workspace) == []


def test_ctrl_c_at_the_question_still_says_what_was_applied(service: Service, workspace: Path) -> None:
    assert service.run("run", "--", "sh", "-c", "echo 1 > plain; echo 2 > .envrc", cwd=workspace).returncode == 0
    terminal = service.pty_run("apply", cwd=workspace)
    terminal.wait_for(b"[y/N]")
    terminal.send(b"\x03")
    assert terminal.wait_exit() == 130
    assert b"1 applied   undo: deskwarden undo --step" in terminal.output
    assert os.listdir(workspace) == ["plain"]


def test_ctrl_c_in_a_log_gives_the_terminal_back(service: Service, workspace: Path) -> None:
    script = "printf '\\033[31m\\033[?25lred\\n'; sleep 60"
    session = service.start_session("--", "sh", "-c", script, cwd=workspace)
    terminal = service.pty_run("logs", "-f", session)
    terminal.wait_for(b"red")
    terminal.send(b"\x03")
    assert terminal.wait_exit() == 130
    assert b"\x1b[?25h" in terminal.output
    assert b"\x1b[m" in terminal.output
    assert service.run("kill", session).returncode == 0
