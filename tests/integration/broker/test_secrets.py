"""The owner's secrets in a real service: in no file or log in the clear, never lent without the approval they need."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.broker.test_asking import Agent
from tests.service import Service

VALUE = "s3cr3t-value-of-the-tests"


@pytest.fixture
def agent(service: Service, workspace: Path) -> Iterator[Agent]:
    one = Agent(service, workspace)
    yield one
    service.run("kill", one.session)


def listed(service: Service) -> dict[str, Any]:
    return {one["name"]: one for one in service.json("secret", "list")}


def test_what_was_set_is_listed_without_its_value_and_stands_in_no_file(service: Service) -> None:
    assert service.run("secret", "set", "db", input=f"{VALUE}\n".encode()).returncode == 0
    assert service.run("secret", "set", "api", "--host", "api.example.com", input=VALUE.encode()).returncode == 0
    found = listed(service)
    assert VALUE not in json.dumps(found)
    assert (found["db"]["level"], found["db"]["used_ns"], found["api"]["hosts"]) == (
        "confidential",
        0,
        ["api.example.com"],
    )
    files = [one for one in Path(service.base).rglob("*") if one.is_file() and not one.is_symlink()]
    assert {"secrets.db", "daemon.log", "machine.key"} <= {one.name for one in files}
    assert [one for one in files if VALUE.encode() in one.read_bytes()] == []
    for name in ("secrets.db", "keys/machine.key"):
        assert stat.S_IMODE(Path(f"{service.state}/{name}").stat().st_mode) == 0o600
    assert service.run("secret", "rm", "db").returncode == 0
    assert "db" not in listed(service)
    assert service.run("secret", "rm", "db").returncode == 125


def test_one_is_not_lent_by_a_vote_that_proves_too_little(service: Service, agent: Agent) -> None:
    service.run("secret", "set", "db", input=VALUE.encode())
    service.run("secret", "set", "prod/db", input=VALUE.encode())
    asked = {name: agent.ask("secret:use", name) for name in ("db", "prod/db")}
    shown = {one["id"]: one for one in service.json("requests")}
    assert [shown[asked[name]]["risk"] for name in asked] == ["medium", "critical"]
    lines = [f"{line['label']} {line['text']}" for line in shown[asked["db"]]["card"]]
    assert any(line.startswith("exactly version ") for line in lines)
    for request in asked.values():
        assert service.run("approve", request).returncode != 0
        assert VALUE not in agent.run(f"deskwarden-agent use {request} | cat")[1]
    assert service.json("grants") == []


def test_one_that_is_not_there_is_refused_with_what_its_owner_does(agent: Agent) -> None:
    code, text = agent.run("deskwarden-agent request secret:use none --reason x --wait")
    assert code != 0
    assert "deskwarden secret set none" in text


def test_a_command_that_gives_nothing_is_never_kept(service: Service) -> None:
    assert service.run("secret", "set", "vault", "--from-command", "exit 3").returncode == 126
    assert "vault" not in listed(service)
    assert service.run("secret", "set", "vault", "--from-command", f"echo {VALUE}").returncode == 0
    assert listed(service)["vault"]["source"] == "command"
