"""The client goes away: Ctrl-C at any moment, a terminal that closes, a signal that comes early."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.service import CLI, DEADLINE_S, PATIENCE, Service, is_gone, program, wait_until

STUBBORN = """
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    write("ready")
    print("ready", flush=True)
    time.sleep(120)
"""


def _state(service: Service, session: str) -> str:
    return str(service.session(session)["state"])


@pytest.mark.parametrize("verb", [["ps"], ["doctor"], ["diff"], ["logs"], ["run", "--", "sleep", "20"]])
def test_ctrl_c_while_the_imports_run_is_130_and_quiet(service: Service, workspace: Path, verb: list[str]) -> None:
    """The interpreter itself, before it reads the first line of ours, takes about 8 ms and may say what it likes."""
    assert service.run("run", "--", "touch", "made", cwd=workspace).returncode == 0
    codes = set()
    for step in range(20):
        running = service.spawn(*verb, cwd=workspace, stdin=subprocess.DEVNULL)
        _wait_for_our_code(running.pid)
        time.sleep(step * 0.004)
        running.send_signal(signal.SIGINT)
        _out, errors = running.communicate(timeout=DEADLINE_S)
        codes.add(running.returncode)
        assert b"Traceback" not in errors, errors.decode()
        assert b"KeyboardInterrupt" not in errors, errors.decode()
    assert 130 in codes
    assert codes <= {130, 0, 1, 125}
    wait_until("nothing is left running", lambda: service.json("ps") == [], 20)


def _wait_for_our_code(pid: int) -> None:
    """Wait until the interpreter catches SIGINT; its first line of ours comes a millisecond of its own time later."""
    deadline = time.monotonic() + 10 * PATIENCE
    while not is_gone(pid) and not _catches(pid, signal.SIGINT):
        assert time.monotonic() < deadline
    caught_at = _ran_s(pid)
    while not is_gone(pid) and _ran_s(pid) < caught_at + 0.005 * PATIENCE:
        assert time.monotonic() < deadline


def _ran_s(pid: int) -> float:
    """Return how long a process has run, not counting what it waited for a busy machine (proc_pid_schedstat)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return float("inf")


def _catches(pid: int, number: int) -> bool:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


def test_a_run_that_ignores_sigint_goes_on_ignoring_it(service: Service, workspace: Path) -> None:
    """A script's background job, and nohup: what was ignored at the start stays so."""
    script = 'trap "" INT HUP; exec "$0" run -- sh -c "echo ready; sleep 1; echo done"'
    running = subprocess.Popen(
        ["/bin/sh", "-c", script, CLI],
        cwd=workspace,
        env=service.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGHUP)
    out, _errors = running.communicate(timeout=DEADLINE_S)
    assert (running.returncode, out) == (0, b"done\n")


def test_no_signal_is_lost_while_the_session_starts(service: Service, workspace: Path) -> None:
    for step in range(15):
        session = service.start_session("--", "sleep", "60", cwd=workspace)
        time.sleep(step * 0.0005)
        start = time.monotonic()
        assert service.run("stop", session).returncode == 0
        assert time.monotonic() - start < 5
        assert service.session(session)["exit_code"] == 143


def test_a_hang_up_ends_the_client_although_the_agent_ignores_it(service: Service, workspace: Path) -> None:
    running = service.spawn("run", "--name", "stubborn", "--", *program(STUBBORN), cwd=workspace)
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGHUP)
    start = time.monotonic()
    assert running.wait(10) == 129
    assert time.monotonic() - start < 6
    said = running.stderr.read().decode()
    assert "hung up; it gets 10 s to end in order" in said
    assert "next: deskwarden ps --all" in said
    wait_until("the session is ended", lambda: _state(service, "stubborn") == "ended", 20)
    record = service.session("stubborn")
    assert (record["exit_code"], record["reason"]) == (137, "its terminal went away")
    assert "ready" in service.changes("stubborn")


def test_a_closed_terminal_ends_the_client_and_the_session(service: Service, workspace: Path) -> None:
    terminal = service.pty_run("run", "--name", "closed", "--", *program(STUBBORN), cwd=workspace)
    terminal.wait_for(b"ready")
    client = os.pidfd_open(terminal.pid)
    try:
        os.close(terminal._master)
        start = time.monotonic()
        code = os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1])
        terminal._code = code
    finally:
        os.close(client)
    assert code == 129
    assert time.monotonic() - start < 6
    wait_until("the session is ended", lambda: _state(service, "closed") == "ended", 20)
    assert service.session("closed")["reason"] == "its terminal went away"


def test_a_hang_up_of_attach_leaves_the_session_running(service: Service, workspace: Path) -> None:
    session = service.start_session("--", "sh", "-c", "while :; do echo tick; sleep 0.1; done", cwd=workspace)
    running = service.spawn("attach", session)
    assert running.stdout is not None
    assert running.stderr is not None
    assert b"tick" in running.stdout.readline()
    running.send_signal(signal.SIGHUP)
    assert running.wait(10) == 129
    assert b"the session goes on" in running.stderr.read()
    time.sleep(0.3)
    assert _state(service, session) == "running"
    assert service.run("kill", session).returncode == 0


def test_a_hang_up_of_exec_ends_its_command_and_not_the_session(service: Service, workspace: Path) -> None:
    session = service.start_session("--", "sleep", "60", cwd=workspace)
    running = service.spawn("exec", session, "--", *program(STUBBORN))
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    processes = _inside(service, session)
    running.send_signal(signal.SIGHUP)
    assert running.wait(10) == 129
    wait_until("the command is gone", lambda: _inside(service, session) < processes, 20)
    assert _state(service, session) == "running"
    assert service.run("kill", session).returncode == 0


def _inside(service: Service, session: str) -> int:
    result = service.run("exec", session, "--", "sh", "-c", "ls -d /proc/[0-9]* | wc -l")
    return int(result.stdout)


def test_a_detached_run_that_nobody_waits_for_is_ended(service: Service, workspace: Path) -> None:
    """The client dies before it could say the session's id: nothing is left that nobody knows of."""
    for step in range(12):
        running = service.spawn("run", "-d", "--", "sleep", "30", cwd=workspace)
        time.sleep(0.02 + step * 0.003)
        running.kill()
        running.wait()
        assert running.stdout is not None
        if running.stdout.read():  # it was quicker
            service.run("kill", "--all")
    wait_until("nothing is left running", lambda: service.json("ps") == [], 20)
