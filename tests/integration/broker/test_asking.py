"""An agent asks while it runs, people answer, and what was given is there, bound, and gone again."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.broker import journal
from tests.service import DEADLINE_S, Service, wait_until

CARD = "pay with 4111 1111 1111 1111\n"


@pytest.fixture
def data(service: Service) -> Path:
    """A folder of the owner's that no sandbox shows."""
    folder = service.folder("quarter")
    for number in (1, 2, 3):
        (folder / f"q{number}.csv").write_text(f"results of quarter {number}\n")
    (folder / "notes.txt").write_text("not asked for\n")
    return folder


class Agent:
    """A session whose commands are typed from outside, one at a time."""

    def __init__(self, service: Service, workspace: Path) -> None:
        self.service = service
        self.session = service.start_session("--", "sleep", "600", cwd=workspace)

    def run(self, script: str) -> tuple[int, str]:
        """Run a shell script inside; returns its exit code and what it printed."""
        result = self.service.run("exec", self.session, "--", "sh", "-c", script)
        return result.returncode, (result.stdout + result.stderr).decode()

    def ask(self, what: str, target: str, lasts: str = "60s") -> str:
        """Ask, without waiting; returns the request's id."""
        words = f"deskwarden-agent request {what} '{target}' --reason 'to sum it up' --for {lasts} --json"
        _code, text = self.run(words)
        return str(json.loads(text)["id"])

    def have(self) -> list[Any]:
        """Return what it holds, in its own view."""
        _code, text = self.run("deskwarden-agent have --json")
        return list(json.loads(text)["grants"])


@pytest.fixture
def agent(service: Service, workspace: Path) -> Iterator[Agent]:
    one = Agent(service, workspace)
    yield one
    service.run("kill", one.session)


def waiting(service: Service) -> list[Any]:
    return list(service.json("requests"))


def test_what_the_owner_approves_is_there_read_only_until_its_time_is_over(
    service: Service, agent: Agent, data: Path
) -> None:
    path = f"{data}/q1.csv"
    assert agent.run(f"cat {path}")[0] == 1
    request = agent.ask("file:read", path, "20s")
    (shown,) = waiting(service)
    assert (shown["id"], shown["state"]) == (request, "waiting")
    assert service.run("approve", request).returncode == 0
    assert agent.run(f"cat {path}") == (0, "results of quarter 1\n")
    assert agent.run(f"echo no >> {path}")[0] != 0
    assert agent.run(f"ls {data}")[1].split() == ["q1.csv"]
    wait_until("its time is over", lambda: service.json("grants") == [], 40)
    assert agent.run(f"cat {path}")[0] == 1
    assert Path(path).read_text() == "results of quarter 1\n"


def test_a_denial_says_why_and_what_to_do_next(service: Service, agent: Agent, data: Path) -> None:
    request = agent.ask("file:read", f"{data}/q1.csv")
    assert service.run("deny", request, "--reason", "after the audit").returncode == 0
    code, text = agent.run("deskwarden-agent why --json")
    answer = json.loads(text)
    assert (code, answer["id"], answer["phase"]) == (0, request, "denied")
    assert answer["reasons"][0]["text"] == "after the audit"
    assert answer["next_steps"]
    code, text = agent.run(f"deskwarden-agent request file:read {data}/q1.csv --reason again")
    assert code == 126
    assert "asking again is open in" in text


def test_a_pattern_is_exactly_its_matches(service: Service, agent: Agent, data: Path) -> None:
    request = agent.ask("file:read", f"{data}/*.csv")
    assert service.run("approve", request).returncode == 0
    (data / "q4.csv").write_text("came later\n")
    assert agent.run(f"cd {data} && ls")[1].split() == ["q1.csv", "q2.csv", "q3.csv"]


def test_a_folder_is_shown_as_a_tree(service: Service, agent: Agent, data: Path) -> None:
    request = agent.ask("file:read", str(data))
    assert service.run("approve", request).returncode == 0
    assert agent.run(f"cat {data}/notes.txt") == (0, "not asked for\n")
    assert agent.run(f"touch {data}/new")[0] != 0


def test_card_numbers_are_found_and_one_person_is_not_enough(service: Service, agent: Agent, data: Path) -> None:
    (data / "cards.csv").write_text(CARD)
    request = agent.ask("file:read", f"{data}/cards.csv")
    (shown,) = waiting(service)
    words = {line["label"]: line["text"] for line in shown["card"]}
    assert "payment-card" in words["data"]
    assert "4111" not in json.dumps(shown)
    assert service.run("approve", request).returncode == 126
    assert agent.have() == []


@pytest.mark.parametrize("name", [".ssh/id_rsa", ".aws/credentials", "vault.kdbx"])
def test_stores_of_keys_are_denied_whoever_asks(service: Service, agent: Agent, data: Path, name: str) -> None:
    secret = data / name
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("key\n")
    code, text = agent.run(f"deskwarden-agent request file:read {secret} --reason 'to log in' --wait --json")
    answer = json.loads(text)
    assert (code, answer["phase"]) == (126, "denied")
    assert answer["reasons"][0]["code"] == "credential-store"
    assert answer["next_steps"]
    assert waiting(service) == []


def test_deskwardens_own_state_is_never_granted(service: Service, agent: Agent) -> None:
    for place in (service.state, service.runtime, service.base):
        code, text = agent.run(f"deskwarden-agent request file:read {place} --reason look --wait")
        assert code == 126, text


def test_revoking_takes_open_files_and_mappings_too(service: Service, agent: Agent, data: Path) -> None:
    request = agent.ask("file:read", f"{data}/*.csv", "300s")
    assert service.run("approve", request).returncode == 0
    holder = (
        "import mmap, time\n"
        f"file = open('{data}/q1.csv', 'rb')\n"
        "view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "print(view[:7].decode(), flush=True)\n"
        "time.sleep(300)\n"
    )
    running = service.spawn("exec", agent.session, "--", "python3", "-c", holder)
    assert running.stdout is not None
    assert running.stdout.readline() == b"results\n"
    (grant,) = service.json("grants")
    assert service.run("revoke", grant["id"]).returncode == 0
    assert running.wait(DEADLINE_S) == 137
    assert agent.run(f"ls {data}")[0] == 2
    story = service.json("why", request)
    assert story[-1]["body"]["state"] == "revoked"
    assert story[-1]["body"]["ended"] in ("holders killed", "session killed")


def test_an_agent_gives_back_what_it_no_longer_needs(service: Service, agent: Agent, data: Path) -> None:
    request = agent.ask("file:read", f"{data}/q1.csv")
    assert service.run("approve", request).returncode == 0
    (held,) = agent.have()
    assert agent.run(f"deskwarden-agent release {held['id']}")[0] == 0
    assert agent.run(f"cat {data}/q1.csv")[0] == 1
    assert service.json("grants") == []


def test_a_file_replaced_between_question_and_answer_is_not_given(service: Service, agent: Agent, data: Path) -> None:
    request = agent.ask("file:read", f"{data}/q1.csv")
    (data / "other").write_text("swapped\n")
    (data / "other").rename(data / "q1.csv")
    assert service.run("approve", request).returncode == 0
    assert agent.run(f"cat {data}/q1.csv")[0] == 1
    (last,) = [entry for entry in service.json("why", request) if entry["kind"] == "vote"]
    assert last["body"]["answer"] == "once"
    assert service.json("grants") == []


def test_the_end_of_a_session_leaves_no_copy_behind(service: Service, workspace: Path, data: Path) -> None:
    agent = Agent(service, workspace)
    request = agent.ask("file:read", f"{data}/*.csv", "300s")
    assert service.run("approve", request).returncode == 0
    assert list(Path(service.state).glob("stores/*/grants/*"))
    assert service.run("kill", agent.session).returncode == 0
    wait_until("the copy is gone", lambda: not list(Path(service.state).glob("stores/*/grants/*")), 10)


def test_a_session_cannot_touch_what_another_has(service: Service, agent: Agent, data: Path) -> None:
    request = agent.ask("file:read", f"{data}/q1.csv")
    assert service.run("approve", request).returncode == 0
    (grant,) = service.json("grants")
    other = Agent(service, service.folder())
    code, text = other.run(f"deskwarden-agent release {grant['id']}")
    assert code != 0
    assert "no grant" in text
    assert other.run(f"cat {data}/q1.csv")[0] == 1
    assert agent.run(f"cat {data}/q1.csv")[0] == 0
    service.run("kill", other.session)


def test_the_approval_verbs_answer_no_process_inside(service: Service, agent: Agent, data: Path) -> None:
    request = agent.ask("file:read", f"{data}/q1.csv")
    code, _text = agent.run(f"{service.environment['PATH'].split(':')[0]}/deskwarden approve {request}")
    assert code != 0
    assert agent.run("ls /run/deskwarden")[1].split() == ["agent.sock", "client"]
    assert [one["state"] for one in waiting(service)] == ["waiting"]


def test_always_is_a_rule_that_is_shown_and_taken_back(service: Service, workspace: Path, data: Path) -> None:
    agent = Agent(service, workspace)
    request = agent.ask("file:read", f"{data}/q1.csv", "10s")
    done = service.run("approve", request, "--always")
    assert done.returncode == 0
    assert b"undo: deskwarden rules rm" in done.stdout
    (rule,) = service.json("rules")
    service.run("kill", agent.session)
    agent = Agent(service, workspace)
    assert agent.run(f"deskwarden-agent request file:read {data}/q1.csv --reason x --for 10s --wait")[0] == 0
    assert service.run("rules", "rm", rule["id"]).returncode == 0
    service.run("kill", agent.session)
    agent = Agent(service, workspace)
    agent.ask("file:read", f"{data}/q1.csv")
    assert len(waiting(service)) == 1
    service.run("kill", agent.session)


def test_the_journal_is_one_chain_and_holds_no_content(service: Service, agent: Agent, data: Path) -> None:
    (data / "cards.csv").write_text(CARD)
    agent.ask("file:read", f"{data}/cards.csv")
    time.sleep(0.2)
    raw = Path(f"{service.state}/broker.db").read_bytes() + Path(f"{service.state}/broker.db-wal").read_bytes()
    assert b"4111 1111" not in raw
    service.run("kill", agent.session)
    service.stop()
    try:
        with contextlib.closing(sqlite3.connect(f"{service.state}/broker.db")) as db:
            assert journal.verify(db) > 0
            assert {row[0] for row in db.execute("SELECT state FROM request")}.isdisjoint({"waiting", "active"})
    finally:
        service.start()
