"""An agent that wants to keep what was granted to it, or to have it lead elsewhere, while it runs.

The launcher is driven without a daemon here: what it proves must not depend on one.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sandbox.live import DriverError, Live, live
from tests.service import is_gone, wait_until

pytestmark = pytest.mark.redteam

_FORK = "\nif os.fork() == 0:\n    time.sleep(1000)\n"

# How a grant can be held on to: code that leaves one child holding it, and the agent itself without.
HOLDS = {
    "a descriptor": "fd = os.open(P + '/file', os.O_RDONLY)" + _FORK + "os.close(fd)",
    "a path descriptor": "fd = os.open(P, os.O_PATH)" + _FORK + "os.close(fd)",
    "a mapping": """
if os.fork() == 0:
    fd = os.open(P + '/file', os.O_RDONLY)
    area = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    os.closerange(3, 1000)
    time.sleep(1000)
""",
    "its directory": """
if os.fork() == 0:
    os.chdir(P)
    time.sleep(1000)
""",
    "a running program": "subprocess.Popen([P + '/sleep', '1000'], cwd='/')",
    "a thread with descriptors of its own": """
def keep():
    _libc.unshare(0x400)  # CLONE_FILES
    fd = os.open(P + '/file', os.O_RDONLY)
    time.sleep(1000)
if os.fork() == 0:
    threading.Thread(target=keep).start()
    time.sleep(1000)
""",
    "a thread in it, its first thread gone": """
def keep():
    _libc.unshare(0x200)  # CLONE_FS
    os.chdir(P)
    time.sleep(1000)
if os.fork() == 0:
    threading.Thread(target=keep).start()
    time.sleep(0.2)
    _libc.syscall(ctypes.c_long(93 if platform.machine() == 'aarch64' else 60), ctypes.c_long(0))
""",
    "what exec left open": """
fd = os.open(P, os.O_RDONLY)
subprocess.Popen(['/bin/sleep', '1000'], pass_fds=[fd])
os.close(fd)
""",
    "a process that cannot be looked at": """
if os.fork() == 0:
    _libc.prctl(4, 0)  # PR_SET_DUMPABLE
    fd = os.open(P, os.O_RDONLY)
    time.sleep(1000)
""",
    "a lock on it": """
if os.fork() == 0:
    fd = os.open(P + '/file', os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    time.sleep(1000)
""",
}


@pytest.fixture(scope="module")
def driver() -> Iterator[Live]:
    with live() as one:
        yield one


@pytest.fixture(autouse=True)
def tidy() -> None:
    """No service here, whose sessions would have to be ended."""


@pytest.fixture
def agent(driver: Live) -> Iterator[Live]:
    driver.start()
    session = driver.session
    yield driver
    if driver.ask("running", session=session):
        driver.ask("kill", session=session)
        driver.ask("ended", session=session)


def _granted(agent: Live, **fields: Any) -> Path:
    folder = agent.folder()
    with open("/bin/sleep", "rb") as file:
        (folder / "sleep").write_bytes(file.read())
    (folder / "sleep").chmod(0o755)
    agent.grant(folder, **fields)
    return folder


@pytest.mark.parametrize("writable", [False, True], ids=["read-only", "staged"])
@pytest.mark.parametrize("how", HOLDS)
def test_what_holds_a_grant_dies_and_the_rest_of_the_session_goes_on(agent: Live, how: str, writable: bool) -> None:
    folder = _granted(agent, writable=writable)
    said = agent.tell(f"P = {str(folder)!r}\n" + HOLDS[how])
    assert said is None, said
    time.sleep(0.4)
    withdrawn = agent.withdraw(folder)
    assert (withdrawn["ended"], withdrawn["killed"]) == ("holders killed", 1)
    assert agent.tell(f"result = [attempt(read, {str(folder / 'file')!r}), os.wait()[1] & 127]") == ["ENOENT", 9]


def test_a_descriptor_on_its_way_through_a_socket_ends_the_session(agent: Live) -> None:
    folder = _granted(agent)
    agent.tell(f"""
a, b = socket.socketpair()
fd = os.open({str(folder / "file")!r}, os.O_RDONLY)
socket.send_fds(a, [b"x"], [fd])
os.close(fd)
""")
    assert agent.withdraw(folder)["ended"] == "session killed"
    assert agent.ask("ended", session=agent.session) is not None


def test_an_agent_that_holds_it_itself_dies(agent: Live) -> None:
    folder = _granted(agent)
    agent.tell(f"fd = os.open({str(folder)!r}, os.O_RDONLY)")
    assert agent.withdraw(folder)["ended"] == "holders killed"
    assert agent.ask("ended", session=agent.session) is not None


def test_a_crowd_that_forks_and_passes_it_on_is_caught(agent: Live) -> None:
    """Each opens it, forks, and ends: who holds it is another one each time one looks."""
    folder = _granted(agent)
    agent.tell(f"""
if os.fork() == 0:
    try:
        end = time.monotonic() + 60
        fd = os.open({str(folder)!r}, os.O_RDONLY)
        for _ in range(6):
            os.fork()
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            os.dup2(os.open({str(folder / "file")!r}, os.O_RDONLY), fd)
    finally:
        os._exit(0)
""")
    time.sleep(0.5)
    withdrawn = agent.withdraw(folder)
    assert withdrawn["ended"] in ("holders killed", "session killed")
    if agent.ask("running", session=agent.session):
        assert agent.tell(f"result = attempt(read, {str(folder / 'file')!r})") == "ENOENT"


def test_ancestors_that_the_agent_renames_do_not_hide_a_grant(agent: Live) -> None:
    folder = agent.folder("a/b/c")
    agent.grant(folder)
    moved = agent.home / "elsewhere"
    agent.tell(f"os.rename({str(agent.home / 'a')!r}, {str(moved)!r}); os.makedirs({str(folder)!r})")
    assert agent.tell(f"result = read({str(moved / 'b/c/file')!r})") == "granted\n"
    assert agent.withdraw(folder)["ended"] == "unmounted"
    assert agent.tell(f"result = attempt(os.listdir, {str(moved / 'b/c')!r})") == "ENOENT"


def test_ancestors_that_are_renamed_all_the_time_do_not_stop_a_withdrawal(agent: Live) -> None:
    folder = agent.folder("swing/b/c")
    agent.grant(folder)
    swing, other = str(agent.home / "swing"), str(agent.home / "swung")
    agent.tell(f"""
if os.fork() == 0:
    while True:
        os.rename({swing!r}, {other!r})
        os.symlink("/proc", {swing!r})
        os.unlink({swing!r})
        os.rename({other!r}, {swing!r})
""")
    for turn in range(10):
        withdrawn = agent.withdraw(folder)
        assert withdrawn["ended"] == "unmounted", withdrawn
        for _attempt in range(50):
            try:
                agent.grant(folder)
            except DriverError:  # refused by name: a symlink, or the place moved
                continue
            break
        else:
            pytest.fail(f"never granted again, turn {turn}")
    agent.withdraw(folder)
    assert agent.tell("result = os.path.exists('/proc/self/status')")


@pytest.mark.parametrize("target", ["/etc", "/proc/self/root", "/usr", "WORK"])
def test_a_symlink_in_place_of_the_target_or_above_it_is_refused(agent: Live, target: str) -> None:
    folder = agent.folder()
    leads = str(agent.base / "work") if target == "WORK" else target
    agent.tell(f"os.symlink({leads!r}, {str(folder)!r})")
    with pytest.raises(DriverError, match=r"RefusedError: .*a symlink is in the way"):
        agent.grant(folder)
    with pytest.raises(DriverError, match=r"RefusedError: .*a symlink is in the way"):
        agent.grant(folder, shown=str(folder / "below"))
    assert os.listdir(agent.base / "work") == []


def test_a_fifo_or_a_directory_in_place_of_a_file_is_refused(agent: Live) -> None:
    for make in ("os.mkfifo", "os.mkdir"):
        file = agent.folder() / "file"
        agent.tell(f"os.makedirs({str(file.parent)!r}); {make}({str(file)!r})")
        with pytest.raises(DriverError, match="is no regular file"):
            agent.grant(file)


def test_the_agent_mounts_and_unmounts_nothing_of_a_grant(agent: Live) -> None:
    folder = _granted(agent)
    said = agent.tell(f"""
P = {str(folder)!r}.encode()
result = [syscall("umount2", P, 2), syscall("mount", b"none", P, b"tmpfs", 0, None),
    syscall("mount", None, P, None, 32 | 4096, None), syscall("open_tree", -100, P, 1), syscall("unshare", 0x20000),
    attempt(os.rename, P, P + b"2"), attempt(os.rmdir, P)]
""")
    assert set(said) <= {"EPERM", "EBUSY", "EROFS", "ENOSYS"}, said


def test_sockets_fifos_and_locks_have_no_effect_on_the_host(agent: Live) -> None:
    folder = agent.folder()
    os.mkfifo(folder / "fifo", 0o666)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket"))
    os.chmod(folder / "socket", 0o777)
    os.chmod(folder / "file", 0o666)
    server.listen()
    heard: list[bytes] = []
    reader = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    listening = threading.Thread(target=lambda: heard.append(os.read(reader, 10)))
    agent.grant(folder)
    said = agent.tell(f"""
P = {str(folder)!r}
fd = os.open(P + "/file", os.O_RDONLY)
result = [attempt(socket.socket(socket.AF_UNIX).connect, P + "/socket"),
    attempt(os.open, P + "/fifo", os.O_WRONLY | os.O_NONBLOCK), attempt(fcntl.flock, fd, fcntl.LOCK_EX)]
""")
    assert said[0] == "ECONNREFUSED"
    assert said[1] in ("ENXIO", "EROFS")
    with open(folder / "file", "rb") as file:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whatever the agent locked, it is not this
    listening.start()
    listening.join()
    assert heard == [b""]
    os.close(reader)
    server.close()


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ({"op": "bind", "source": 0, "path": "/home/x", "origin": "x", "read_only": False}, "writable"),
        ({"op": "bind", "source": 0, "path": "/home/x", "origin": "x", "device": True}, "device"),
        ({"op": "bind", "source": 0, "path": "/home/x", "origin": "x", "recursive": True}, "mounted below"),
        ({"op": "bind", "source": 0, "path": "/proc/1", "origin": "x"}, "mounts at '/proc/1'"),
        ({"op": "bind", "source": 0, "path": "/run/deskwarden/agent.sock", "origin": "x"}, "mounts at"),
        ({"op": "bind", "source": 0, "path": "/home/../etc", "origin": "x"}, "mounts at"),
        ({"op": "bind", "source": 0, "path": "/", "origin": "x"}, "mounts at"),
        ({"op": "bind", "source": 0, "path": 7, "origin": "x"}, "mounts at"),
        ({"op": "bind", "source": "/etc", "path": "/home/x", "origin": "x"}, "descriptor's index"),
        ({"op": "mount", "fs_type": "tmpfs", "path": "/usr"}, "files and directories only"),
        ({"op": "pivot"}, "files and directories only"),
        ({"op": "overlay", "lower": [0, 0], "path": "/x", "origin": "x", "options": {"lowerdir": "/"}}, "want only"),
        ({"op": "overlay", "lower": [0], "path": "/x", "origin": "x", "options": {}, "detached": True}, "review"),
    ],
)
def test_a_plan_that_mounts_more_than_a_grant_is_refused(agent: Live, operation: dict[str, object], words: str) -> None:
    answer = agent.ask(
        "raw", request="grant", session=agent.session, plan={"operations": [operation]}, sources=[str(agent.home)]
    )
    assert answer["error"]["kind"] == "RefusedError", answer
    assert words in answer["error"]["message"]


@pytest.mark.parametrize("mounts", [None, [], [{}], [{"id": "1", "device": [0, 1]}], [{"id": 1, "device": [1]}], [7]])
def test_a_withdrawal_that_names_no_mounts_is_refused(agent: Live, mounts: object) -> None:
    answer = agent.ask("raw", request="withdraw", session=agent.session, plan={"mounts": mounts}, sources=[])
    assert answer["error"]["kind"] == "RefusedError", answer


def test_a_withdrawal_takes_no_mount_of_another_device(agent: Live) -> None:
    (mounted,) = agent.grant(agent.folder())
    wrong = [{"id": mounted["mount_id"], "device": [0, mounted["device"][1] + 1000]}]
    answer = agent.ask("raw", request="withdraw", session=agent.session, plan={"mounts": wrong}, sources=[])
    assert answer["ended"] == "unmounted"
    assert agent.tell(f"result = os.listdir({mounted['path']!r})") == ["file"]


def test_nothing_is_mounted_into_a_hand(agent: Live) -> None:
    for request in ("grant", "withdraw"):
        hands = agent.ask("raw_hand", request=request)
        assert hands in ("no running session", "ended"), hands


def test_a_nested_sandbox_keeps_no_copy() -> None:
    """A profile may allow user namespaces: a mount namespace of one's own is a copy of all mounts."""
    with live("desktop") as other:
        for keep in ("time.sleep(1000)", "fd = os.open('/proc/self/ns/mnt', os.O_RDONLY)\n    give(fd)"):
            other.start()
            folder = _granted(other)
            said = other.tell(f"""
a, b = socket.socketpair()
def give(fd):
    socket.send_fds(b, [b"x"], [fd])
    os._exit(0)
pid = os.fork()
if pid == 0:
    if _libc.unshare(0x10000000 | 0x20000) != 0:
        os._exit(7)
    {keep}
if {keep!r}.startswith("fd"):
    if os.fork() == 0:
        message, fds, flags, address = socket.recv_fds(a, 1, 1)
        time.sleep(1000)
    result = os.waitpid(pid, 0)[1]
else:
    time.sleep(0.3)
    result = os.waitpid(pid, os.WNOHANG)[1]
""")
            assert said == 0, said
            time.sleep(0.3)
            withdrawn = other.withdraw(folder)
            # Removing what the mount lay on detaches its copies in other namespaces (Linux 3.18); the kernel then says
            # that the file system is gone, and nobody has to be killed.
            assert (withdrawn["ended"], withdrawn["killed"]) in (("holders killed", 1), ("unmounted", 0)), withdrawn
            assert other.tell(f"result = attempt(read, {str(folder / 'file')!r})") == "ENOENT"
            other.ask("kill", session=other.session)


def test_a_daemon_that_dies_leaves_no_grant_and_no_session() -> None:
    with live() as other:
        pid = other.start()["pid"]
        folder = _granted(other, writable=True)
        other.tell(f"fd = os.open({str(folder)!r}, os.O_RDONLY)")
        launcher = other.ask("die")
        wait_until("the launcher is gone", lambda: is_gone(launcher), 20)
        assert is_gone(pid)
        assert sorted(os.listdir(folder)) == ["file", "sleep"]
