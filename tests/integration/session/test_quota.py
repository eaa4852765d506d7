"""The watch of staged files holds whatever an owner does to the process that measures them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.session.quota import DEADLINE_S, MOST_MISSES
from tests.disk import STATE_KINDS, SmallDisk
from tests.service import PATIENCE, OtherOwner, wait_until

SMALL = "name: small\ndescription: small\nextends: strict\nlimits:\n  staged: 32MiB\n"
WRITE = "for i in $(seq 10); do head -c 4M /dev/zero > f$i; sleep 0.1; done; exec sleep 600"
LIMIT_S = DEADLINE_S * MOST_MISSES


@pytest.fixture(scope="module")
def service() -> Iterator[SmallDisk]:
    """A service that knows a profile with a small limit: the owner's own or, of all owners, IT's."""
    system = os.geteuid() == 0
    # IT's directory may not exist here: the daemon sees an /etc of its own, with one.
    profiles = "/etc/deskwarden/profiles.d" if system else ""
    one = SmallDisk(512, STATE_KINDS[-1], own_etc=system)
    if not system:
        profiles = f"{one.home}/.config/deskwarden/profiles.d"
    target = Path(f"/proc/{one.holder_pid}/root{profiles}")
    target.mkdir(parents=True, exist_ok=True)
    (target / "small.yaml").write_text(SMALL)
    yield one
    one.close()


def _hand(service: SmallDisk, uid: int) -> int:
    """Return the pid of the owner's hand."""
    launcher = service.status()["launcher_pid"]
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        process = Path(f"/proc/{pid}")
        if (process / "comm").read_bytes() == b"deskwarden-hand\n":
            status = (process / "status").read_text()
            if f"\nUid:\t{uid}\t" in status:
                return int(pid)
    raise AssertionError("there is no hand")


def test_a_session_that_cannot_be_measured_is_ended_for_that_reason(service: SmallDisk) -> None:
    session = service.start_session("-p", "small", "--", "sh", "-c", WRITE, cwd=service.folder())
    hand = _hand(service, os.geteuid())
    os.kill(hand, signal.SIGSTOP)
    try:
        took = wait_until("it is ended", lambda: service.session(session)["state"] == "ended", LIMIT_S + 15)
        assert took > DEADLINE_S
        assert "could not be measured 3 times in a row: no answer" in service.session(session)["reason"]
    finally:
        with contextlib.suppress(ProcessLookupError):  # a hand that is late is killed, stopped or not
            os.kill(hand, signal.SIGCONT)
    assert {"f1"} <= service.changes(session).keys()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: rootless serves one owner only")
def test_an_owner_who_stops_the_measuring_stops_no_other_owners(service: SmallDisk) -> None:
    other = OtherOwner(service, "news")
    begun = other.run("run", "-d", "-p", "small", "--", "sh", "-c", WRITE, cwd=other.folder())
    assert begun.returncode == 0, begun
    hand = _hand(service, other.account.pw_uid)
    os.kill(hand, signal.SIGSTOP)
    try:
        time.sleep(1)  # the look at it has begun by then
        began = time.monotonic()
        result = service.run("run", "-p", "small", "--", "sh", "-c", WRITE, cwd=service.folder())
        assert result.returncode == 137
        assert b"the profile allows 32 MiB" in result.stderr
        assert time.monotonic() - began < DEADLINE_S * PATIENCE
    finally:
        with contextlib.suppress(ProcessLookupError):  # a hand that is late is killed, stopped or not
            os.kill(hand, signal.SIGCONT)
