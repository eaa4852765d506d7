"""What a run returns: the agent's own code, or Deskwarden's 125, 126, 127 and 128+N."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.layers import requires_layer
from tests.service import Service, program


@pytest.mark.parametrize("code", [0, 1, 2, 42, 125, 255])
def test_the_agents_own_code_is_returned(service: Service, workspace: Path, code: int) -> None:
    assert service.run("run", "--", "sh", "-c", f"exit {code}", cwd=workspace).returncode == code


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM", "KILL", "SEGV", "USR1", "PIPE"])
def test_an_agent_ended_by_a_signal_returns_128_and_its_number(service: Service, workspace: Path, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    result = service.run("run", "--", "sh", "-c", f"kill -{name} $$; sleep 10", cwd=workspace)
    assert result.returncode == 128 + number


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1"])
def test_a_signal_to_the_cli_reaches_the_agent(service: Service, workspace: Path, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    code = """
        signal.signal(NUMBER, lambda number, frame: sys.exit(7))
        print("ready", flush=True)
        time.sleep(30)
    """
    running = service.spawn("run", "--", *program(code, NUMBER=int(number)), cwd=workspace)
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(number)
    assert running.wait(20) == 7


def test_a_command_that_is_not_there_is_127(service: Service, workspace: Path) -> None:
    result = service.run("run", "--", "no-such-command", cwd=workspace)
    assert result.returncode == 127
    assert b"no-such-command: command not found in the sandbox\n  next: deskwarden run -r" in result.stderr


@pytest.mark.parametrize("what", ["plain file", "directory"])
def test_what_is_not_executable_is_126(service: Service, workspace: Path, what: str) -> None:
    path = workspace / "thing"
    path.mkdir() if what == "directory" else path.write_text("#!/bin/sh\n", encoding="utf-8")
    result = service.run("run", "--", "./thing", cwd=workspace)
    assert result.returncode == 126, result
    assert b"not an executable file" in result.stderr


def test_a_script_without_its_interpreter_is_no_success(service: Service, workspace: Path) -> None:
    path = workspace / "script"
    path.write_text("#!/no/such/interpreter\n", encoding="utf-8")
    path.chmod(0o755)
    result = service.run("run", "--", "./script", cwd=workspace)
    assert result.returncode in (126, 127), result
    assert result.stderr


WRONG_WORDS = {
    "no command": (["run"], "no command to run"),
    "no command after the dashes": (["run", "--"], "no command to run"),
    "unknown verb": (["fly"], "unknown verb"),
    "verb of a later version": (["break-glass"], "comes with the broker"),
    "unknown profile": (["run", "-p", "nope", "--", "true"], "nope"),
    "profile that is a path": (["run", "-p", "../coding", "--", "true"], "coding"),
    "unknown session": (["show", "nope"], "no session 'nope'"),
    "bad size": (["run", "--memory", "much", "--", "true"], "no size"),
    "bad duration": (["run", "--for", "soon", "--", "true"], "no duration"),
    "bad name": (["run", "--name", "Not A Name", "--", "true"], "--name"),
}


@pytest.mark.parametrize("what", WRONG_WORDS)
def test_wrong_words_are_125_with_a_next_step(service: Service, workspace: Path, what: str) -> None:
    words, message = WRONG_WORDS[what]
    result = service.run(*words, cwd=workspace)
    assert result.returncode == 125, result
    assert message in result.stderr.decode()
    assert "\n  next: " in result.stderr.decode()
    assert "Traceback" not in result.stderr.decode()


@pytest.mark.parametrize("flags", [["--frob"], ["--mode", "sideways"], ["--pids", "many"], ["-C"]])
def test_wrong_flags_are_125(service: Service, workspace: Path, flags: list[str]) -> None:
    result = service.run("run", *flags, "--", "true", cwd=workspace)
    assert result.returncode == 125, result
    assert result.stderr


@pytest.mark.parametrize(
    "flags", [["--net", "open"], ["--allow-domain", "x.org"], ["--ask", "prompt"], ["--auto"], ["--mode", "live"]]
)
def test_flags_of_later_rooms_are_refused_by_name(service: Service, workspace: Path, flags: list[str]) -> None:
    result = service.run("run", *flags, "--", "true", cwd=workspace)
    assert result.returncode == 126, result
    assert b"next: " in result.stderr


@pytest.mark.parametrize("agent", ["codex", "claude", "gemini"])
def test_an_agent_that_needs_the_network_is_told_so(service: Service, workspace: Path, agent: str) -> None:
    result = service.run("run", "--", agent, cwd=workspace)
    assert result.returncode == 125
    assert b"network" in result.stderr
    assert b"scripts/demo" in result.stderr


FAILURES = {
    "unknown profile": (["run", "--json", "-p", "nope", "--", "true"], 125),
    "no command": (["run", "--json"], 125),
    "unknown verb": (["fly", "--json"], 125),
    "verb of a later version": (["approve", "--json"], 125),
    "unknown flag": (["ps", "--json", "--frob"], 125),
    "unknown flag before": (["ps", "--frob", "--json"], 125),
    "a choice that is none": (["run", "--json", "--mode", "sideways", "--", "true"], 125),
    "a number that is none": (["undo", "--json", "--step", "many"], 125),
    "a word that is missing": (["exec", "--json"], 125),
    "a sub-verb that is missing": (["profile", "--json"], 125),
    "a sub-verb that is none": (["profile", "--json", "fly"], 125),
    "a sub-verb's word that is missing": (["profile", "show", "--json"], 125),
    "a file that is not there": (["profile", "check", "--json", "/no/such/file"], 125),
    "unknown session": (["show", "--json", "nope"], 125),
    "nothing to undo": (["undo", "--json", "--step", "4711"], 125),
    "not in the sandbox": (["run", "--json", "--", "no-such-command"], 127),
    "not executable": (["run", "--json", "--", "/etc"], 126),
    "refused": (["run", "--json", "-C", "/", "--", "true"], 126),
    "of a later room": (["run", "--json", "--net", "open", "--", "true"], 126),
}


@pytest.mark.parametrize("what", FAILURES)
def test_every_failure_is_one_value_with_json(service: Service, workspace: Path, what: str) -> None:
    words, code = FAILURES[what]
    result = service.run(*words, cwd=workspace)
    value = json.loads(result.stdout)
    assert value["exit_code"] == result.returncode == code, result
    assert value["error"]["message"]
    assert value["error"]["next"], value
    assert result.stderr == b""


def test_a_flag_is_not_guessed_from_its_beginning(service: Service, workspace: Path) -> None:
    """A flag that is added later must not change what a script's word means."""
    assert service.run("run", "--prof", "data", "--", "true", cwd=workspace).returncode == 125


@requires_layer("cgroup-limits")
def test_out_of_memory_is_137_and_says_so(service: Service, workspace: Path) -> None:
    result = service.run("run", "--memory", "64m", "--", *program("x = bytearray(1 << 30)"), cwd=workspace)
    assert result.returncode == 137
    assert b"memory" in result.stderr


def test_an_exec_returns_its_own_code(service: Service, workspace: Path) -> None:
    session = service.start_session("--", "sleep", "60", cwd=workspace)
    try:
        assert service.run("exec", session, "--", "sh", "-c", "exit 9").returncode == 9
        assert service.run("exec", session, "--", "no-such-command").returncode == 127
        assert service.run("exec", session, "--", "/etc").returncode == 126
        assert service.run("exec", session, "--", "sh", "-c", "kill -9 $$").returncode == 137
        assert service.run("exec", session).returncode == 125
    finally:
        service.run("kill", session)
    assert service.run("exec", session, "--", "true").returncode == 125
