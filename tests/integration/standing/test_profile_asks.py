"""A profile that carries a manifest: the owner is asked once, before the agent starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service

PROFILE = """\
name: {name}
description: For a test.
extends: strict
asks:
  capabilities:
    reports:
      kind: file
      selector: ~/reports-of-a-test/**
      ops: [read]
      justification: It sums up the reports.
"""


@pytest.fixture
def profile(service: Service) -> Iterator[str]:
    directory = Path(service.home) / ".config/deskwarden/profiles.d"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "asking-of-a-test.yaml"
    path.write_text(PROFILE.format(name=path.stem), encoding="utf-8")
    path.chmod(0o600)
    yield path.stem
    path.unlink()


def test_a_yes_is_asked_for_once_in_each_folder(service: Service, profile: str, workspace: Path) -> None:
    words = ("run", "-p", profile, "--", "deskwarden-agent", "have")
    alone = service.run(*words, cwd=workspace)
    assert b"nobody agreed" in alone.stderr
    assert b"reports-of-a-test" not in alone.stdout
    terminal = service.pty_run(*words, cwd=workspace)
    asked = terminal.wait_for(b"agree? [y/N] ", 60)
    assert b"reports-of-a-test" in asked
    assert b"It sums up the reports." in asked
    terminal.send(b"y\r")
    assert terminal.wait_exit(60) == 0
    declared = service.run(*words, cwd=workspace)
    assert b"nobody agreed" not in declared.stderr
    assert b"reports-of-a-test" in declared.stdout
    elsewhere = service.run(*words, cwd=service.folder())
    assert b"nobody agreed" in elsewhere.stderr


def test_a_no_runs_it_with_nothing_declared(service: Service, profile: str, workspace: Path) -> None:
    terminal = service.pty_run("run", "-p", profile, "--", "deskwarden-agent", "have", cwd=workspace)
    terminal.wait_for(b"agree? [y/N] ", 60)
    terminal.send(b"\r")
    assert terminal.wait_exit(60) == 0
    assert b"reports-of-a-test" not in terminal.output
