"""One launch: what was asked → opened by the hand → planned → carried out by the launcher."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from supervisor.errors import DeskwardenError, LaunchError, RefusedError, ServiceError, UsageError, from_wire
from supervisor.linux import landlock, seqpacket
from supervisor.policy.standing import Standing
from supervisor.sandbox import plan as planning
from supervisor.sandbox import wanted
from supervisor.sandbox.layers import LayerState, missing
from supervisor.sandbox.plan import Command, Owner, Plan, Source, Stage, Surroundings, Terms
from supervisor.sandbox.profile import Ceiling, Profile, build_environment, check_ceiling
from supervisor.session import quota
from supervisor.session.channel import Channel
from supervisor.session.console import Console
from supervisor.session.hands import OPEN_DEADLINE_S, Hand
from supervisor.session.launcher_client import LauncherClient

# Set-up takes milliseconds; a child that does not answer in this time hangs in the kernel.
PREPARE_DEADLINE_S: Final = 20.0
# A program of several hundred megabytes is copied and hashed in a few seconds; a slow disk takes longer.
PROGRAM_DEADLINE_S: Final = 65.0
_MEMFD_NOEXEC_FULL: Final = (6, 6)  # at 2 older programs' memfds still work from here on
_MEMFD_NOEXEC: Final = (6, 3)


@dataclass(frozen=True, slots=True)
class Request:
    """What the owner typed, checked."""

    argv: tuple[str, ...]
    workspace: str
    environment: Mapping[str, str]
    profile: str = "coding"
    mode: str = ""
    name: str = ""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    overrides: Mapping[str, str | None] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    terminal: tuple[int, int] | None = None
    umask: int = 0o022
    lasts_s: float | None = None
    standing: Standing | None = None


@dataclass(slots=True)
class Prepared:
    """A launch up to the plan; owns its descriptors until `close`."""

    plan: Plan
    fds: list[int]
    areas: list[str]
    numbers: list[int]
    shown: list[str]
    notes: list[str]
    baseline: dict[str, int]

    def close(self) -> None:
        """Close the descriptors."""
        seqpacket.close_all(self.fds)


@dataclass(frozen=True, slots=True)
class Started:
    """A running sandbox: its PID 1 as seen outside, its mount namespace (a descriptor), and what is not as asked for.

    *stubs* is the descriptor that answers for the names to be asked for, the caller's; -1 where there are none.

    Whoever holds the namespace decides when its mounts go: letting go of a staged overlay writes its disk back
    (syncfs(2)), which can take seconds, and nobody is to wait for that to hear an exit code.
    """

    pid: int
    mounts: int
    findings: list[str]
    stubs: int = -1


@dataclass(frozen=True, slots=True)
class Agent:
    """The uid that the agent gets, the mapping to it (None: it is the owner's own), and the socket it asks through."""

    uid: int
    idmap_fd: int | None
    door: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What this service can give to its sessions.

    Attributes:
        client: Of the agent API's client program: path in the sandbox, kind, descriptor.
    """

    rootless: bool
    has_cgroup: bool
    controllers: tuple[str, ...]
    kernel: tuple[int, int]
    owned_places: tuple[str, ...]
    ceiling: Ceiling
    client: tuple[tuple[str, str, int], ...] = ()


def check_request(request: Request, profile: Profile) -> str:
    """Return the workspace mode, or say what does not fit.

    Raises:
        UsageError: An unknown mode.
        RefusedError: A mode that the profile does not allow.
    """
    mode = request.mode or profile.workspace.default_mode
    if mode == "live":
        raise RefusedError("--mode live comes later", "use --mode staged, then: deskwarden apply")
    if mode not in ("staged", "direct"):
        raise UsageError(f"--mode {mode}: want live, staged or direct", "deskwarden run --help")
    if mode not in profile.workspace.modes:
        raise RefusedError(
            f"profile {profile.name} does not allow --mode {mode} (it allows {', '.join(profile.workspace.modes)})",
            "deskwarden profile list",
        )
    return mode


async def prepare(
    request: Request,
    terms: Terms,
    owner: Owner,
    hand: Hand,
    machine: Machine,
    agent: Agent,
    stdio: tuple[int, int, int] | None,
) -> Prepared:
    """Open what the profile and the flags need, and plan.

    Raises:
        DeskwardenError: A refusal by name; everything opened is closed again.
    """
    check_ceiling(terms.profile, machine.ceiling)
    environment = build_environment(terms.profile, request.environment, request.overrides)
    items = wanted.items(terms.profile, owner.home, request.workspace, request.reads, request.writes)
    if terms.mode == "direct":
        items += wanted.protected_items(terms.profile, request.workspace)
    answer, fds = await hand.ask(
        "open",
        (),
        OPEN_DEADLINE_S,
        items=items,
        home=owner.home,
        mode=terms.mode,
        id=terms.session_id,
        runs_later=[os.fsdecode(pattern) for pattern in terms.profile.runs_later],
    )
    try:
        sources = [Source(**source) for source in answer["sources"]]
        explicit = [*request.reads, *request.writes]
        wanted.check_opened(sources, owner.home, machine.owned_places, machine.ceiling, explicit)
        stages = [Stage(stage["area"], stage["fd"]) for stage in answer["stages"]]
        sources += _own_sources(machine, agent.door, fds)
        idmap = None
        if agent.idmap_fd is not None:
            fds.append(os.dup(agent.idmap_fd))
            idmap = len(fds) - 1
        indices: tuple[int, ...] = ()
        if stdio is not None:
            indices = (len(fds), len(fds) + 1, len(fds) + 2)
            fds += [os.dup(fd) for fd in stdio]
        workspace = next(source.path for source in sources if source.purpose == "workspace" and source.fd >= 0)
        surroundings = Surroundings(
            machine.rootless,
            agent.uid,
            agent.uid if idmap is not None else owner.gid,
            idmap,
            machine.has_cgroup,
            machine.controllers,
            2 if machine.kernel >= _MEMFD_NOEXEC_FULL else 1 if machine.kernel >= _MEMFD_NOEXEC else None,
        )
        complete_environment(environment, request, sources, owner, terms.session_id, workspace)
        argv = await _with_verified_program(request, environment["PATH"], workspace, hand, terms, sources, fds)
        command = Command(argv, environment, workspace, indices, request.terminal, request.umask)
        plan = planning.build(terms, owner, surroundings, sources, stages, command)
    except BaseException:
        seqpacket.close_all(fds)
        raise
    numbers = [stage["number"] for stage in answer["stages"]]
    areas = [stage["area"] for stage in answer["stages"]]
    shown = [source.path for source in sources if source.purpose in ("home", "read") and source.kind != "symlink"]
    return Prepared(plan, fds, areas, numbers, shown, list(answer["notes"]), answer["baseline"])


def _own_sources(machine: Machine, door: str, fds: list[int]) -> list[Source]:
    """Return what the daemon itself shows: the agent's door, and the client that speaks through it."""
    if not door:
        return []
    fds.append(os.open(door, os.O_PATH | os.O_CLOEXEC))
    sources = [Source("", "socket", "door", len(fds) - 1)]
    for path, kind, fd in machine.client:
        fds.append(os.dup(fd))
        sources.append(Source(path, kind, "client", len(fds) - 1))
    return sources


async def _with_verified_program(
    request: Request, path: str, workspace: str, hand: Hand, terms: Terms, sources: list[Source], fds: list[int]
) -> tuple[str, ...]:
    """Return what to run: with a manifest that names programs, one of these, shown as the copy that was verified."""
    if request.standing is None or not request.standing.manifest.binaries:
        return request.argv
    name = request.argv[0]
    candidates = [f"{part}/{name}" for part in path.split(":")]
    if "/" in name:
        candidates = [os.path.join(workspace, name)]
    binaries = [{"path": one.path, "sha256": one.sha256} for one in request.standing.manifest.binaries]
    answer, copies = await hand.ask(
        "program", (), PROGRAM_DEADLINE_S, id=terms.session_id, candidates=candidates, binaries=binaries
    )
    fds += copies
    sources.append(Source(str(answer["path"]), "file", "program", len(fds) - 1))
    return (str(answer["path"]), *request.argv[1:])


async def drop_program(hand: Hand, session_id: str) -> None:
    """Take the name of a verified program's copy away, once it is mounted or not needed."""
    with contextlib.suppress(DeskwardenError):
        await hand.ask("drop_program", (), OPEN_DEADLINE_S, id=session_id)


def complete_environment(
    environment: dict[str, str],
    request: Request,
    sources: list[Source],
    owner: Owner,
    session_id: str,
    workspace: str,
) -> None:
    """Add what the sandbox itself knows: home, account, search path, session."""
    name = owner.name if owner.name != "root" else "agent"
    path = request.overrides.get("PATH") or request.environment.get("PATH", "")
    environment |= {
        "HOME": owner.home,
        "USER": name,
        "LOGNAME": name,
        "PWD": workspace,
        "PATH": planning.search_path(path, sources, owner.home),
        "DESKWARDEN_SESSION": session_id,
    }
    if request.terminal and "TERM" not in environment:
        environment["TERM"] = request.environment.get("TERM", "xterm-256color")


async def carry_out(launcher: LauncherClient, session_id: str, plan: Plan, fds: list[int], console: Console) -> Started:
    """Have the launcher start the session.

    Raises:
        LaunchError: A step failed, by name; nothing is left of it.
        NotFoundError: No such command inside. RefusedError: not executable, or the plan was refused.
    """
    base = {index: fds[index] for index in plan.base_indices()}
    ours, theirs = seqpacket.pair()
    channel = Channel(ours)
    try:
        with theirs:
            # The plan lies ready when the child looks; the base follows if nobody built it ahead.
            await _send_part(channel, plan.to_json(), {n: fd for n, fd in enumerate(fds) if n not in base})
            answer, pidfds = await launcher.ask(
                "session",
                (theirs.fileno(),),
                id=session_id,
                limits=dict(plan.cgroup_limits),
                base=base_name(plan, base),
            )
        seqpacket.close_all(pidfds)
        if not answer["has_base"]:
            await _send_part(channel, plan.base_json(), base)
        findings, mounts, stubs = await hear(channel, console)
        return Started(int(answer["pid"]), mounts, findings, stubs)
    finally:
        channel.close()


async def end(launcher: LauncherClient, session_id: str) -> bool:
    """Kill what was started for a session that is not to be; returns whether there was anything left of it."""
    try:
        await launcher.ask("kill", id=session_id)
    except DeskwardenError:
        return False
    return True


async def _send_part(channel: Channel, message: dict[str, Any], fds: Mapping[int, int]) -> None:
    """Send one part of a plan with the descriptors that it needs, unless the child has ended; it said why."""
    with contextlib.suppress(BrokenPipeError):
        await channel.send_json(message | {"indices": list(fds)}, tuple(fds.values()))


def base_name(plan: Plan, fds: Mapping[int, int]) -> str:
    """Return what tells one base from another: its steps, and device and inode of each source.

    A base that exists keeps its sources' inodes, so no other file can come to have their numbers.
    """
    sources = [(status.st_dev, status.st_ino) for status in map(os.fstat, fds.values())]
    return hashlib.sha256(json.dumps([plan.base_json(), sources]).encode()).hexdigest()


async def build_base_ahead(launcher: LauncherClient, plan: Plan, fds: Mapping[int, int]) -> None:
    """Have the launcher build this plan's base once more, for the next session that wants the same.

    One that cannot be built is no error here: the next session builds it itself, and says what failed.
    """
    ours, theirs = seqpacket.pair()
    channel = Channel(ours)
    try:
        with theirs:
            await _send_part(channel, plan.base_json(), fds)
            await launcher.ask("build", (theirs.fileno(),), base=base_name(plan, fds))
    finally:
        channel.close()


async def hear(channel: Channel, console: Console) -> tuple[list[str], int, int]:
    """Wait for what a child says of its plan; returns, once the exec has happened, findings, mount namespace and stubs.

    The last two are -1 for one more command in a session.
    """
    fds: list[int] = []
    try:
        async with asyncio.timeout(PREPARE_DEADLINE_S):
            prepared = await channel.receive_json()
            if prepared is None:
                raise ServiceError("the sandbox's first process died before it could say why", "deskwarden doctor")
            message, fds = prepared
            if message.get("event") == "error":
                raise from_wire(message["error"])
            last = await channel.receive_json()
            if last is not None:
                raise from_wire(last[0].get("error", {}))
    except TimeoutError:
        seqpacket.close_all(fds)
        raise LaunchError("launch", 110, f"not ready after {PREPARE_DEADLINE_S:.0f} s", "deskwarden doctor") from None
    except BaseException:
        seqpacket.close_all(fds)
        raise
    mounts = fds.pop(0) if message["mounts"] else -1
    stubs = fds.pop(0) if message.get("stubs") else -1
    if fds:
        console.take_terminal(fds.pop())
    return [str(item) for item in message["findings"]], mounts, stubs


def enforcement_report(
    profile: Profile,
    machine: Machine,
    prepared: Prepared,
    findings: list[str],
    layers: Iterable[LayerState],
    own_uid: bool,
) -> dict[str, Any]:
    """Return what is really active in this session, for `ps`, every event and the audit record."""
    plan = prepared.plan
    return {
        "service": "rootless" if machine.rootless else "system",
        "agent_uid": plan.agent_uid,
        "agent_uid_kind": "its own" if own_uid else "the owner's",
        "landlock_abi": landlock.abi_version(),
        "kill": "cgroup" if machine.has_cgroup else "pid namespace",
        "limits": f"cgroup: {', '.join(machine.controllers)}" if machine.controllers else "rlimits of each process",
        "quota": quota.KIND if prepared.areas and profile.limits.staged_bytes else "none",
        "network": "closed: an own namespace with lo only",
        "missing_preferred": [state.name for state in missing(profile.preferred, layers)],
        "findings": findings + prepared.notes,
    }


def is_unmappable(error: DeskwardenError) -> bool:
    """Return whether a launch failed because a file system cannot map ids (an idmapped home, tmpfs before 6.3)."""
    return isinstance(error, LaunchError) and "id mapping" in error.detail
