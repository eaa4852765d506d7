"""On a terminal: window size, job control, keys, detaching and coming back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.service import CLI, Service, program, wait_until

PROMPT = b"ready> "
# So that the shell's line editor prints nothing but the line.
DUMB = {"TERM": "dumb"}


def test_the_agent_has_a_terminal_of_the_windows_size(service: Service, workspace: Path) -> None:
    terminal = service.pty_run("run", "--", "sh", "-c", "stty size; tty", cwd=workspace, size=(33, 101))
    terminal.wait_for(b"33 101")
    terminal.wait_for(b"/dev/pts/0")
    assert terminal.wait_exit() == 0


def test_a_change_of_the_window_reaches_the_agent(service: Service, workspace: Path) -> None:
    code = """
        def show(number, frame):
            size = os.get_terminal_size(0)
            os.write(1, b"size %d %d\\n" % (size.lines, size.columns))
        signal.signal(signal.SIGWINCH, show)
        print("ready", flush=True)
        while True:
            time.sleep(0.05)
    """
    terminal = service.pty_run("run", "--", *program(code), cwd=workspace)
    terminal.wait_for(b"ready")
    terminal.resize(50, 120)
    terminal.wait_for(b"size 50 120")
    terminal.resize(10, 40)
    terminal.wait_for(b"size 10 40")
    terminal.send(b"\x03")
    assert terminal.wait_exit() != 0


@pytest.mark.parametrize(("key", "number"), [(b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)])
def test_a_key_interrupts_the_agent(service: Service, workspace: Path, key: bytes, number: int) -> None:
    terminal = service.pty_run("run", "--", "sh", "-c", "echo ready; exec sleep 60", cwd=workspace)
    terminal.wait_for(b"ready")
    terminal.send(key)
    assert terminal.wait_exit() == 128 + number


def test_end_of_input_is_a_key_too(service: Service, workspace: Path) -> None:
    terminal = service.pty_run("run", "--", "sh", "-c", "echo ready; cat; echo after", cwd=workspace)
    terminal.wait_for(b"ready\r\n")
    terminal.send(b"typed\r")
    terminal.wait_for(b"typed\r\ntyped\r\n")
    terminal.send(b"\x04")
    terminal.wait_for(b"after")
    assert terminal.wait_exit() == 0


def test_an_interactive_shell_inside_has_job_control(service: Service, workspace: Path) -> None:
    terminal = service.pty_run("run", "--env", "PS1=ready> ", "--", "bash", "--norc", "-i", cwd=workspace, env=DUMB)
    terminal.wait_for(PROMPT)
    terminal.send(b"sleep 60\r")
    terminal.wait_for(b"sleep 60")
    wait_until("sleep runs", lambda: _runs_inside(service, b"sleep"))
    terminal.send(b"\x1a")
    terminal.wait_for(b"Stopped")
    terminal.wait_for(PROMPT)
    terminal.send(b"jobs; echo seen\r")
    assert b"sleep 60" in terminal.wait_for(b"seen\r\n" + PROMPT)
    terminal.send(b"fg\r")
    terminal.wait_for(b"sleep 60")
    wait_until("sleep goes on", lambda: _runs_inside(service, b"sleep"))
    terminal.send(b"\x03")
    terminal.wait_for(PROMPT)
    terminal.send(b"exit 3\r")
    assert terminal.wait_exit() == 3


def _runs_inside(service: Service, word: bytes) -> bool:
    """Tell whether a program of that name is there, and not stopped."""
    stats = service.run("exec", "last", "--", "sh", "-c", "cat /proc/[0-9]*/stat").stdout
    return any(b"(%s) S" % word in line for line in stats.splitlines())


def test_ctrl_z_stops_the_cli_and_fg_goes_on(service: Service, workspace: Path) -> None:
    """The owner's own shell gets the terminal back, and the agent really stops."""
    shell = service.pty_run("--norc", "-i", executable="/bin/bash", cwd=workspace, env=DUMB | {"PS1": "owner> "})
    shell.wait_for(b"owner> ")
    (workspace / "ticker").write_text("i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done", encoding="utf-8")
    shell.send(f"{CLI} run -- sh ticker\r".encode())
    shell.wait_for(b"tick 5\r")
    shell.send(b"\x1a")
    shell.wait_for(b"Stopped")
    shell.wait_for(b"owner> ")
    shell.send(b"echo still here\r")
    shell.wait_for(b"\r\nstill here\r\n")
    shell.wait_for(b"owner> ")
    assert b"tick" not in shell.output
    state = service.run("exec", "last", "--", "sh", "-c", "grep -h ^State: /proc/[0-9]*/status").stdout
    assert b"T (stopped)" in state, state
    shell.send(b"fg\r")
    shell.wait_for(b"tick")
    shell.wait_for(b"tick")
    shell.send(b"\x03")
    shell.wait_for(b"owner> ")
    shell.send(b"exit\r")
    shell.wait_exit()


def test_the_owner_leaves_a_session_running_and_comes_back(service: Service, workspace: Path) -> None:
    command = ("sh", "-c", "echo first; read a; echo got $a; exit 5")
    terminal = service.pty_run("run", "--name", "leave-me", "--", *command, cwd=workspace)
    terminal.wait_for(b"first")
    terminal.send(b"\x1dd")
    terminal.wait_for(b"deskwarden attach ")
    assert terminal.wait_exit() == 0
    assert service.session("leave-me")["state"] == "running"
    back = service.pty_run("attach", "leave-me", cwd=workspace)
    back.wait_for(b"first")  # the newest output is shown again
    refused = service.run("attach", "leave-me")
    assert refused.returncode == 126
    assert b"has a client attached" in refused.stderr
    back.send(b"word\r")
    back.wait_for(b"got word")
    assert back.wait_exit() == 5
    assert service.session("leave-me")["exit_code"] == 5


def test_the_detach_key_needs_both_halves(service: Service, workspace: Path) -> None:
    """Ctrl-] alone, or before another key, is the agent's."""
    code = """
        import tty
        tty.setraw(0)
        print("ready", flush=True)
        data = b""
        while not data.endswith(b"q"):
            data += os.read(0, 10)
        print(repr(data), flush=True)
    """
    terminal = service.pty_run("run", "--", *program(code), cwd=workspace)
    terminal.wait_for(b"ready")
    terminal.send(b"a\x1dx")
    terminal.send(b"\x1d")
    terminal.send(b"q")
    terminal.wait_for(b"b'a\\x1dx\\x1dq'")
    assert terminal.wait_exit() == 0


def test_a_terminal_that_goes_away_ends_the_session(service: Service, workspace: Path) -> None:
    terminal = service.pty_run("run", "--name", "orphan", "--", "sleep", "300", cwd=workspace)
    wait_until("it runs", lambda: any(one["name"] == "orphan" for one in service.json("ps")))
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.wait_exit()
    wait_until("it ends", lambda: service.session("orphan")["state"] == "ended", 15)
    assert "terminal" in service.session("orphan")["reason"]


def test_exec_has_a_terminal_of_its_own(service: Service, workspace: Path) -> None:
    session = service.start_session("--", "sleep", "60", cwd=workspace)
    try:
        terminal = service.pty_run("exec", session, "--", "sh", "-c", "stty size; tty; read x; exit 4", size=(20, 70))
        terminal.wait_for(b"20 70")
        terminal.wait_for(b"/dev/pts/")
        terminal.send(b"\r")
        assert terminal.wait_exit() == 4
        assert service.session(session)["state"] == "running"
    finally:
        service.run("kill", session)


def test_one_end_on_a_pipe_is_no_terminal_for_the_agent(service: Service, workspace: Path) -> None:
    shell = service.pty_run(
        "-c", f"{CLI} run -- sh -c 'test -t 0 || echo no terminal' | cat", executable="/bin/sh", cwd=workspace
    )
    shell.wait_for(b"no terminal")
    assert shell.wait_exit() == 0


def test_the_card_is_short_and_names_the_next_step(service: Service, workspace: Path) -> None:
    service.run("run", "--", "touch", "a", cwd=workspace)  # the first run's card is shown once
    result = service.run("run", "--", "touch", "b", ".envrc", cwd=workspace)
    lines = result.stderr.decode().splitlines()
    assert 2 <= len(lines) <= 8
    assert "1 file changed: b" in result.stderr.decode()
    assert "1 file held" in result.stderr.decode()
    assert f"deskwarden apply {service.session()['id']}" in result.stderr.decode()
