"""The plan is a pure function: the same values give the same operations, in an order that is safe to execute."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from supervisor.errors import RefusedError
from supervisor.sandbox import plan as planning
from supervisor.sandbox import profile_source
from supervisor.sandbox.confine import check_base, check_builds_on_base, check_plan
from supervisor.sandbox.operations import (
    Bind,
    MountFs,
    Overlay,
    Pivot,
    ProtectTree,
    Seal,
    Stub,
    Sysctl,
    from_json,
    to_json,
)
from supervisor.sandbox.plan import Command, Owner, Plan, Source, Stage, Surroundings, Terms

HOME = "/home/o"
WORK = "/home/o/project"
OWNER = Owner(1000, 1000, "o", HOME)
SYSTEM = Surroundings(
    rootless=False,
    agent_uid=1_900_000_000,
    agent_gid=1_900_000_000,
    idmap=9,
    cgroup=True,
    controllers=(),
    memfd_noexec=2,
)
ROOTLESS = replace(SYSTEM, rootless=True, agent_uid=1000, agent_gid=1000, idmap=None, cgroup=False)
SOURCES = (
    Source("/dev/null", "device", "device", 0),
    Source("/usr", "directory", "system", 1),
    Source("/bin", "symlink", "system", -1, "usr/bin"),
    Source("/etc/ld.so.cache", "file", "etc", 2),
    Source(f"{HOME}/.pyenv", "directory", "home", 3),
    Source(WORK, "directory", "workspace", 4),
    Source(f"{WORK}/lib/deep", "directory", "read", 5),
    Source("", "directory", "empty", 6),
)
COMMAND = Command(("true",), {"PATH": "/usr/bin"}, WORK, (0, 1, 2))


def _plan(
    surroundings: Surroundings = SYSTEM,
    sources: tuple[Source, ...] = SOURCES,
    mode: str = "staged",
    stages: tuple[Stage, ...] = (Stage(WORK, 7),),
) -> Plan:
    profile = profile_source.load_profile("coding")
    return planning.build(Terms(profile, b"\0" * 8, "abc", mode), OWNER, surroundings, sources, stages, COMMAND)


def _overlay(plan: Plan, path: str) -> Overlay:
    return next(item for item in plan.operations if isinstance(item, Overlay) and item.path == path)


def test_the_same_values_give_the_same_plan() -> None:
    assert _plan() == _plan()


def test_what_the_launcher_reads_is_what_was_planned() -> None:
    plan = _plan()
    every = (*plan.base, *plan.operations)
    assert [from_json(to_json(operation)) for operation in every] == list(every)
    operations, confinement = check_plan(plan.to_json(), range(10), rootless=False)
    assert operations == list(plan.operations)
    check_builds_on_base(operations)
    assert check_base(plan.base_json(), plan.base_indices()) == list(plan.base)
    assert confinement.uid == SYSTEM.agent_uid


def test_a_plan_for_one_mode_is_refused_in_the_other() -> None:
    with pytest.raises(RefusedError, match="mode"):
        check_plan(_plan().to_json(), range(10), rootless=True)
    with pytest.raises(RefusedError, match="mode"):
        check_plan(_plan(ROOTLESS).to_json(), range(10), rootless=False)


def test_the_workspace_is_staged_with_the_options_of_each_mode() -> None:
    system, rootless = _overlay(_plan(), WORK), _overlay(_plan(ROOTLESS), WORK)
    assert system.stage == rootless.stage == 7
    assert system.options["redirect_dir"] == "on"
    assert rootless.options == {"userxattr": ""}
    assert system.idmap == 9
    assert rootless.idmap is None


def test_a_shown_directory_is_an_overlay_without_an_upper_not_a_bind() -> None:
    overlay = _overlay(_plan(), f"{HOME}/.pyenv")
    assert overlay.stage is None
    assert overlay.lower == [3, 6]


def test_direct_mode_binds_the_workspace_writable_and_protected_names_read_only() -> None:
    sources = (
        *SOURCES,
        Source(f"{WORK}/.git", "directory", "pinned", 7),
        Source(f"{WORK}/.git/hooks", "directory", "protected", 8),
    )
    binds = {
        item.path: item
        for item in _plan(mode="direct", sources=sources, stages=()).operations
        if isinstance(item, Bind) and item.path.startswith(WORK)
    }
    assert not binds[WORK].read_only
    assert not binds[f"{WORK}/.git"].read_only
    assert binds[f"{WORK}/.git/hooks"].read_only


def test_a_deeper_mount_comes_after_the_one_it_lies_in() -> None:
    plan = _plan()
    paths = [item.path for item in (*plan.base, *plan.operations) if isinstance(item, Bind | Overlay) and item.path]
    for index, path in enumerate(paths):
        assert not any(path.startswith(later + "/") for later in paths[index + 1 :]), path


def test_ask_stubs_never_cover_the_workspace_or_what_is_shown() -> None:
    work = f"{HOME}/Documents/project"
    sources = tuple(replace(item, path=work) if item.purpose == "workspace" else item for item in SOURCES)
    stubs = [
        item.path for item in _plan(sources=sources, stages=(Stage(work, 7),)).operations if isinstance(item, Stub)
    ]
    assert f"{HOME}/.ssh" in stubs
    assert f"{HOME}/Documents" not in stubs


def test_sysctls_are_written_before_proc_sys_is_read_only_and_the_pivot_ends_the_base() -> None:
    kinds = [type(item) for item in _plan().base]
    assert kinds.index(Sysctl) < kinds.index(ProtectTree) < kinds.index(Pivot)
    assert kinds[-1] is Pivot
    assert type(_plan().operations[-1]) is Seal


def test_the_base_is_the_same_for_every_owner_and_session() -> None:
    profile = profile_source.load_profile("coding")
    other_home = "/home/p"
    sources = [replace(item, path=item.path.replace(HOME, other_home)) for item in SOURCES]
    stages = (Stage(WORK.replace(HOME, other_home), 7),)
    owner, surroundings = Owner(1001, 1001, "p", other_home), replace(SYSTEM, agent_uid=1_900_000_001, idmap=8)
    other = planning.build(
        Terms(profile, b"\0" * 16, "def", "staged"),
        owner,
        surroundings,
        sources,
        stages,
        replace(COMMAND, argv=("id",)),
    )
    assert other.base == _plan().base
    assert other.operations != _plan().operations
    words = json.dumps(other.base_json())
    assert "def" not in words
    assert other_home not in words


def test_a_system_path_in_the_home_is_shown_there_and_is_not_in_the_base() -> None:
    plan = _plan(sources=(*SOURCES, Source(f"{HOME}/sdk", "directory", "system", 8)))
    assert not any(isinstance(item, Bind) and item.path == f"{HOME}/sdk" for item in plan.base)
    places = [item.path for item in plan.operations if isinstance(item, MountFs | Bind)]
    assert places.index(HOME) < places.index(f"{HOME}/sdk")


def test_landlock_lets_only_the_named_places_be_written() -> None:
    rules = dict(_plan().landlock)
    assert {path for path, access in rules.items() if access == "write"} == {
        *("/proc", "/dev/shm", "/tmp", "/var/tmp", HOME, WORK),
    }
    assert rules["/usr"] == "read"
    assert rules["/"] == "read"


def test_the_daemons_door_and_client_have_their_one_place() -> None:
    client = Source("/run/deskwarden/client/lib", "directory", "client", 11)
    own = (Source("/etc/shadow", "socket", "door", 8), client)
    plan = _plan(sources=(*SOURCES, *own))
    binds = {item.source: item for item in plan.operations if isinstance(item, Bind)}
    assert (binds[8].path, binds[8].read_only, binds[8].idmap) == ("/run/deskwarden/agent.sock", True, None)
    assert not any(isinstance(item, Bind) and item.source == 8 for item in plan.base)
    (shown,) = (item for item in plan.base if isinstance(item, Bind) and item.source == 11)
    assert (shown.path, shown.read_only, shown.idmap) == (client.path, True, None)
    with pytest.raises(RefusedError, match="want a place below"):
        _plan(sources=(*SOURCES, replace(client, path="/usr")))
    assert "/etc/shadow" not in dict(plan.landlock)
    assert planning.search_path("/usr/bin", (*SOURCES, *own), HOME).endswith(":/run/deskwarden/client/bin")
    assert "deskwarden" not in planning.search_path("/usr/bin", SOURCES, HOME)


def test_a_grant_is_shown_as_a_launch_shows_it() -> None:
    source = Source(f"{WORK}/lib/deep", "directory", "read", 5)
    assert planning.area(source, None, 6, False, 9) == _overlay(_plan(), source.path)
    staged = planning.area(Source(WORK, "directory", "read", 4), 7, 6, False, 9)
    assert staged == _overlay(_plan(), WORK)


def test_without_a_memory_controller_the_limit_is_an_rlimit() -> None:
    profile = profile_source.load_profile("coding")
    assert planning.limits(profile, SYSTEM).values["data"] == profile.limits.memory_bytes
    with_controller = replace(SYSTEM, controllers=("memory", "pids"))
    assert "data" not in planning.limits(profile, with_controller).values
    assert planning.cgroup_limits(profile, with_controller)["memory.max"] == profile.limits.memory_bytes


def test_a_plan_without_dev_null_is_refused() -> None:
    with pytest.raises(RefusedError, match="/dev/null"):
        _plan(sources=SOURCES[1:])


def test_path_keeps_only_directories_that_are_shown() -> None:
    path = f"/opt/secret/bin:{HOME}/.pyenv/shims:/usr/bin:relative:{WORK}/bin"
    assert planning.search_path(path, SOURCES, HOME).split(":")[:3] == [
        f"{HOME}/.pyenv/shims",
        "/usr/bin",
        f"{WORK}/bin",
    ]
