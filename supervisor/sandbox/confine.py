"""The reference monitor's rules, and the steps by which a child gives everything up.

`check_plan` refuses a plan that would start an agent with more than nothing. `confine` is one list in fixed order;
the plan chooses values in it (which uid, which filter), never whether a step happens.

Standard library only: runs in the launcher's child between clone and exec.
"""

from __future__ import annotations

import base64
import os
import signal
import stat
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Final

from supervisor.errors import RefusedError
from supervisor.linux import caps, landlock, prctl, seccomp
from supervisor.linux.clone import CloneFlags, map_own_ids, unshare
from supervisor.sandbox.operations import (
    FD_FIELDS,
    Bind,
    Hostname,
    Keyring,
    Limits,
    MakeRoot,
    MakeStubs,
    MountFs,
    Operation,
    Overlay,
    Pivot,
    Seal,
    Stub,
    Sysctl,
    from_json,
)

# First and last uid of the agents' pool: above systemd's container ranges, below 2^31 (systemd: UIDS-GIDS.md).
AGENT_UID_FIRST: Final = 1_900_000_000
AGENT_UID_LAST: Final = 1_900_065_535
# (uid_t)-1: to setresuid(2) it means "leave as it is", which is root.
_NO_ID: Final = 0xFFFF_FFFF
# What may be mounted anew, and with which options: none of them names a file, a disk or another layer.
_FILE_SYSTEMS: Final = {
    "tmpfs": {"mode", "size", "uid", "gid", "nr_inodes"},
    "devpts": {"mode", "newinstance", "ptmxmode", "uid", "gid"},
    "proc": {"hidepid", "subset"},
    "mqueue": set[str](),
}
_OVERLAY_OPTIONS: Final = {"index", "metacopy", "nfs_export", "redirect_dir", "userxattr", "uuid", "volatile", "xino"}
# Each of these belongs to a namespace of the sandbox; most of /proc/sys is the whole machine's.
_SYSCTLS: Final = ("vm.memfd_noexec",)
# A base is built before it is known for whom.
_OF_ONE_SESSION: Final = frozenset({Hostname, Keyring, Limits, Overlay, Seal, Stub})
# … and these have their place in a base alone.
_OF_A_BASE: Final = frozenset({MakeRoot, MakeStubs, Pivot})
_ENDS: Final = 2
# Nothing is granted over these, whoever asks.
_OWN_PLACES: Final = ("proc", "dev", "sys")


@dataclass(frozen=True, slots=True)
class LandlockRule:
    """`access` (read, write, device) on a path of the new root and everything below it."""

    path: str
    access: str


@dataclass(frozen=True, slots=True)
class Confinement:
    """What is given up before exec.

    Attributes:
        uid: The agent's uid; in system mode from the pool (or the owner's own), in rootless mode the owner's.
        inner_userns: Rootless: map the owner's uid in a second user namespace instead of changing it.
        seccomp: The compiled filter, struct sock_filter[].
    """

    uid: int
    gid: int
    inner_userns: bool
    seccomp: bytes
    landlock: tuple[LandlockRule, ...]
    landlock_abi: int


_ACCESS: Final = {
    "list": landlock.AccessFs.READ_DIR,
    "read": landlock.READ,
    "write": landlock.WRITE,
    "device": landlock.DEVICE,
}


def check_plan(plan: dict[str, Any], indices: Container[int], rootless: bool) -> tuple[list[Operation], Confinement]:
    """Turn a plan's JSON into operations and a confinement, or refuse it.

    Args:
        indices: The plan's indices of the descriptors that came with it.

    Raises:
        RefusedError: It lacks an agent uid, no_new_privs, empty capabilities or seccomp, or names a path where a
            descriptor belongs.
    """
    agent = plan.get("agent")
    if not isinstance(agent, dict) or type(agent.get("uid")) is not int or type(agent.get("gid")) is not int:
        raise _refuse("names no agent uid and gid")
    uid, gid = agent["uid"], agent["gid"]
    if not 0 < uid < _NO_ID or not 0 <= gid < _NO_ID:
        raise _refuse(f"agent uid {uid}, gid {gid}: an agent is never root")
    if gid == 0 and not rootless:
        raise _refuse("agent gid 0: an agent is never in root's group")
    if plan.get("no_new_privs") is not True:
        raise _refuse("does not set no_new_privs")
    if plan.get("capabilities") != []:
        raise _refuse(f"keeps capabilities {plan.get('capabilities')!r}")
    if bool(agent.get("inner_userns")) != rootless:
        raise _refuse("agent.inner_userns does not fit this service's mode")
    program = plan.get("seccomp")
    filter_bytes = base64.b64decode(program) if isinstance(program, str) else b""
    if not filter_bytes or len(filter_bytes) % seccomp.SOCK_FILTER_SIZE:
        raise _refuse("carries no seccomp filter")
    rules = _landlock_rules(plan)
    operations = check_operations(plan, indices)
    return operations, Confinement(uid, gid, rootless, filter_bytes, rules, landlock.abi_version())


def check_operations(plan: dict[str, Any], indices: Container[int], part: str = "operations") -> list[Operation]:
    """Return the operations of one part of the plan, each source one of the *indices* that came with it."""
    raw = plan.get(part)
    if not isinstance(raw, list) or not raw:
        raise _refuse(f"has no {part}")
    operations = []
    for item in raw:
        for name in FD_FIELDS:
            value = item.get(name) if isinstance(item, dict) else None
            for index in value if isinstance(value, list) else [] if value is None else [value]:
                if type(index) is not int or index not in indices:
                    raise _refuse(f"operation {item.get('op')}: {name} is {index!r}, want a descriptor's index")
        try:
            operations.append(from_json(item))
        except (ValueError, AttributeError) as error:
            raise _refuse(str(error)) from error
        _check_values(operations[-1])
    return operations


def check_base(plan: dict[str, Any], indices: Container[int]) -> list[Operation]:
    """Return the operations of the base, which leaves the host's tree for a new root.

    Raises:
        RefusedError: It does not begin with a new root and end in it, or holds what belongs to one session.
    """
    base = check_operations(plan, indices, "base")
    kinds = [type(operation) for operation in base]
    if kinds[0] is not MakeRoot or kinds[-1] is not Pivot or kinds.count(MakeRoot) + kinds.count(Pivot) != _ENDS:
        raise _refuse("does not begin with a new root and end its base with pivot_root")
    if not _OF_ONE_SESSION.isdisjoint(kinds):
        raise _refuse("has in its base what belongs to one session")
    return base


def check_builds_on_base(operations: list[Operation]) -> None:
    """Refuse a session that would leave its base, or leave it writable.

    Raises:
        RefusedError: It has a root of its own, or does not end with the seal.
    """
    kinds = [type(operation) for operation in operations]
    if not _OF_A_BASE.isdisjoint(kinds) or kinds[-1] is not Seal or kinds.count(Seal) != 1:
        raise _refuse("does not keep to its base and end with the seal")


def check_live(plan: dict[str, Any], indices: Container[int]) -> list[Bind | Overlay]:
    """Return what is to be mounted into a running sandbox.

    Raises:
        RefusedError: Anything but files and directories of the owner's, attached below the root; a device, a mount
            that can be written to without a stage, a place that is the sandbox's own.
    """
    operations: list[Bind | Overlay] = []
    for operation in check_operations(plan, indices):
        if not isinstance(operation, Bind | Overlay):
            raise _refuse(f"would {operation.describe()} in a session that runs; want files and directories only")
        if isinstance(operation, Overlay) and (operation.detached or operation.work != "work"):
            raise _refuse(f"has an overlay at {operation.path} that is one of a review")
        if isinstance(operation, Bind) and (operation.device or operation.if_exists or not operation.read_only):
            raise _refuse(f"binds {operation.path} as a device, or writable, in a session that runs")
        if isinstance(operation, Bind) and operation.recursive:
            raise _refuse(f"binds {operation.path} with what is mounted below it")
        if not _is_grantable(operation.path):
            raise _refuse(f"mounts at {operation.path!r} in a session that runs")
        operations.append(operation)
    return operations


def _is_grantable(path: object) -> bool:
    """Return whether *path* is absolute and plain, and no place that is the sandbox's own."""
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return False
    parts = path[1:].split("/")
    return not {"", ".", ".."} & set(parts) and parts[0] not in _OWN_PLACES and parts[:2] != ["run", "deskwarden"]


def _check_values(operation: Operation) -> None:
    """Refuse what an operation that mounts by name or writes a setting could reach beyond the sandbox."""
    if isinstance(operation, MountFs):
        known = _FILE_SYSTEMS.get(operation.fs_type)
        if known is None:
            raise _refuse(f"mounts a {operation.fs_type}; want one of {', '.join(_FILE_SYSTEMS)}")
        _check_options(operation.op, operation.options, known)
    elif isinstance(operation, Overlay):
        _check_options(operation.op, operation.options, _OVERLAY_OPTIONS)
    elif isinstance(operation, Sysctl) and operation.name not in _SYSCTLS:
        raise _refuse(f"sets {operation.name}; want one of {', '.join(_SYSCTLS)}")


def _check_options(what: str, options: object, known: set[str]) -> None:
    if not isinstance(options, dict) or not options.keys() <= known:
        raise _refuse(f"operation {what}: options {options!r}, want only {', '.join(sorted(known))}")


def _landlock_rules(plan: dict[str, Any]) -> tuple[LandlockRule, ...]:
    raw = plan.get("landlock")
    if raw is None:
        return ()
    try:
        rules = tuple(LandlockRule(str(path), str(access)) for path, access in raw)
    except (TypeError, ValueError) as error:
        raise _refuse("landlock: want a list of [path, access]") from error
    for rule in rules:
        if rule.access not in _ACCESS:
            raise _refuse(f"landlock {rule.path}: unknown access {rule.access!r}")
    return rules


def _refuse(what: str) -> RefusedError:
    return RefusedError(f"launcher refused the plan: it {what}")


def confine(confinement: Confinement, lifeline: int) -> None:
    """Give up everything: afterwards only exec is left to do.

    Order: bounding set (needs CAP_SETPCAP) → ids → capabilities → no_new_privs → parent-death signal (setresuid
    clears it) → Landlock → seccomp. Privilege ends at the ids.
    """
    if confinement.inner_userns:
        become_owner_in_userns(confinement.uid, confinement.gid)
        caps.drop_bounding()  # a new user namespace starts with a full one
    else:
        caps.drop_bounding()
        os.setgroups([])
        os.setresgid(confinement.gid, confinement.gid, confinement.gid)
        os.setresuid(confinement.uid, confinement.uid, confinement.uid)
    # ---- privilege has ended ----
    caps.drop_all()
    prctl.set_no_new_privs()
    die_with_launcher(lifeline)
    if confinement.landlock and confinement.landlock_abi:
        restrict_files(confinement)
    seccomp.load_filter(confinement.seccomp)


def become_owner_in_userns(uid: int, gid: int) -> None:
    """Rootless: see the owner's own ids again, in a second user namespace that owns none of the mounts."""
    unshare(CloneFlags.NEWUSER)
    prctl.set_dumpable(True)
    map_own_ids(uid, 0, gid, 0)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def die_with_launcher(lifeline: int) -> None:
    """Ask for SIGKILL at the launcher's death; *lifeline* (its pipe) tells whether that was before the asking."""
    prctl.set_pdeathsig(signal.SIGKILL)
    os.set_blocking(lifeline, False)
    try:
        if os.read(lifeline, 1) == b"":
            os._exit(125)
    except BlockingIOError:
        pass


def restrict_files(confinement: Confinement) -> None:
    """Enforce the Landlock rules; a rule on a file keeps only the rights that a file can have."""
    abi = confinement.landlock_abi
    ruleset = landlock.create_ruleset(abi)
    try:
        for rule in confinement.landlock:
            try:
                fd = landlock.open_path(rule.path)
            except FileNotFoundError:
                continue
            try:
                access = int(_ACCESS[rule.access])
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    access &= int(landlock.FILE_ONLY)
                landlock.allow_beneath(ruleset, fd, access, abi)
            finally:
                os.close(fd)
        landlock.restrict_self(ruleset)
    finally:
        os.close(ruleset)
