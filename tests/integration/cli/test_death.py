"""When a process of Deskwarden dies: sessions freeze or end within their bounds, staged work stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.linux.cgroup import hierarchy, own_group
from tests.service import DAEMON, Service, is_gone, program, serving, wait_until

TICK = """
    number = 0
    while True:
        number += 1
        with open("next", "w") as file:
            file.write(str(number))
        os.replace("next", "ticks")  # it is stopped at any moment: never between truncating and writing
        time.sleep(0.01)
"""


@pytest.fixture
def own() -> Iterator[Service]:
    """A service that a test may kill."""
    service = Service()
    yield service
    service.close()


def _tree(init: int) -> list[int]:
    """Return the session's processes below its PID 1, as the host counts them."""
    with open(f"/proc/{init}/task/{init}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def _cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _start_ticking(service: Service, folder: Path) -> tuple[str, int, int]:
    session = service.start_session("--", *program(TICK), cwd=folder)
    wait_until("the agent writes", lambda: "ticks" in service.changes(session))
    init = service.session(session)["pid"]
    (agent,) = _tree(init)
    return session, init, agent


def test_a_killed_daemon_freezes_its_sessions_at_once_and_they_end_after_ten_seconds(own: Service) -> None:
    folder = own.folder()
    session, init, agent = _start_ticking(own, folder)
    own.signal_daemon(signal.SIGKILL)
    killed = time.monotonic()
    own.wait_daemon()
    time.sleep(0.3)
    before = _cpu_ticks(agent)
    time.sleep(1.5)
    assert _cpu_ticks(agent) == before  # frozen by the cgroup or stopped: it does not run
    assert not is_gone(agent)
    wait_until("the agent is killed", lambda: is_gone(agent) and is_gone(init), 15)
    assert 8 < time.monotonic() - killed < 13
    # A new daemon says what happened, and the staged work can be reviewed and taken.
    own.start()
    record = own.session(session)
    assert record["state"] == "lost"
    assert "daemon died" in record["reason"]
    assert own.json("ps") == []
    assert "ticks" in own.changes(session)
    assert own.run("apply", session, cwd=folder).returncode == 0
    assert int((folder / "ticks").read_text()) > 0
    assert own.run("undo", cwd=folder).returncode == 0
    assert os.listdir(folder) == []


def test_the_owner_is_told_when_the_daemon_dies(own: Service) -> None:
    running = own.spawn("run", "--", "sleep", "60", cwd=own.folder())
    wait_until("it runs", lambda: len(own.json("ps")) == 1)
    own.signal_daemon(signal.SIGKILL)
    assert running.wait(10) == 125
    assert running.stderr is not None
    said = running.stderr.read()
    assert b"the daemon is gone" in said
    assert b"next: deskwarden ps --all" in said


def test_a_failure_after_the_start_is_a_value_beside_the_commands_output(own: Service) -> None:
    running = own.spawn("run", "--json", "--", "sh", "-c", "echo out; sleep 1000", cwd=own.folder())
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stdout.readline() == b"out\n"
    own.signal_daemon(signal.SIGKILL)
    assert running.wait(20) == 125
    assert running.stdout.read() == b""
    assert "the daemon is gone" in json.loads(running.stderr.read().splitlines()[-1])["error"]["message"]


def test_no_ask_area_opens_when_the_daemon_is_killed(own: Service) -> None:
    """A permission event that waited would be allowed by the kernel; a stub stays what it is."""
    code = """
        stub, opened = os.path.expanduser("~/.ssh"), 0
        record = os.open("tried", os.O_WRONLY | os.O_CREAT, 0o644)
        while True:
            opened += attempt(os.listdir, stub) == "OK"
            os.pwrite(record, b"opened %d" % opened, 0)
    """
    folder = own.folder()
    session = own.start_session("--", *program(code), cwd=folder)
    wait_until("it tries", lambda: "tried" in own.changes(session))
    init = own.session(session)["pid"]
    own.signal_daemon(signal.SIGKILL)
    own.wait_daemon()
    wait_until("the agent is killed", lambda: is_gone(init), 15)
    own.start()
    assert own.run("apply", session, cwd=folder).returncode == 0
    assert (folder / "tried").read_text() == "opened 0"


def test_a_killed_launcher_ends_every_session_within_a_second(own: Service) -> None:
    sessions = [_start_ticking(own, own.folder()) for _ in range(3)]
    launcher = own.status()["launcher_pid"]
    os.kill(launcher, signal.SIGKILL)
    pids = [pid for _session, *pids in sessions for pid in pids]
    assert wait_until("every PID 1 and agent is gone", lambda: all(is_gone(pid) for pid in pids), 5) < 1
    # Without its launcher a daemon can do nothing; it ends, and says why.
    assert own.wait_daemon(15) == 125
    assert "launcher died" in own.log()
    own.start()
    for session, _init, _agent in sessions:
        assert own.session(session)["state"] in ("lost", "ended")
        assert "ticks" in own.changes(session)


def test_a_killed_hand_is_started_anew(own: Service) -> None:
    """It holds nothing of a running session: the next review works again."""
    folder = own.folder()
    session, _init, agent = _start_ticking(own, folder)
    launcher = own.status()["launcher_pid"]
    hands = [pid for pid in _tree(launcher) if Path(f"/proc/{pid}/comm").read_bytes() == b"deskwarden-hand\n"]
    for pid in hands:
        os.kill(pid, signal.SIGKILL)
    wait_until("the hand is gone", lambda: all(is_gone(pid) for pid in hands))

    def reviewed() -> bool:
        return own.run("diff", "--stat", session).returncode == 0

    wait_until("a review works", reviewed)
    assert not is_gone(agent)
    assert own.run("run", "--", "true", cwd=folder).returncode == 0


def test_sigterm_ends_sessions_in_order_and_keeps_their_work(own: Service) -> None:
    code = """
        def end(number, frame):
            write("saved", "in order")
            sys.exit(3)
        signal.signal(signal.SIGTERM, end)
        write("ready")
        while True:
            time.sleep(1)
    """
    folder = own.folder()
    session = own.start_session("--", *program(code), cwd=folder)
    wait_until("it is ready", lambda: "ready" in own.changes(session))
    launcher = own.status()["launcher_pid"]
    own.signal_daemon(signal.SIGTERM)
    assert own.wait_daemon(20) == 0
    wait_until("the launcher is gone", lambda: is_gone(launcher), 5)
    assert own.run("status").returncode == 125
    own.start()
    record = own.session(session)
    assert (record["state"], record["exit_code"]) == ("ended", 3)
    assert "service stopped" in record["reason"]
    assert "saved" in own.changes(session)


def test_a_daemon_without_work_ends_by_itself_and_the_next_run_starts_another() -> None:
    service = Service(daemon=False, idle_exit_s=1)
    try:
        folder = service.folder()
        session = service.start_session("--", "sh", "-c", "touch made; exec sleep 60", cwd=folder)
        status = service.status()
        wait_until("it has written", lambda: "made" in service.changes(session), 15)
        service.run("kill", session)
        wait_until("it ends", lambda: is_gone(status["pid"]) and is_gone(status["launcher_pid"]), 15)
        assert service.run("status").returncode == 125
        assert service.run("apply", cwd=folder).returncode == 0  # by another one
        assert os.listdir(folder) == ["made"]
    finally:
        service.close()


def test_a_daemon_with_a_session_does_not_end_by_itself() -> None:
    service = Service(daemon=False, idle_exit_s=1)
    try:
        session = service.start_session("--", "sleep", "60", cwd=service.folder())
        daemon = service.status()["pid"]
        time.sleep(3)
        assert not is_gone(daemon)
        service.run("kill", session)
        wait_until("it ends", lambda: is_gone(daemon), 15)
    finally:
        service.close()


def test_a_second_daemon_on_the_same_state_is_refused(own: Service) -> None:
    mode = "--system" if own.is_system else "--rootless"
    result = subprocess.run([DAEMON, mode], env=own.environment, capture_output=True, timeout=30, check=False)
    assert result.returncode == 125
    assert b"another daemon already uses" in result.stderr
    assert own.run("run", "--", "true", cwd=own.folder()).returncode == 0


def test_children_of_the_agent_stand_still_too(own: Service) -> None:
    script = "while :; do :; done & while :; do :; done & wait"
    session = own.start_session("--", "sh", "-c", script, cwd=own.folder())
    init = own.session(session)["pid"]
    wait_until("the children run", lambda: bool(_tree(init)) and len(_tree(_tree(init)[0])) == 2)
    (agent,) = _tree(init)
    children = _tree(agent)
    own.signal_daemon(signal.SIGKILL)
    own.wait_daemon()
    time.sleep(0.5)
    before = [_cpu_ticks(pid) for pid in children]
    time.sleep(1)
    assert [_cpu_ticks(pid) for pid in children] == before
    wait_until("all are killed", lambda: all(is_gone(pid) for pid in (init, agent, *children)), 15)


def test_the_cgroups_of_a_killed_launcher_are_swept_by_the_next() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: an ordinary user has no cgroup directory here")
    root = Path(hierarchy() or "") / own_group().strip("/")
    left = root / "deskwarden-4194305"  # above pid_max: never a living process
    (left / "c1").mkdir(parents=True)
    with serving():
        assert not left.exists()
