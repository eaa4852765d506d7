"""An ask-list name that is opened: it fails at once, becomes a question, and the grant lies over it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service import Service, program, wait_until

# Root's real home stays out of it: the daemon's mount namespace has another one.
_FILL = "mkdir -p $H/.ssh $H/Documents/sums && echo key > $H/.ssh/id_rsa && echo 1 > $H/Documents/sums/q.csv"
_ROOT_HOME = ("unshare", "--mount", "--propagation", "private", "sh", "-c")


@pytest.fixture(scope="module")
def home_service() -> Iterator[Service]:
    if os.geteuid() == 0:
        home = Path("/root")
        script = f'mount -t tmpfs none {home}; H={home}; {_FILL}; echo token > $H/.npmrc; exec "$@"'
        service = Service(prefix=(*_ROOT_HOME, script, "sh"))
    else:
        service = Service(daemon=False)
        subprocess.run(["sh", "-c", f"{_FILL}; echo token > $H/.npmrc"], env={"H": service.home}, check=True)
        service.start()
    try:
        yield service
    finally:
        service.close()


@pytest.fixture
def watched(home_service: Service) -> Iterator[Service]:
    """The service, with somebody who looks at its requests."""
    watching = home_service.spawn("requests", "--watch")
    time.sleep(0.5)
    try:
        yield home_service
    finally:
        watching.kill()
        home_service.tidy()


_AGENT = """
home = os.path.expanduser("~")
out = {name: attempt(function) for name, function in {
    "inside": lambda: open(home + "/.ssh/id_rsa"),
    "list": lambda: os.listdir(home + "/.ssh"),
    "file": lambda: open(home + "/.npmrc"),
    "make": lambda: os.mkdir(home + "/.ssh/new"),
    "create": lambda: os.open(home + "/.ssh/new", os.O_CREAT | os.O_WRONLY),
    "enter": lambda: os.chdir(home + "/.ssh"),
    "look": lambda: os.stat(home + "/.ssh"),
    "statfs": lambda: os.statvfs(home + "/.ssh"),
    "xattr": lambda: os.listxattr(home + "/.ssh"),
    "chmod": lambda: os.chmod(home + "/.ssh", 0o777),
    "rename": lambda: os.rename(home + "/.ssh", home + "/.other"),
    "remove": lambda: os.rmdir(home + "/.ssh"),
    "proc root": lambda: open("/proc/self/root" + home + "/.ssh/id_rsa"),
    "beside": lambda: open(home + "/.ssh/../mine", "w"),
}.items()}
report(out)
"""


def test_opening_fails_at_once_and_says_nothing_of_what_is_there(home_service: Service) -> None:
    found = home_service.python(_AGENT, cwd=home_service.folder())
    assert found == {
        "inside": "EACCES",
        "list": "EACCES",
        "file": "EACCES",
        "make": "EACCES",
        "create": "EACCES",
        "enter": "EACCES",
        "look": "OK",
        "statfs": "OK",
        "xattr": "EACCES",
        "chmod": "EROFS",
        "rename": "EBUSY",
        "remove": "EBUSY",
        "proc root": "EACCES",
        "beside": "OK",
    }


def _waiting(service: Service, session: str) -> list[dict[str, Any]]:
    return [one for one in service.json("requests") if one["session"] == session]


_READER = """
while True:
    try:
        print(open(os.path.expanduser({path!r})).read(), flush=True)
        break
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
    time.sleep(0.1)
time.sleep(1000)
"""


def _start(service: Service, path: str) -> str:
    return service.start_session("--", *program(_READER.format(path=path)), cwd=service.folder())


@pytest.mark.parametrize(("stub", "opened"), [("Documents", "Documents/sums/q.csv")])
def test_an_open_becomes_one_question_and_the_grant_lies_over_the_name(
    watched: Service, stub: str, opened: str
) -> None:
    session = _start(watched, f"~/{opened}")
    wait_until("a question", lambda: _waiting(watched, session))
    (request,) = _waiting(watched, session)
    assert request["target"] == f"{watched.home}/{stub}"
    assert any(line["text"] == f"opened {watched.home}/{os.path.dirname(opened)}" for line in request["card"])
    time.sleep(0.5)
    assert len(_waiting(watched, session)) == 1
    assert watched.run("approve", request["id"]).returncode == 0
    wait_until("the file is read", lambda: "1" in watched.run("logs", session).stdout.decode().split())
    assert watched.run("revoke", "--session", session).returncode == 0
    watched.run("stop", session)


def test_what_is_granted_below_a_name_is_reached_and_nothing_beside_it(watched: Service) -> None:
    session = _start(watched, "~/Documents/sums/q.csv")
    code = "deskwarden-agent request file:read ~/Documents/sums/q.csv --reason sums --wait"
    asking = watched.spawn("exec", session, "--", "sh", "-c", code)
    target = f"{watched.home}/Documents/sums/q.csv"
    wait_until("a question", lambda: [one for one in _waiting(watched, session) if one["target"].endswith("q.csv")])
    (request,) = [one for one in _waiting(watched, session) if one["target"].endswith("q.csv")]
    assert watched.run("approve", request["id"]).returncode == 0
    assert asking.wait(20) == 0
    wait_until("the file is read", lambda: "1" in watched.run("logs", session).stdout.decode().split())
    beside = watched.run("exec", session, "--", "sh", "-c", "cat ~/Documents/sums/other; ls ~/Documents; cat " + target)
    assert beside.stderr.count(b"Permission denied") == 2
    assert watched.run("revoke", "--session", session).returncode == 0
    after = watched.run("exec", session, "--", "cat", target)
    assert (after.returncode, b"Permission denied" in after.stderr) == (1, True)
    watched.run("stop", session)


def test_with_nobody_there_it_is_a_denial_on_record_and_no_question(home_service: Service) -> None:
    session = _start(home_service, "~/.ssh/id_rsa")
    wait_until("the denial", lambda: f"session {session} opened" in home_service.log())
    assert _waiting(home_service, session) == []
    home_service.run("stop", session)


def test_thousands_of_opens_from_threads_are_one_question_and_the_service_answers_meanwhile(watched: Service) -> None:
    code = """
    import threading
    path = os.path.expanduser("~/Documents/a")
    def look():
        for _ in range(500):
            attempt(open, path)
    threads = [threading.Thread(target=look) for _ in range(8)]
    [one.start() for one in threads]; [one.join() for one in threads]
    print("done", flush=True)
    time.sleep(1000)
    """
    session = watched.start_session("--", *program(code), cwd=watched.folder())
    wait_until("a question", lambda: _waiting(watched, session))
    start = time.monotonic()
    watched.status()
    assert time.monotonic() - start < 3.0
    wait_until("all are answered", lambda: b"done" in watched.run("logs", session).stdout, 30)
    assert len(_waiting(watched, session)) == 1
    watched.run("stop", session)


def test_a_killed_daemon_never_lets_an_open_through() -> None:
    service = Service()
    try:
        session_home = service.home
        log = Path(service.folder()) / "seen"
        log.touch()
        code = """
        while True:
            write(LOG, attempt(os.listdir, HOME + "/.ssh"))
        """
        service.start_session("--mode", "direct", "--", *program(code, LOG=str(log), HOME=session_home), cwd=log.parent)
        wait_until("it is refused", lambda: log.read_text() == "EACCES")
        service.signal_daemon(signal.SIGKILL)
        service.wait_daemon()
        time.sleep(0.2)
        assert log.read_text() in ("EACCES", "ENOTCONN", "")
    finally:
        with contextlib.suppress(Exception):
            service.close()
