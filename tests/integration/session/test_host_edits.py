"""What the owner edits while an agent runs: what the agent sees, what the review says, what apply leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

from tests.service import Service


def _cat(service: Service, session: str, name: str) -> str:
    result = service.run("exec", session, "--", "cat", name)
    return result.stdout.decode() if result.returncode == 0 else "-"


def test_an_edit_in_place_and_a_new_file_show_inside(service: Service, workspace: Path) -> None:
    (workspace / "a.txt").write_text("old\n")
    session = service.start_session("--", "sleep", "60", cwd=workspace)
    assert _cat(service, session, "a.txt") == "old\n"
    with open(workspace / "a.txt", "r+") as file:
        file.write("new")
    (workspace / "fresh.txt").write_text("fresh\n")
    assert _cat(service, session, "a.txt") == "new\n"
    assert _cat(service, session, "fresh.txt") == "fresh\n"
    assert service.changes(session) == {}
    service.run("kill", session)


def test_a_file_that_the_agent_changed_no_longer_follows_the_host_and_is_a_conflict(
    service: Service, workspace: Path
) -> None:
    (workspace / "a.txt").write_text("old\n")
    session = service.start_session("--", "sleep", "60", cwd=workspace)
    assert service.run("exec", session, "--", "sh", "-c", "echo agent > a.txt").returncode == 0
    (workspace / "a.txt").write_text("owner\n")
    assert _cat(service, session, "a.txt") == "agent\n"
    assert service.changes(session)["a.txt"]["conflict"]
    result = service.run("apply", session, cwd=workspace)
    assert result.returncode == 1
    assert b"changed on your disk meanwhile" in result.stdout
    assert (workspace / "a.txt").read_text() == "owner\n"
    service.run("kill", session)


def test_an_editors_replacement_is_a_conflict_too(service: Service, workspace: Path) -> None:
    (workspace / "a.txt").write_text("old\n")
    session = service.start_session("--", "sleep", "60", cwd=workspace)
    assert service.run("exec", session, "--", "sh", "-c", "echo agent > a.txt").returncode == 0
    (workspace / ".a.txt.swp").write_text("owner\n")
    os.replace(workspace / ".a.txt.swp", workspace / "a.txt")
    assert service.changes(session)["a.txt"]["conflict"]
    service.run("apply", session, cwd=workspace)
    assert (workspace / "a.txt").read_text() == "owner\n"
    service.run("kill", session)


def test_a_conflict_does_not_hold_up_the_rest(service: Service, workspace: Path) -> None:
    (workspace / "a.txt").write_text("old\n")
    (workspace / "b.txt").write_text("old\n")
    session = service.start_session("--", "sleep", "60", cwd=workspace)
    service.run("exec", session, "--", "sh", "-c", "echo agent > a.txt; echo agent > b.txt")
    (workspace / "a.txt").write_text("owner\n")
    assert service.run("apply", session, cwd=workspace).returncode == 1
    assert (workspace / "a.txt").read_text() == "owner\n"
    assert (workspace / "b.txt").read_text() == "agent\n"
    service.run("kill", session)


def test_apply_works_again_and_again_while_the_agent_runs(service: Service, workspace: Path) -> None:
    session = service.start_session("--", "sleep", "60", cwd=workspace)
    for text in ("one", "two", "three"):
        service.run("exec", session, "--", "sh", "-c", f"echo {text} > a.txt")
        assert service.run("apply", session, cwd=workspace).returncode == 0
        assert (workspace / "a.txt").read_text() == f"{text}\n"
    assert service.changes(session) == {}
    service.run("kill", session)


def test_two_sessions_on_one_workspace_do_not_see_each_other(service: Service, workspace: Path) -> None:
    (workspace / "a.txt").write_text("old\n")
    first = service.start_session("--", "sleep", "60", cwd=workspace)
    second = service.start_session("--", "sleep", "60", cwd=workspace)
    service.run("exec", first, "--", "sh", "-c", "echo first > a.txt")
    service.run("exec", second, "--", "sh", "-c", "echo second > a.txt")
    assert _cat(service, first, "a.txt") == "first\n"
    assert service.run("apply", first, cwd=workspace).returncode == 0
    assert service.run("apply", second, cwd=workspace).returncode == 1  # the first one's apply is a change on the disk
    assert (workspace / "a.txt").read_text() == "first\n"
    service.run("kill", first, second)
