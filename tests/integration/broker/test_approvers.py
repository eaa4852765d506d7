"""Protected data is given by people whom root named, by their keys, and by the agent's owner for themselves only."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.identity.keys import SigningKey, new_key, write_private
from tests.service import DEADLINE_S, Service, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a file that root wrote is made by root")

KEYS = {name: new_key() for name in ("ann", "bea", "olaf", "eve")}


def person(name: str, team: str, role: str, *uids: int) -> dict[str, object]:
    keys = [KEYS[name].public.pem]
    return {"human": name, "teams": {team: role}, "uids": list(uids), "keys": keys, "review_by": "2099-01-01"}


def write(path: Path, *people: dict[str, object]) -> None:
    text = json.dumps({"schema": "deskwarden.approvers/1", "people": list(people)})
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(path)


@pytest.fixture
def managed() -> Iterator[tuple[Service, Path]]:
    service = Service(daemon=False)
    folder = Path(service.base) / "etc/policies/managed"
    folder.mkdir(parents=True)
    service.environment["DESKWARDEN_SYSTEM_CONFIG_DIR"] = f"{service.base}/etc"
    write(
        folder / "approvers.json",
        person("ann", "finance", "lead"),
        person("bea", "security", ""),
        person("olaf", "finance", "lead", 0),
    )
    try:
        service.start()
        yield service, folder / "approvers.json"
    finally:
        service.close()


def key_file(service: Service, name: str) -> str:
    path = f"{service.base}/{name}.key"
    if not os.path.exists(path):
        key: SigningKey = KEYS[name]
        write_private(path, key)
    return path


def approve(service: Service, request: str, name: str) -> subprocess.CompletedProcess[bytes]:
    return service.run("approve", request, "--key", key_file(service, name))


def test_a_changed_file_is_followed_and_a_broken_one_is_told(managed: tuple[Service, Path]) -> None:
    service, path = managed
    assert service.status()["approvers"] == {"people": 3, "path": str(path), "problem": ""}
    write(path, person("ann", "finance", "lead"))
    wait_until("one approver", lambda: service.status()["approvers"]["people"] == 1)
    path.chmod(0o666)
    wait_until("the file is refused", lambda: "others may write" in service.status()["approvers"]["problem"])
    assert service.status()["approvers"]["people"] == 1
    assert b"NOT in force" in service.run("status").stdout
    assert "others may write" in service.log()


def test_an_owner_who_leads_finance_speaks_as_owner_only_and_two_other_people_must_sign(
    managed: tuple[Service, Path],
) -> None:
    service, _path = managed
    cards = service.folder() / "cards.txt"
    cards.write_text("Visa 4111 1111 1111 1111\nMaster 5500 0055 5555 5559\n")
    agent = service.spawn(
        *("run", "--", "deskwarden-agent", "request", "file:read", str(cards), "--reason", "sum", "--wait"),
        cwd=service.folder(),
    )
    wait_until("the request waits", lambda: service.json("requests"), DEADLINE_S)
    request = service.json("requests")[0]
    assert set(request["waits_for"]) == {"owner", "finance lead", "security or compliance"}, request
    assert service.run("approve", request["id"]).returncode == 126  # the account alone proves too little
    assert approve(service, request["id"], "eve").returncode == 126
    assert b"counted" in approve(service, request["id"], "olaf").stdout
    assert set(service.json("requests")[0]["waits_for"]) == {"finance lead", "security or compliance"}
    assert approve(service, request["id"], "olaf").returncode == 125
    assert b"counted" in approve(service, request["id"], "bea").stdout
    assert service.json("requests")[0]["waits_for"] == ["finance lead"]
    last = approve(service, request["id"], "ann")
    assert b"granted" in last.stdout, last
    votes = [entry["body"] for entry in service.json("why", request["id"]) if entry["kind"] == "vote"]
    assert [(vote["human"], vote["assurance"], vote["method"]) for vote in votes] == [
        ("olaf", "A1", "signed"),
        ("bea", "A3", "signed"),
        ("ann", "A3", "signed"),
    ]
    assert agent.wait(DEADLINE_S) == 0
