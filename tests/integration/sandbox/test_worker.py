"""A worker of the launcher has its program, its socket and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from supervisor.sandbox.confine import AGENT_UID_FIRST, AGENT_UID_LAST
from tests.integration.sandbox.live import DriverError, Live, live

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def driver() -> Iterator[Live]:
    with live() as one:
        yield one


def test_a_worker_can_reach_nothing_but_its_socket(driver: Live) -> None:
    answer = driver.ask("worker", program="probe", uid=AGENT_UID_LAST)
    said = answer["said"]
    # Rootless the worker is its caller, whom it sees as 0; it has no capability over him.
    assert set(said["ids"]) == {AGENT_UID_LAST if os.geteuid() == 0 else 0}, said
    if os.geteuid() == 0:
        assert said["groups"] == []
    assert set(said["capabilities"]) == {0}
    assert (said["no_new_privs"], said["dumpable"]) == (1, 0)
    assert said["files"] == []
    assert said["write"] == "EROFS"
    assert said["connect"] == "ENETUNREACH"
    assert said["interfaces"] == ["lo"]
    assert said["descriptors"][:3] == [0, 1, 2]
    assert len(said["descriptors"]) <= 5  # and its socket for errors, and the launcher's lifeline
    assert said["library"] == [1, 2]  # third-party code was found before the files went
    assert answer["name"] == "deskwarden-prob"  # 15 bytes
    assert answer["status"] == 0


@pytest.mark.parametrize("program", ["policy", "os", "../probe", "supervisor.policy.worker", ""])
def test_a_worker_that_is_not_in_the_table_is_refused(driver: Live, program: str) -> None:
    with pytest.raises(DriverError, match="RefusedError: launcher: no worker"):
        driver.ask("worker", program=program, uid=AGENT_UID_FIRST)


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root does a worker get another uid")
@pytest.mark.parametrize("uid", [0, 1000, AGENT_UID_FIRST - 1, AGENT_UID_LAST + 1, "0", None, True, -1])
def test_a_worker_never_has_the_uid_of_somebody(driver: Live, uid: object) -> None:
    with pytest.raises(DriverError, match="want one of the agents' pool"):
        driver.ask("worker", program="probe", uid=uid)
