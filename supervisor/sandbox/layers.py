"""The layers of enforcement: one table of names, what each gives and what it takes to have it.

A profile's `requires` and `preferred`, a session's enforcement report and `doctor` use these names and no others.
Values and pure functions only; `probe` finds out what this machine has. Standard library only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from supervisor.errors import LayerMissingError


class State(StrEnum):
    """What a probe found."""

    PRESENT = "present"
    ABSENT = "absent"  # this kernel cannot do it
    NEEDS = "needs"  # it can be had here: the remedy says how


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of the table: *since* is the first kernel that has it, *remedy* how to get it on such a kernel."""

    name: str
    gives: str
    since: str
    remedy: str


@dataclass(frozen=True, slots=True)
class LayerState:
    """What was found about one layer on this machine."""

    name: str
    state: State
    detail: str
    remedy: str


_SYSCTL_USERNS: Final = "sysctl user.max_user_namespaces=15000 and kernel.unprivileged_userns_clone=1 where it exists"
_DELEGATE: Final = "systemd: Delegate=yes for the unit, or boot with systemd.unified_cgroup_hierarchy=1"
_LANDLOCK: Final = "CONFIG_SECURITY_LANDLOCK=y and 'landlock' in the boot parameter lsm="

_TABLE: Final = (
    Layer("mount-namespace", "a file system view of its own", "2.4", "run as root, or allow user namespaces"),
    Layer("pid-namespace", "other processes are invisible; all die with the first", "2.6.24", "CONFIG_PID_NS=y"),
    Layer("net-namespace", "no network but what is handed in", "2.6.29", "CONFIG_NET_NS=y"),
    Layer("ipc-namespace", "shared memory and queues of its own", "2.6.19", "CONFIG_IPC_NS=y"),
    Layer("uts-namespace", "a host name of its own", "2.6.19", "CONFIG_UTS_NS=y"),
    Layer("cgroup-namespace", "the machine's cgroup tree is invisible", "4.6", "CONFIG_CGROUPS=y"),
    Layer("user-namespace", "a sandbox without root", "3.8", _SYSCTL_USERNS),
    Layer("mount-api", "mounts by descriptor, never by path", "5.12", "a kernel of 5.12 or later"),
    Layer("overlay", "writes go to an upper layer: review, apply, undo", "5.11", "modprobe overlay"),
    Layer("overlay-index", "hard links, handles and directory renames survive", "4.17", "run as root"),
    Layer("idmapped-mounts", "an agent uid of its own over the owner's files", "5.19", "run as root"),
    Layer("landlock", "opens nothing outside the rules, under the mounts", "5.13", _LANDLOCK),
    Layer("landlock-refer", "renames and links across directories are judged (ABI 2)", "5.19", _LANDLOCK),
    Layer("landlock-truncate", "truncation is judged (ABI 3)", "6.2", _LANDLOCK),
    Layer("landlock-net", "TCP bind and connect by port (ABI 4)", "6.7", _LANDLOCK),
    Layer("landlock-ioctl", "ioctl on devices is judged (ABI 5)", "6.10", _LANDLOCK),
    Layer("landlock-scope", "no abstract sockets, no signals to outside (ABI 6)", "6.12", _LANDLOCK),
    Layer("landlock-log", "denials can be logged apart (ABI 7)", "6.15", _LANDLOCK),
    Layer("seccomp", "only reviewed system calls", "3.17", "CONFIG_SECCOMP_FILTER=y and apt install libseccomp2"),
    Layer("seccomp-notify", "every program start is an event", "5.5", "CONFIG_SECCOMP_FILTER=y"),
    Layer("no-new-privs", "no exec ever adds privilege", "3.5", "a kernel of 3.5 or later"),
    Layer("pidfd", "processes are named without reuse races", "5.3", "a kernel of 5.3 or later"),
    Layer("cgroup-kill", "the whole tree is killed at once", "5.14", _DELEGATE),
    Layer("cgroup-freeze", "the whole tree is stopped at once", "5.2", _DELEGATE),
    Layer("cgroup-limits", "memory and process limits of the whole tree", "4.5", _DELEGATE),
    Layer("rlimits", "limits of each process", "2.6.36", "raise the hard limits of the service"),
    Layer("quota", "staged files cannot fill the disk: a sized tmpfs or project quota", "2.6", "mount with prjquota"),
    Layer("keyring", "the session's keys are its own", "2.6.10", "CONFIG_KEYS=y"),
    Layer("own-pty", "a terminal of its own: nothing is typed into yours", "2.6.29", "mount devpts with ptmxmode=0666"),
    Layer("memfd-noexec", "no programs from anonymous memory", "6.3", "a kernel of 6.3 or later"),
    Layer("fanotify-mark", "every create, open, change of a session's files is an event", "5.17", "run as root"),
    Layer("inotify", "changes of a session's files are seen without root", "2.6.13", "CONFIG_INOTIFY_USER=y"),
    Layer("nftables", "every connection ends at the network door", "3.13", "apt install nftables; modprobe nft_redir"),
    Layer("tpm", "keys and posture bound to this machine", "4.12", "enable the TPM in the firmware"),
    Layer("init", "a small first process in the sandbox", "-", "apt install tini, catatonit or dumb-init"),
    Layer("agent-uid", "each agent runs under a user id of its own", "5.19", "run the system service as root"),
)

LAYERS: Final[Mapping[str, Layer]] = {layer.name: layer for layer in _TABLE}
# The kernel that Debian 12 ships: the floor. Below it nothing is promised.
KERNEL_FLOOR: Final = (6, 1)


def missing(names: Iterable[str], states: Iterable[LayerState]) -> tuple[LayerState, ...]:
    """Return the states of those *names* that are not present, in the order named. Pure.

    Raises:
        ValueError: A name is not in the table.
    """
    found = {state.name: state for state in states}
    result = []
    for name in names:
        layer = LAYERS.get(name)
        if layer is None:
            raise ValueError(f"no layer is called {name!r}")
        state = found.get(name, LayerState(name, State.ABSENT, "not probed", layer.remedy))
        if state.state is not State.PRESENT:
            result.append(state)
    return tuple(result)


def with_controllers(states: Iterable[LayerState], controllers: Collection[str]) -> tuple[LayerState, ...]:
    """Return *states* as they are where the launcher has *controllers* for its sessions: it may have enabled them."""
    present = LayerState("cgroup-limits", State.PRESENT, ", ".join(controllers), "")
    has = {"memory", "pids"} <= set(controllers)
    return tuple(present if has and state.name == present.name else state for state in states)


def check_required(names: Iterable[str], states: Iterable[LayerState]) -> None:
    """Refuse when a required layer is missing.

    Raises:
        LayerMissingError: Names the first one missing, the kernel that has it, and what to do.
    """
    lacking = missing(names, states)
    if not lacking:
        return
    first = lacking[0]
    others = f" (and {', '.join(state.name for state in lacking[1:])})" if lacking[1:] else ""
    since = LAYERS[first.name].since
    kernel = f"; Linux {since} has it" if since != "-" else ""
    raise LayerMissingError(
        f"the profile requires {first.name}{others}: {first.detail}{kernel}",
        first.remedy or "deskwarden doctor",
    )
