"""Profile + what the hand opened → the ordered list of operations, the confinement and the command. Pure.

Nothing here touches a file, a socket or a clock: the same values give the same plan, `run --dry-run` prints it, and
the launcher's child executes it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from supervisor.errors import RefusedError
from supervisor.sandbox.operations import (
    Bind,
    Fd,
    Hostname,
    Keyring,
    Limits,
    Loopback,
    MakeDirectory,
    MakeRoot,
    MakeStubs,
    MakeSymlink,
    MountFs,
    Operation,
    Overlay,
    Pivot,
    ProtectTree,
    Seal,
    Stub,
    Sysctl,
    WriteFile,
    to_json,
)
from supervisor.sandbox.profile import Profile, is_within
from supervisor.sandbox.stubs import number_of

# What of the new /proc is hidden: keys and kernel addresses of the whole machine, and a switch that reboots it.
MASKED_PROC: Final = ("keys", "key-users", "kallsyms", "kcore", "sysrq-trigger", "timer_list", "sched_debug")
# Overlay options per mode (KERNEL-FACTS.md); what the kernel drops is found by reading back.
SYSTEM_OVERLAY: Final = {"index": "on", "nfs_export": "on", "redirect_dir": "on", "metacopy": "off", "xino": "on"}
ROOTLESS_OVERLAY: Final = {"userxattr": ""}
# Without an upper layer there is nothing to index.
SYSTEM_OVERLAY_READ_ONLY: Final = {"xino": "on", "metacopy": "off"}
# What a session has of Deskwarden inside: the socket of its agent API, and the client programs that speak to it.
AGENT_SOCKET: Final = "/run/deskwarden/agent.sock"
CLIENT: Final = "/run/deskwarden/client"
# RLIMIT_CORE 1, not 0: at 0 the kernel still starts a piped core handler on the agent's memory (core(5)).
CORE_LIMIT: Final = 1
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Source:
    """One thing that the hand opened, or found not to be there.

    Attributes:
        path: Where it is shown in the sandbox.
        kind: ``directory``, ``file``, ``device``, ``socket``, ``symlink``.
        fd: Index among the plan's descriptors; -1 for a symlink.
        target: A symlink's text.
        purpose: ``system``, ``etc``, ``home``, ``read``, ``write``, ``workspace``, ``device``, ``protected``,
            ``empty``, ``ask`` (only that it is a file), ``program`` (a verified copy); of the daemon's own: ``door``
            (the agent API's socket) and ``client`` (its programs).
    """

    path: str
    kind: str
    purpose: str
    fd: Fd = -1
    target: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """A staged area: `area` is the real folder, `fd` holds its ``upper`` and ``work``."""

    area: str
    fd: Fd


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds in a session: its profile with the compiled filter, its id, and the workspace's mode."""

    profile: Profile
    seccomp: bytes
    session_id: str
    mode: str


@dataclass(frozen=True, slots=True)
class Owner:
    """For whom the agent runs."""

    uid: int
    gid: int
    name: str
    home: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the machine and the service give to this session.

    Attributes:
        agent_uid: The uid that the agent has, as the kernel counts outside.
        idmap: Index of the mapping owner → agent, or None when the agent has the owner's uid.
        cgroup: Whether the session has a cgroup of its own; `controllers` those that limit it.
        memfd_noexec: Value for vm.memfd_noexec, or None on a kernel without it.
    """

    rootless: bool
    agent_uid: int
    agent_gid: int
    idmap: Fd | None
    cgroup: bool
    controllers: tuple[str, ...]
    memfd_noexec: int | None


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `stdio` are indices of three descriptors; `terminal` rows and columns of an own one instead."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    stdio: tuple[Fd, ...] = ()
    terminal: tuple[int, int] | None = None
    umask: int = 0o022


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole launch, as a value.

    Attributes:
        base: What of the machine every session of this profile shows: its own root with the system's directories,
            devices and a /proc. Whose session it becomes is not in it, so the launcher may build it ahead.
        operations: What makes it this session: names, the owner's files, limits.
    """

    base: tuple[Operation, ...]
    operations: tuple[Operation, ...]
    agent_uid: int
    agent_gid: int
    inner_userns: bool
    seccomp: bytes
    landlock: tuple[tuple[str, str], ...]
    command: Command
    cgroup_limits: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return the form that the launcher's child reads; the base is a message of its own."""
        return {
            "operations": [to_json(operation) for operation in self.operations],
            "agent": {"uid": self.agent_uid, "gid": self.agent_gid, "inner_userns": self.inner_userns},
            "no_new_privs": True,
            "capabilities": [],
            "seccomp": base64.b64encode(self.seccomp).decode(),
            "landlock": [list(rule) for rule in self.landlock],
            "command": command_json(self.command),
        }

    def base_json(self) -> dict[str, Any]:
        """Return the form of the base, which a child reads before or after the rest."""
        return {"base": [to_json(operation) for operation in self.base]}

    def base_indices(self) -> list[Fd]:
        """Return which of the plan's descriptors the base needs."""
        return sorted({operation.source for operation in self.base if isinstance(operation, Bind)})

    def describe(self) -> list[str]:
        """Return the plan in words, in the order in which it is carried out."""
        user = "as you" if self.inner_userns else f"as uid {self.agent_uid}, its own"
        lines = [operation.describe() for operation in (*self.base, *self.operations)]
        lines.append(f"become the agent ({user}), all capabilities dropped, no_new_privs")
        lines.append("Landlock: " + ", ".join(f"{path} {access}" for path, access in self.landlock))
        lines.append(f"seccomp: {len(self.seccomp) // 8} instructions")
        lines.append(f"run {' '.join(self.command.argv)} in {self.command.directory}")
        return lines


def command_json(command: Command) -> dict[str, Any]:
    """Return the JSON form of a command."""
    return {
        "argv": list(command.argv),
        "environment": dict(command.environment),
        "directory": command.directory,
        "stdio": list(command.stdio),
        "terminal": list(command.terminal) if command.terminal else None,
        "umask": command.umask,
    }


def build(
    terms: Terms,
    owner: Owner,
    surroundings: Surroundings,
    sources: Sequence[Source],
    stages: Sequence[Stage],
    command: Command,
) -> Plan:
    """Return the plan of a session.

    Args:
        sources: What is shown, each opened by the hand. The one with purpose ``workspace`` is the working area.
        stages: The staged areas among them; in mode ``direct`` the workspace has none.
    """
    profile, name = terms.profile, terms.session_id
    return Plan(
        base=_base(profile, owner, surroundings, sources),
        operations=(
            Hostname(name),
            Keyring(),
            MountFs("tmpfs", owner.home, _tmpfs(profile, "0700") | _file_owner(surroundings), no_exec=False),
            *(entry for source in _system(sources) if _below(source.path, owner.home) for entry in _shown(source)),
            *_account_files(owner, surroundings, name),
            *_door(sources),
            *_areas(sources, stages, surroundings, terms.mode),
            *_ask_stubs(profile, owner, sources),
            *_program(sources, surroundings),
            limits(profile, surroundings),
            Seal(),
        ),
        agent_uid=surroundings.agent_uid,
        agent_gid=surroundings.agent_gid,
        inner_userns=surroundings.rootless,
        seccomp=terms.seccomp,
        landlock=landlock_rules(sources, owner),
        command=command,
        cgroup_limits=cgroup_limits(profile, surroundings),
    )


def _only(sources: Sequence[Source], path: str) -> Source:
    for source in sources:
        if source.path == path:
            return source
    raise RefusedError(f"profile shows no {path}; every sandbox needs it", "add it to the profile's devices")


def _file_owner(surroundings: Surroundings) -> dict[str, str]:
    """The owner of the sandbox's own tmpfs mounts, in the ids of the mount namespace's user namespace."""
    uid, gid = (0, 0) if surroundings.rootless else (surroundings.agent_uid, surroundings.agent_gid)
    return {"uid": str(uid), "gid": str(gid)}


def _base(
    profile: Profile, owner: Owner, surroundings: Surroundings, sources: Sequence[Source]
) -> tuple[Operation, ...]:
    null = _only(sources, "/dev/null")
    system = [source for source in _system(sources) if not _below(source.path, owner.home)]
    sysctls = [] if surroundings.memfd_noexec is None else [Sysctl("vm.memfd_noexec", str(surroundings.memfd_noexec))]
    return (
        MakeRoot(),
        MakeStubs(),  # before /run, which covers where it is attached
        Loopback(),
        *_skeleton(profile),
        *(entry for source in system for entry in _shown(source)),
        *_devices(sources),
        *_client(sources),
        *(Bind(null.fd, f"/proc/{entry}", "/dev/null", device=True, if_exists=True) for entry in MASKED_PROC),
        *sysctls,
        ProtectTree("/proc/sys"),
        Pivot(),
    )


def _system(sources: Sequence[Source]) -> list[Source]:
    return [source for source in sources if source.purpose in ("system", "etc")]


def _tmpfs(profile: Profile, mode: str) -> dict[str, str]:
    return {"mode": mode, "size": str(profile.limits.tmp_bytes) if profile.limits.tmp_bytes else "50%"}


def _skeleton(profile: Profile) -> list[Operation]:
    return [
        MountFs("proc", "/proc"),
        MakeDirectory("/dev"),
        MountFs("devpts", "/dev/pts", {"newinstance": "", "ptmxmode": "0666", "mode": "0620"}),
        MountFs("tmpfs", "/dev/shm", _tmpfs(profile, "1777")),
        MountFs("tmpfs", "/tmp", _tmpfs(profile, "1777"), no_exec=False),
        MountFs("tmpfs", "/var/tmp", _tmpfs(profile, "1777"), no_exec=False),
        MountFs("tmpfs", "/run", {"mode": "0755", "size": "4194304"}),
        MakeSymlink("/dev/ptmx", "pts/ptmx"),
        MakeSymlink("/dev/fd", "/proc/self/fd"),
        MakeSymlink("/dev/stdin", "/proc/self/fd/0"),
        MakeSymlink("/dev/stdout", "/proc/self/fd/1"),
        MakeSymlink("/dev/stderr", "/proc/self/fd/2"),
    ]


def _shown(source: Source) -> list[Operation]:
    if source.kind == "symlink":
        return [MakeSymlink(source.path, source.target)]
    return [Bind(source.fd, source.path, source.path, recursive=source.purpose == "system")]


def _devices(sources: Sequence[Source]) -> list[Operation]:
    return [
        Bind(source.fd, source.path, source.path, read_only=False, device=True)
        for source in sources
        if source.purpose == "device"
    ]


def _account_files(owner: Owner, surroundings: Surroundings, name: str) -> list[Operation]:
    uid, gid = surroundings.agent_uid, surroundings.agent_gid
    account = f"{owner.name}:x:{uid}:{gid}:{owner.name}:{owner.home}:/bin/bash\n" if owner.name != "root" else ""
    if not account:
        # The name root with another uid would mislead programs; the agent of root is called agent.
        account = f"agent:x:{uid}:{gid}:agent:{owner.home}:/bin/bash\n"
    group = account.split(":", 1)[0]
    return [
        WriteFile(
            "/etc/passwd",
            "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
            + account
            + "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        ),
        WriteFile("/etc/group", f"root:x:0:\n{group}:x:{gid}:\nnogroup:x:65534:\n"),
        WriteFile("/etc/hosts", f"127.0.0.1 localhost {name}\n::1 localhost ip6-localhost ip6-loopback {name}\n"),
        WriteFile("/etc/hostname", f"{name}\n"),
    ]


def _door(sources: Sequence[Source]) -> list[Operation]:
    """Bind the agent's door, which the daemon opened itself, at its one place whatever the source says."""
    return [
        Bind(source.fd, AGENT_SOCKET, "the agent API's socket", no_exec=True)
        for source in sources
        if source.purpose == "door"
    ]


def _client(sources: Sequence[Source]) -> list[Operation]:
    """Bind the agent API's client program; nothing of it lies anywhere else."""
    operations: list[Operation] = []
    for source in sources:
        if source.purpose == "client":
            if not _below(source.path, CLIENT):
                raise RefusedError(f"{source.path}: want a place below {CLIENT}", "report this: it is a defect")
            operations.append(Bind(source.fd, source.path, "the agent API's client"))
    return operations


def area(source: Source, stage: Fd | None, empty: Fd | None, rootless: bool, idmap: Fd | None) -> Overlay | Bind:
    """Return the operation that shows one file or directory of the owner's, read-only or staged for writing.

    A directory is an overlay, not a bind: the host's sockets, FIFOs, locks and leases have no effect through it.

    Args:
        stage: Holds ``upper`` and ``work``, for writing.
        empty: An empty directory: without a stage an overlay needs a second layer.
    """
    if stage is not None:
        options = ROOTLESS_OVERLAY if rootless else SYSTEM_OVERLAY
        return Overlay([source.fd], source.path, source.path, dict(options), stage=stage, idmap=idmap)
    if source.kind == "directory" and empty is not None:
        options = ROOTLESS_OVERLAY if rootless else SYSTEM_OVERLAY_READ_ONLY
        return Overlay([source.fd, empty], source.path, source.path, dict(options), read_only=True, idmap=idmap)
    return Bind(source.fd, source.path, source.path, idmap=idmap)


def _areas(
    sources: Sequence[Source], stages: Sequence[Stage], surroundings: Surroundings, mode: str
) -> list[Operation]:
    """What is shown of the owner's files, shallow paths first, so that a deeper one lies on top."""
    staged = {stage.area: stage for stage in stages}
    empty = next((source.fd for source in sources if source.purpose == "empty"), None)
    operations: list[Operation] = []
    areas = [
        source for source in sources if source.purpose in ("home", "read", "write", "workspace", "pinned", "protected")
    ]
    for source in sorted(areas, key=lambda item: item.path.count("/")):
        if source.kind == "symlink":
            operations.append(MakeSymlink(source.path, source.target))
        elif source.path in staged or source.purpose in ("home", "read"):
            stage = staged[source.path].fd if source.path in staged else None
            operations.append(area(source, stage, empty, surroundings.rootless, surroundings.idmap))
        else:
            # A pinned directory is its own mount, so that it can be neither renamed nor replaced.
            writable = source.purpose in {"write", "pinned"} or (source.purpose == "workspace" and mode == "direct")
            operations.append(
                Bind(source.fd, source.path, source.path, read_only=not writable, idmap=surroundings.idmap)
            )
    return operations


def _program(sources: Sequence[Source], surroundings: Surroundings) -> list[Operation]:
    """Show the verified copy over the program's path, above all that is shown there."""
    return [
        Bind(source.fd, source.path, f"the verified copy of {source.path}", idmap=surroundings.idmap)
        for source in sources
        if source.purpose == "program"
    ]


def _ask_stubs(profile: Profile, owner: Owner, sources: Sequence[Source]) -> list[Operation]:
    """Names where something can be asked for; never above or in what is shown."""
    shown = [source.path for source in sources if source.purpose in ("home", "read", "write", "workspace")]
    paths = [f"{owner.home}/{os.fsdecode(name)}" for name in profile.files.ask]
    files = {source.path for source in sources if source.purpose == "ask"}
    operations: list[Operation] = []
    counts = {"directory": 0, "file": 0}
    for path in paths:
        if not any(_below(one, path) or _below(path, one) for one in shown):
            kind = "file" if path in files else "directory"
            operations.append(Stub(path, kind, number_of(kind, counts[kind])))
            counts[kind] += 1
    return operations


def stubs_of(plan: Plan) -> dict[int, str]:
    """Return the paths of the names that can be asked for by opening them, by their nodes' numbers."""
    found = [operation for operation in plan.operations if isinstance(operation, Stub)]
    return {stub.number: stub.path for stub in found if stub.number}


def limits(profile: Profile, surroundings: Surroundings) -> Limits:
    """Return the rlimits; memory and processes too where no cgroup controller limits the whole tree."""
    values = {"core": CORE_LIMIT}
    wanted = {
        "nofile": profile.limits.open_files,
        "fsize": _least(profile.limits.file_size_bytes, profile.limits.staged_bytes),
        "nproc": profile.limits.pids,
        "data": None if "memory" in surroundings.controllers else profile.limits.memory_bytes,
    }
    values |= {key: value for key, value in wanted.items() if value is not None}
    return Limits(values)


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def rlimits(plan: Plan) -> Limits:
    """Return the plan's own limits, for one more command in the same sandbox."""
    return next(operation for operation in plan.operations if isinstance(operation, Limits))


def cgroup_limits(profile: Profile, surroundings: Surroundings) -> dict[str, int]:
    """Return the cgroup files to write, of the controllers that this session has."""
    values: dict[str, int] = {}
    if "memory" in surroundings.controllers and profile.limits.memory_bytes:
        values |= {"memory.max": profile.limits.memory_bytes, "memory.swap.max": 0}
    if "pids" in surroundings.controllers and profile.limits.pids:
        values["pids.max"] = profile.limits.pids
    return values


def landlock_rules(sources: Sequence[Source], owner: Owner) -> tuple[tuple[str, str], ...]:
    """Return (path, access) rules; a rule on a directory covers what is mounted below it later."""
    rules = {
        # Nothing lies there but what this plan mounts, read-only, and what is granted later: a session that runs can be
        # shown more, never be allowed more. What is granted for writing has to lie below a rule that says so.
        "/": "read",
        "/proc": "write",
        "/dev": "device",
        "/dev/shm": "write",
        "/etc": "read",
        "/run": "read",
        "/tmp": "write",
        "/var/tmp": "write",
        owner.home: "write",
    }
    for source in sources:
        if source.kind == "symlink" or source.purpose in ("device", "etc", "empty", "door", "ask"):
            continue
        writable = source.purpose in {"write", "workspace"}
        covered = any(rules[path] == "write" and _below(source.path, path) for path in rules)
        if writable or not covered:
            rules[source.path] = "write" if writable else "read"
    return tuple(rules.items())


def _below(path: str, area: str) -> bool:
    return is_within(os.fsencode(path), os.fsencode(area))


def search_path(path: str, sources: Sequence[Source], home: str) -> str:
    """Return the caller's PATH without what the sandbox does not show, and the system's own directories after it."""
    shown = [source.path for source in sources if source.purpose in ("system", "home", "read", "write", "workspace")]
    kept = [
        part
        for part in path.split(":")
        if part.startswith("/")
        and any(_below(part, area) or (_below(area, part) and _below(area, home)) for area in shown)
    ]
    client = [f"{CLIENT}/bin"] if any(source.purpose == "client" for source in sources) else []
    return ":".join(dict.fromkeys([*kept, *DEFAULT_PATH.split(":"), *client]))
