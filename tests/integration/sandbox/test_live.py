"""Grants in a running sandbox: what they show, how they lie on each other, and how they end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.sandbox.live import DriverError, Live, live

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def driver() -> Iterator[Live]:
    with live() as one:
        yield one


@pytest.fixture
def agent(driver: Live) -> Iterator[Live]:
    driver.start()
    session = driver.session
    yield driver
    if driver.ask("running", session=session):
        driver.ask("kill", session=session)
        driver.ask("ended", session=session)


def _reads(agent: Live, path: Path) -> object:
    return agent.tell(f"result = read({str(path)!r})")


def test_a_directory_is_shown_read_only_while_the_session_runs(agent: Live) -> None:
    folder = agent.folder()
    assert _reads(agent, folder / "file") == "ENOENT"
    agent.grant(folder)
    assert _reads(agent, folder / "file") == "granted\n"
    assert agent.tell(f"result = attempt(write, {str(folder / 'new')!r})") == "EROFS"
    assert agent.tell(f"result = attempt(os.chmod, {str(folder / 'file')!r}, 0o777)") == "EROFS"
    assert agent.withdraw(folder)["ended"] == "unmounted"
    assert _reads(agent, folder / "file") == "ENOENT"


def test_a_directory_staged_for_writing_takes_writes_that_the_disk_does_not_have(agent: Live) -> None:
    folder = agent.folder()
    agent.grant(folder, writable=True)
    assert (
        agent.tell(f"write({str(folder / 'file')!r}, 'changed'); result = read({str(folder / 'file')!r})") == "changed"
    )
    assert (folder / "file").read_text() == "granted\n"
    withdrawn = agent.withdraw(folder)
    assert withdrawn["ended"] == "unmounted"
    assert withdrawn["held"] == 1  # its disk is written back when the daemon closes it
    assert _reads(agent, folder / "file") == "ENOENT"


def test_a_single_file_is_shown_read_only(agent: Live) -> None:
    file = agent.folder() / "file"
    agent.grant(file)
    assert _reads(agent, file) == "granted\n"
    assert agent.tell(f"result = attempt(write, {str(file)!r})") == "EROFS"
    assert agent.tell(f"result = os.listdir({str(file.parent)!r})") == ["file"]
    assert agent.withdraw(file)["ended"] == "unmounted"
    assert _reads(agent, file) == "ENOENT"  # the empty file that it lay on went too


def test_a_grant_lies_over_an_ask_stub(agent: Live) -> None:
    stub = agent.folder("Documents")
    assert agent.tell(f"result = attempt(os.listdir, {str(stub)!r})") == "EACCES"
    agent.grant(stub)
    assert _reads(agent, stub / "file") == "granted\n"
    agent.withdraw(stub)
    assert agent.tell(f"result = attempt(os.listdir, {str(stub)!r})") == "EACCES"


def test_a_place_outside_of_the_home_is_made_on_the_sealed_root(agent: Live) -> None:
    source = agent.folder()
    agent.grant(source, shown="/srv/data/set")
    assert agent.tell("result = read('/srv/data/set/file')") == "granted\n"
    assert agent.tell("result = [attempt(os.mkdir, '/srv/x'), attempt(write, '/srv/data/x')]") == ["EROFS", "EROFS"]
    agent.withdraw(source)
    assert agent.tell("result = attempt(os.listdir, '/srv/data/set')") == "ENOENT"


def test_writing_where_landlock_cannot_allow_it_is_refused_by_name(agent: Live) -> None:
    with pytest.raises(DriverError, match="RefusedError: /srv/data: cannot be written in a session that runs"):
        agent.grant(agent.folder(), shown="/srv/data", writable=True)


def test_the_same_grant_twice_is_refused_and_the_first_stays(agent: Live) -> None:
    folder = agent.folder()
    agent.grant(folder)
    with pytest.raises(DriverError, match="is shown in this session already"):
        agent.grant(folder, name="again")
    assert _reads(agent, folder / "file") == "granted\n"
    assert agent.withdraw(folder)["ended"] == "unmounted"
    agent.grant(folder)
    assert _reads(agent, folder / "file") == "granted\n"


def test_what_is_shown_is_never_covered(agent: Live) -> None:
    inner = agent.folder("outer/inner")
    agent.grant(inner)
    with pytest.raises(DriverError, match=r"would cover .*/outer/inner"):
        agent.grant(inner.parent)
    with pytest.raises(DriverError, match=r"would cover|shown in this session already"):
        agent.grant(agent.base / "work")
    assert _reads(agent, inner / "file") == "granted\n"


def test_what_lies_on_a_grant_goes_with_it(agent: Live) -> None:
    outer = agent.folder("below/it").parent
    agent.grant(outer)
    (inner,) = agent.grant(outer / "it", writable=True)
    agent.tell(f"write({str(outer / 'it/new')!r})")
    withdrawn = agent.withdraw(outer)
    assert withdrawn["ended"] == "unmounted"
    assert withdrawn["also"] == [inner["mount_id"]]
    assert _reads(agent, outer / "it/file") == "ENOENT"


def test_several_grants_go_in_one_request(agent: Live) -> None:
    folders = [agent.folder() for _ in range(4)]
    agent.grant(*folders[:2], name="pair")
    agent.grant(folders[2])
    agent.grant(folders[3], writable=True)
    held = agent.tell(f"held = [os.open({str(folders[2])!r}, os.O_RDONLY)]; pid = os.fork()\n"
                      "if pid == 0: time.sleep(100)\nos.close(held[0])")  # fmt: skip
    assert held is None
    withdrawn = agent.withdraw("pair", folders[2], folders[3])
    assert (withdrawn["ended"], withdrawn["killed"]) == ("holders killed", 1)
    assert [_reads(agent, folder / "file") for folder in folders] == ["ENOENT"] * 4


def test_of_several_items_none_is_shown_when_one_fails(agent: Live) -> None:
    first, second = agent.folder(), agent.folder()
    agent.tell(f"os.makedirs({str(second.parent)!r}, exist_ok=True); os.symlink('/etc', {str(second)!r})")
    with pytest.raises(DriverError, match="a symlink is in the way"):
        agent.grant(first, second)
    assert _reads(agent, first / "file") == "ENOENT"
    agent.grant(first)


def test_withdrawing_twice_is_no_error(agent: Live) -> None:
    folder = agent.folder()
    agent.grant(folder)
    assert [agent.withdraw(folder)["ended"] for _ in range(2)] == ["unmounted"] * 2


def test_withdrawing_from_a_session_that_ended_says_so(driver: Live) -> None:
    driver.start()
    folder = driver.folder()
    driver.grant(folder)
    driver.ask("kill", session=driver.session)
    assert driver.ask("ended", session=driver.session) is not None
    assert driver.withdraw(folder)["ended"] == "session ended"
    with pytest.raises(DriverError, match="no running session"):
        driver.grant(folder)


def test_a_frozen_session_is_granted_and_taken_from_and_stays_frozen(agent: Live) -> None:
    folder = agent.folder()
    agent.tell("held = None")
    agent.grant(folder)
    agent.tell(f"os.chdir({str(folder)!r}); pid = os.fork()\nif pid == 0: time.sleep(100)\nos.chdir('/')")
    agent.ask("freeze", session=agent.session)
    withdrawn = agent.withdraw(folder)
    assert (withdrawn["ended"], withdrawn["killed"]) == ("holders killed", 1)
    agent.ask("thaw", session=agent.session)
    assert agent.tell("result = os.waitpid(pid, 0)[1]") == 9


def test_stopped_jobs_stay_stopped_over_a_withdrawal(agent: Live) -> None:
    folder = agent.folder()
    agent.grant(folder)
    agent.tell(f"""
stopped = os.fork()
if stopped == 0:
    time.sleep(100)
os.kill(stopped, signal.SIGSTOP)
os.waitpid(stopped, os.WUNTRACED)
fd = os.open({str(folder)!r}, os.O_RDONLY)
holder = os.fork()
if holder == 0:
    time.sleep(100)
os.close(fd)
""")
    assert agent.withdraw(folder)["ended"] == "holders killed"
    assert agent.tell("os.waitpid(holder, 0); result = status(stopped)['State'][0]") == "T"


def test_the_owner_of_what_is_shown_is_the_agent(agent: Live) -> None:
    folder = agent.folder()
    (folder / "private").write_text("mine\n")
    (folder / "private").chmod(0o600)
    agent.grant(folder)
    assert _reads(agent, folder / "private") == "mine\n"
    assert agent.tell(f"result = os.stat({str(folder)!r}).st_uid == os.geteuid()") is True


def test_the_agents_door_takes_connections_and_its_client_can_be_run(driver: Live) -> None:
    started = driver.start()
    assert started["path"].endswith(":/run/deskwarden/client/bin")
    sent = "s = socket.socket(socket.AF_UNIX); s.connect('/run/deskwarden/agent.sock'); s.send(b'it is me')"
    assert driver.tell(sent) is None
    assert driver.ask("door") == "it is me"
    assert driver.tell("result = subprocess.check_output(['/run/deskwarden/client/bin/hello']).decode()") == (
        "hello from the client\n"
    )
    refused = driver.tell("""
result = [attempt(write, "/run/deskwarden/client/bin/hello"), attempt(os.unlink, "/run/deskwarden/agent.sock"),
    attempt(os.rename, "/run/deskwarden", "/run/other"), attempt(os.mkdir, "/run/deskwarden/x")]
""")
    assert set(refused) <= {"EROFS", "EACCES", "EBUSY"}, refused


def test_nothing_of_the_grants_is_made_on_the_real_disk(agent: Live) -> None:
    folder = agent.folder()
    work = agent.base / "work"
    with pytest.raises(DriverError, match="is not made there"):
        agent.grant(folder, shown=str(work / "not/there"))
    assert os.listdir(work) == []
    assert agent.tell("result = os.listdir('.')") == []
