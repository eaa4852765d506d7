"""A service decides by what root has put into the managed directory, and says so."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

import pytest

from supervisor.policy.bundle_source import default_directory, read_bundle
from supervisor.policy.role import parse_roles
from tests.service import Service, wait_until

NO_FILES = """
deny contains {
	"rule": "no-files", "code": "no-files",
	"text": "no agent reads files today",
	"next": "wait until tomorrow",
} if input.request.kind == "file"
"""


@pytest.fixture
def own() -> Iterator[Service]:
    service = Service(daemon=False)
    service.environment["DESKWARDEN_SYSTEM_CONFIG_DIR"] = f"{service.base}/etc"
    service.start()
    yield service
    service.close()


def test_status_names_the_policy_and_follows_the_managed_one_of_root(own: Service) -> None:
    packaged = own.status()["policy"]
    assert packaged["source"] == "packaged"
    assert packaged["revision"] == read_bundle(default_directory()).revision
    if not own.is_system:  # a daemon of the caller's reads what really is the machine's
        return
    directory = f"{own.base}/etc/policies/managed/policy"
    os.makedirs(f"{own.base}/etc/policies/managed")
    shutil.copytree(default_directory(), f"{directory}.new", ignore=shutil.ignore_patterns("*test*", "matrix*"))
    with open(f"{directory}.new/data.json", encoding="utf-8") as file:
        data = json.load(file)
    data["config"]["max_denied"] = 3
    with open(f"{directory}.new/data.json", "w", encoding="utf-8") as file:
        json.dump(data, file)
    os.rename(f"{directory}.new", directory)
    wait_until("the managed policy decides", lambda: own.status()["policy"]["source"] == directory, 60)
    os.chmod(f"{directory}/data.json", 0o666)
    os.utime(f"{directory}/data.json")
    wait_until("what others may write is told", lambda: "others may write" in own.status()["policy"]["problem"], 60)
    assert own.status()["policy"]["revision"] not in ("", packaged["revision"])
    shown = own.run("status").stdout.decode()
    assert "not used: " in shown
    assert own.json("policy", "replay", "--since", "1d")["decisions"] == 0


def test_a_policy_that_denies_what_was_given_takes_it_back_and_replay_tells_it_beforehand(own: Service) -> None:
    if not own.is_system:  # only root has a managed policy
        return
    folder = own.folder("quarter")
    (folder / "q1.csv").write_text("results\n")
    session = own.start_session("--", "sleep", "600", cwd=own.folder())
    ask = f"deskwarden-agent request file:read {folder}/q1.csv --reason 'to sum it up' --for 600s --json"
    own.run("exec", session, "--", "sh", "-c", ask)
    (waiting,) = own.json("requests")
    assert own.run("approve", waiting["id"]).returncode == 0
    assert own.run("exec", session, "--", "cat", f"{folder}/q1.csv").stdout == b"results\n"
    assert own.json("policy", "replay", "--since", "1d")["changes"] == []
    staged = f"{own.base}/etc/policies/managed/new"
    shutil.copytree(default_directory(), staged, ignore=shutil.ignore_patterns("*test*", "matrix*"))
    with open(f"{staged}/deny.rego", "a", encoding="utf-8") as file:
        file.write(NO_FILES)
    (change,) = own.json("policy", "replay", "--since", "1d", staged)["changes"]
    assert change["request"] == waiting["id"]
    assert change["old"].startswith("escalate")
    assert change["new"].split()[:2] == ["deny", "no-files"]
    os.rename(staged, f"{own.base}/etc/policies/managed/policy")
    wait_until("it is taken back", lambda: own.json("grants") == [], 60)
    assert own.run("exec", session, "--", "cat", f"{folder}/q1.csv").returncode != 0
    story = own.json("why", waiting["id"])
    assert story[-1]["body"]["why"] == "policy changed: no agent reads files today"
    assert own.run("kill", session).returncode == 0


def test_recert_lists_the_roles_of_the_policy_and_says_what_to_edit_instead_of_renewing_one(own: Service) -> None:
    items = own.json("recert")
    shipped = parse_roles(read_bundle(default_directory()).roles).bindings
    roles = {role.binding: role.review_date.isoformat() for role in shipped}
    assert {item["id"]: item["due"] for item in items if item["kind"] == "role"} == roles
    assert all(item["kind"] == "role" for item in items)
    for name in list(roles)[:1]:
        refused = own.run("recert", "renew", name, "--reason", "still needed")
        assert refused.returncode == 126
        assert b"edit review_date" in refused.stderr
    assert b"no rule" in own.run("recert", "renew", "u123", "--reason", "still needed").stderr
    assert own.run("recert", "renew").returncode == 125
