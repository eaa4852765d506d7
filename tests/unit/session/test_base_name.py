"""The name of a base tells any two apart that would show something else."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from supervisor.sandbox.operations import Bind, MakeRoot, Pivot
from supervisor.sandbox.plan import Command, Plan
from supervisor.session.launch import base_name

PLAN = Plan(
    base=(MakeRoot(), Bind(0, "/etc/resolv.conf", "/etc/resolv.conf"), Pivot()),
    operations=(),
    agent_uid=1,
    agent_gid=1,
    inner_userns=False,
    seccomp=b"",
    landlock=(),
    command=Command(("true",), {}, "/"),
    cgroup_limits={},
)


def _name(plan: Plan, path: Path) -> str:
    fd = os.open(path, os.O_PATH)
    try:
        return base_name(plan, {0: fd})
    finally:
        os.close(fd)


def test_the_same_file_opened_again_gives_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("one")
    before = _name(PLAN, path)
    path.write_text("two")  # in place: a bind shows it
    assert _name(PLAN, path) == before
    assert _name(replace(PLAN, agent_uid=2, seccomp=b"x"), path) == before


def test_a_file_that_was_replaced_gives_another_name(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("one")
    with path.open() as held:  # as a mount of it would: its inode number stays taken
        before = _name(PLAN, path)
        (tmp_path / "new").write_text("two")
        (tmp_path / "new").rename(path)
        assert _name(PLAN, path) != before
        assert held.read() == "one"


def test_another_step_gives_another_name(tmp_path: Path) -> None:
    other = replace(PLAN, base=(MakeRoot(), Bind(0, "/etc/hosts", "/etc/resolv.conf"), Pivot()))
    writable = replace(PLAN, base=(MakeRoot(), replace(PLAN.base[1], read_only=False), Pivot()))  # type: ignore[arg-type]
    assert len({_name(plan, tmp_path) for plan in (PLAN, other, writable)}) == 3
