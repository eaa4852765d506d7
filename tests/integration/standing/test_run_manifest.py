"""`deskwarden run --manifest`: who signed it, which number it has, and what stands behind the agent then."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service
from tests.signed_manifest import Signer, digest, document, sha256

HAVE = ("deskwarden-agent", "have")


@pytest.fixture
def signer(service: Service) -> Iterator[Signer]:
    """Keys of the test's own; what the owner trusts is taken back."""
    keys = Path(service.home) / ".config/deskwarden/keys"
    before = set(keys.glob("*.json"))
    yield Signer(service, service.folder("keys"))
    for path in set(keys.glob("*.json")) - before:
        path.unlink()


def _refused(service: Service, workspace: Path, envelope: str, *command: str) -> str:
    """Run with a manifest that must be refused before anything starts; returns the reason."""
    before = len(service.json("ps", "--all"))
    result = service.run("run", "--json", "--manifest", envelope, "--", *(command or ("true",)), cwd=workspace)
    assert result.returncode == 126, result
    value = json.loads(result.stdout)
    assert value["exit_code"] == 126
    assert len(service.json("ps", "--all")) == before
    return str(value["error"]["message"])


def test_a_dry_run_shows_what_stands_behind_it(service: Service, signer: Signer, workspace: Path) -> None:
    envelope = signer.sign(("publisher", "owner"), name="dry-sheet", roles=["agent-viewer"])
    signer.trust("owner")
    signer.trust("publisher")
    plan = service.run("run", "-n", "--json", "--manifest", envelope, "--", "true", cwd=workspace)
    lines = json.loads(plan.stdout)
    known = digest(name="dry-sheet", roles=["agent-viewer"])
    assert lines[0] == f"agent: dry-sheet 1.0.0, user-owned, signed by publisher, owner, {known}"
    assert "roles: agent-viewer" in lines


def test_attack_unknown_key_changed_payload_and_a_step_back(service: Service, signer: Signer, workspace: Path) -> None:
    first = signer.sign()
    assert "none of the 0 known keys" in _refused(service, workspace, first)
    signer.trust("owner")
    value = json.loads(Path(first).read_bytes())
    changed = document(purpose="Sends the quarter's reports away.")
    value["payload"] = base64.b64encode(json.dumps(changed).encode()).decode()
    (signer.folder / "changed.dsse.json").write_text(json.dumps(value), encoding="utf-8")
    assert "not over these bytes" in _refused(service, workspace, str(signer.folder / "changed.dsse.json"))
    second = signer.sign(seq=2, prev_digest=digest())
    for envelope in (first, second):
        assert service.run("run", "--manifest", envelope, "--", "true", cwd=workspace).returncode == 0
    assert "a step back" in _refused(service, workspace, first)
    fork = signer.sign(seq=2, prev_digest=digest(), purpose="Another one with the same number.")
    assert "another manifest with number 2" in _refused(service, workspace, fork)
    assert "want 3" in _refused(service, workspace, signer.sign(seq=4, prev_digest=digest()))


def test_attack_a_system_or_service_agent_by_its_own_word(service: Service, signer: Signer, workspace: Path) -> None:
    system = signer.sign(("publisher", "owner"), name="claims", class_claim="system")
    signer.trust("owner")
    signer.trust("publisher")
    assert "claims to be a system agent" in _refused(service, workspace, system)
    own = signer.sign(("publisher",), name="claims", class_claim="service")
    assert "none that this machine knows" in _refused(service, workspace, own)


def _program(folder: Path, says: str, name: str = "tool") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {says}\nsleep ${{1:-0}}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_only_the_program_with_the_named_content_is_run(service: Service, signer: Signer, workspace: Path) -> None:
    tool = _program(workspace, "genuine")
    binaries = [{"path": os.path.realpath(tool), "sha256": sha256(tool)}]
    envelope = signer.sign(name="tool-agent", binaries=binaries)
    signer.trust("owner")
    result = service.run("run", "--manifest", envelope, "--", "./tool", cwd=workspace)
    assert result.stdout == b"genuine\n", result
    assert "does not name this program" in _refused(service, workspace, envelope, "sh", "-c", "echo other")
    link = workspace / "link"
    link.symlink_to(tool)
    assert service.run("run", "--manifest", envelope, "--", "./link", cwd=workspace).stdout == b"genuine\n"
    other = _program(workspace, "evil", "other")
    link.unlink()
    link.symlink_to(other)
    assert "does not name this program" in _refused(service, workspace, envelope, "./link")
    shutil.copy(other, tool)
    assert "the manifest names" in _refused(service, workspace, envelope, "./tool")
    tool.unlink()
    tool.symlink_to(other)
    assert "does not name this program" in _refused(service, workspace, envelope, "./tool")


def test_attack_a_program_swapped_after_it_was_verified_changes_nothing(
    service: Service, signer: Signer, workspace: Path
) -> None:
    tool = _program(workspace, "genuine")
    envelope = signer.sign(name="swap-agent", binaries=[{"path": os.path.realpath(tool), "sha256": sha256(tool)}])
    signer.trust("owner")
    session = service.start_session("--manifest", envelope, "--", "./tool", "120", cwd=workspace)
    with tool.open("r+b") as file:  # in place: an overlay's lower shows that
        file.write(b"#!/bin/sh\necho evil   \n")
    shown = service.run("exec", session, "--", "cat", str(tool))
    again = service.run("exec", session, "--", str(tool))
    written = service.run("exec", session, "--", "sh", "-c", f"echo evil >> {tool}")
    service.run("kill", session)
    assert b"genuine" in shown.stdout, shown
    assert again.stdout == b"genuine\n", again
    assert written.returncode != 0
    assert not list(Path(service.state).glob("**/programs/*"))
