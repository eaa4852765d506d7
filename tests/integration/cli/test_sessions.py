"""Sessions as a person sees them: listed, shown, stopped, forgotten; and never another user's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import OTHER_OWNERS, OtherOwner, Service, program, wait_until


def test_ps_lists_what_runs_and_all_lists_what_ended(service: Service, workspace: Path) -> None:
    session = service.start_session("--name", "listed", "--", "sleep", "60", cwd=workspace)
    try:
        (found,) = [one for one in service.json("ps") if one["id"] == session]
        assert (found["name"], found["state"], found["argv"]) == ("listed", "running", ["sleep", "60"])
        table = service.run("ps").stdout.decode()
        assert session in table
        assert "running" in table
    finally:
        service.run("kill", session)
    assert session not in {one["id"] for one in service.json("ps")}
    assert session in {one["id"] for one in service.json("ps", "--all")}


def test_show_says_what_is_really_enforced(service: Service, workspace: Path) -> None:
    service.run("run", "--", "sh", "-c", "exit 6", cwd=workspace)
    session = service.session()
    assert (session["state"], session["exit_code"], session["workspace"]) == ("ended", 6, str(workspace))
    report = session["report"]
    assert report["service"] == ("system" if service.is_system else "rootless")
    assert report["agent_uid"] == session["agent_uid"] != 0
    assert report["landlock_abi"] >= 1
    text = service.run("show").stdout.decode()
    assert "ended, exit 6" in text
    assert f"uid {report['agent_uid']}" in text


def test_logs_keep_what_was_printed(service: Service, workspace: Path) -> None:
    data = b"one\ntwo \xff raw\n"
    session = service.start_session("--", *program("sys.stdout.buffer.write(DATA)", DATA=data), cwd=workspace)
    wait_until("it ends", lambda: service.session(session)["state"] == "ended")
    assert service.run("logs", session).stdout == data


def test_logs_follow_until_the_end(service: Service, workspace: Path) -> None:
    script = "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"
    session = service.start_session("--", "sh", "-c", script, cwd=workspace)
    assert service.run("logs", "-f", session).stdout == b"1\n2\n3\n4\n5\n"
    assert service.session(session)["state"] == "ended"


def test_stop_lets_the_agent_end_in_order(service: Service, workspace: Path) -> None:
    code = """
        def end(number, frame):
            write("saved", "in order")
            sys.exit(8)
        signal.signal(signal.SIGTERM, end)
        write("ready")
        time.sleep(60)
    """
    session = service.start_session("--", *program(code), cwd=workspace)
    wait_until("it is ready", lambda: "ready" in service.changes(session))
    result = service.run("stop", "--json", session)
    assert json.loads(result.stdout) == [session]
    assert service.session(session)["exit_code"] == 8
    assert "saved" in service.changes(session)


def test_stop_kills_what_ignores_it(service: Service, workspace: Path) -> None:
    session = service.start_session(
        "--", *program("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwrite('ready')\ntime.sleep(60)"), cwd=workspace
    )
    wait_until("it is ready", lambda: "ready" in service.changes(session))
    start = time.monotonic()
    assert service.run("stop", session).returncode == 0
    assert 8 < time.monotonic() - start < 20
    assert service.session(session)["exit_code"] == 137


def test_kill_is_at_once_and_keeps_staged_work(service: Service, workspace: Path) -> None:
    session = service.start_session("--", "sh", "-c", "trap '' TERM; echo x > staged; sleep 60", cwd=workspace)
    wait_until("it wrote", lambda: "staged" in service.changes(session))
    start = time.monotonic()
    assert service.run("kill", session).returncode == 0
    assert time.monotonic() - start < 3
    assert service.session(session)["state"] == "ended"
    assert service.run("apply", session, cwd=workspace).returncode == 0
    assert (workspace / "staged").read_text() == "x\n"


def test_stop_all_ends_all_of_mine(service: Service, workspace: Path) -> None:
    ids = {service.start_session("--", "sleep", "60", cwd=workspace) for _ in range(3)}
    assert ids <= set(json.loads(service.run("stop", "--all", "--json").stdout))
    assert service.json("ps") == []
    assert b"no session" in service.run("ps").stdout


def test_a_name_finds_the_newest_and_is_taken_while_it_runs(service: Service, workspace: Path) -> None:
    first = service.start_session("--name", "mine", "--", "sleep", "60", cwd=workspace)
    second = service.run("run", "--name", "mine", "--", "true", cwd=workspace)
    assert second.returncode == 125
    assert b"a session named mine is running" in second.stderr
    service.run("kill", "mine")
    again = service.start_session("--name", "mine", "--", "true", cwd=workspace)
    assert again != first
    assert service.session("mine")["id"] == again


def test_prune_forgets_what_holds_nothing_and_keeps_the_rest(service: Service, workspace: Path) -> None:
    service.run("run", "--", "true", cwd=workspace)
    empty = service.session()["id"]
    service.run("run", "--", "touch", "made", cwd=workspace)
    full = service.session()["id"]
    answer = service.json("prune")
    assert empty in answer["pruned"]
    assert full in answer["kept"]
    assert service.run("show", empty).returncode == 125
    assert "made" in service.changes(full)
    assert full in service.json("prune", "--all")["pruned"]
    assert service.run("show", full).returncode == 125
    assert service.run("logs", full).returncode == 125


def test_a_session_whose_folder_is_gone_does_not_hold_up_the_others(service: Service, workspace: Path) -> None:
    service.run("run", "--", "true", cwd=workspace)
    empty = service.session()["id"]
    folder = service.folder()
    service.run("run", "--", "touch", "made", cwd=folder)
    lost = service.session()["id"]
    folder.rmdir()
    answer = service.json("prune")
    assert empty in answer["pruned"]
    assert lost in answer["kept"]
    assert lost in service.json("prune", "--all")["pruned"]


def test_an_apply_can_be_undone_after_its_session_was_pruned(service: Service, workspace: Path) -> None:
    service.run("run", "--", "touch", "made", cwd=workspace)
    assert service.run("apply", cwd=workspace).returncode == 0
    service.run("prune", "--all")
    assert service.run("undo", cwd=workspace).returncode == 0
    assert os.listdir(workspace) == []


def test_a_failed_launch_leaves_no_session(service: Service, workspace: Path) -> None:
    before = service.json("ps", "--all")
    service.run("run", "--", "no-such-command", cwd=workspace)
    service.run("run", "-r", "/no/such", "--", "true", cwd=workspace)
    assert service.json("ps", "--all") == before


@pytest.mark.parametrize("verb", ["show", "logs", "stop", "kill", "attach", "diff", "apply", "discard"])
def test_a_session_that_is_not_there_is_an_error_with_a_next_step(service: Service, verb: str) -> None:
    words = [verb, "nosuch12"] if verb not in ("diff", "apply", "discard") else ["undo", "--session", "nosuch12"]
    result = service.run(*words)
    assert result.returncode == 125, result
    assert b"nosuch12" in result.stderr
    assert b"next: " in result.stderr


# ---- profiles ----


@pytest.fixture
def profiles(service: Service) -> Iterator[Path]:
    if service.is_system:
        pytest.skip("a profile of one's own lies in the home: root's is not ours to change")
    directory = Path(service.home) / ".config/deskwarden/profiles.d"
    directory.mkdir(parents=True, exist_ok=True)
    yield directory
    for path in directory.iterdir():
        path.unlink()


def test_a_profile_with_an_error_names_line_and_column(service: Service, workspace: Path, profiles: Path) -> None:
    (profiles / "bad.yaml").write_text(
        "name: bad\ndescription: x\nextends: strict\nlimits:\n  memory: [1\n", encoding="utf-8"
    )
    result = service.run("run", "-p", "bad", "--", "true", cwd=workspace)
    assert result.returncode in (125, 126), result
    assert "bad.yaml" in result.stderr.decode()
    assert any(f":{line}:" in result.stderr.decode() or f"line {line}" in result.stderr.decode() for line in (5, 6))


def test_a_profile_of_ones_own_works(service: Service, workspace: Path, profiles: Path) -> None:
    (profiles / "mine.yaml").write_text(
        "name: mine\ndescription: x\nextends: strict\nlimits:\n  pids: 50\n", encoding="utf-8"
    )
    assert service.run("run", "-p", "mine", "--", "true", cwd=workspace).returncode == 0
    assert service.session()["profile"] == "mine"


def test_a_profile_file_is_checked_with_line_and_column(service: Service, workspace: Path) -> None:
    path = workspace / "p.yaml"
    path.write_text("name: p\ndescription: x\nlimits:\n  memory: lots\n", encoding="utf-8")
    result = service.run("profile", "check", str(path))
    assert result.returncode != 0
    text = (result.stdout + result.stderr).decode()
    assert "p.yaml:4:" in text or "line 4" in text, text


@pytest.mark.parametrize("profile", ["strict", "coding", "data", "desktop"])
def test_each_profile_runs(service: Service, workspace: Path, profile: str) -> None:
    result = service.run("run", "-p", profile, "--", "sh", "-c", "echo x > made; id -u", cwd=workspace)
    assert result.returncode == 0, result
    assert int(result.stdout) != 0


# ---- two users ----


@pytest.mark.skipif(os.geteuid() != 0, reason="two users against one system service: needs root to become them")
def test_two_users_never_see_each_others_sessions(service: Service) -> None:
    one, other = (OtherOwner(service, name) for name in OTHER_OWNERS)
    mine, theirs = one.folder(), other.folder()
    (theirs / "secret").write_text("theirs\n", encoding="utf-8")
    started = other.run(
        "run", "-d", "--name", "private", "--", "sh", "-c", "echo hidden; touch made; exec sleep 60", cwd=theirs
    )
    assert started.returncode == 0, started
    session = started.stdout.decode().strip()
    try:
        assert [item["id"] for item in json.loads(other.run("ps", "--json").stdout)] == [session]
        assert json.loads(one.run("ps", "--json", "--all").stdout) == []
        missing = one.run("show", "nosuch12").stderr.replace(b"nosuch12", b"X")
        for word in (session, "private"):
            for verb in (["show"], ["logs"], ["stop"], ["kill"], ["attach"], ["exec"]):
                tail = ["--", "true"] if verb == ["exec"] else []
                result = one.run(*verb, word, *tail)
                assert result.returncode == 125, (verb, result)
                assert b"hidden" not in result.stdout
            # Another owner's session is not told apart from one that is missing.
            assert one.run("show", word).stderr.replace(word.encode(), b"X") == missing
        for review in ("diff", "apply", "discard"):
            assert b"made" not in one.run(review, session).stdout
        assert one.run("stop", "--all").returncode == 0
        assert json.loads(other.run("show", "--json", session).stdout)["state"] == "running"
        # Neither do their agents: other uids, other processes, other files.
        code = """
            report([os.getuid(), [name for name in os.listdir("/proc") if name.isdigit()], attempt(read, SECRET)])
        """
        uid, pids, opened = one.python(code, cwd=mine, SECRET=str(theirs / "secret"))
        assert uid != json.loads(other.run("show", "--json", session).stdout)["agent_uid"]
        assert len(pids) == 2
        assert opened == "ENOENT"
        # Outside, the staged files and the record are out of the other user's reach.
        for path in (service.state, f"{service.state}/stores", f"{service.state}/stores/{other.account.pw_uid}"):
            assert one.run_program("ls", path).returncode != 0, path
            assert other.run_program("ls", f"{service.state}/stores").returncode != 0
    finally:
        other.run("kill", session)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="another user against a service for root alone: needs root to become them"
)
def test_roots_own_service_answers_nobody_else() -> None:
    """Started by root's first `run`, without a system service: it serves root only."""
    service = Service(daemon=False)
    try:
        assert service.run("run", "--", "true", cwd=service.folder()).returncode == 0
        other = OtherOwner(service, OTHER_OWNERS[0])
        result = other.run_program("/usr/bin/python3", "-c", _CONNECT, f"{service.runtime}/launch.sock")
        assert result.returncode != 0
        assert b"PermissionError" in result.stderr
    finally:
        service.close()


_CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(sys.argv[1])"
