"""Find out what this machine has by doing it: each layer is really made, used and read back.

Every probe runs in a child of its own, inside namespaces of its own, with a deadline, so nothing it made outlives it;
the one thing outside namespaces, a cgroup directory, is removed by name. Call from a single-threaded process.
Root or not is one code: without CAP_SYS_ADMIN a probe enters a user namespace first, as the rootless daemon does.
Standard library only.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from supervisor.linux import landlock, prctl
from supervisor.linux.clone import CloneFlags
from supervisor.sandbox.layers import LAYERS, LayerState, State
from supervisor.sandbox.machine import is_initial_root
from supervisor.sandbox.probes.control_groups import cgroup_freeze, cgroup_kill, cgroup_limits, remove_cgroup
from supervisor.sandbox.probes.landlock_rights import landlock_abi, landlock_works
from supervisor.sandbox.probes.mounts import agent_uid, idmapped_mounts, mount_api, overlay_index, overlay_works, quota
from supervisor.sandbox.probes.namespaces import namespace, net_namespace, pid_namespace, user_namespace
from supervisor.sandbox.probes.outcome import APPARMOR, TIMEOUT_S, Absent, Needs, Probe, sysctl
from supervisor.sandbox.probes.processes import (
    memfd_noexec,
    no_new_privs,
    own_keyring,
    own_pty,
    pidfd,
    rlimits,
    seccomp_notify,
    seccomp_works,
)
from supervisor.sandbox.probes.surroundings import fanotify_mark, init, inotify, nftables, tpm

_PROBES: Final[Mapping[str, Probe]] = {
    "mount-namespace": namespace("mnt", CloneFlags.NEWNS),
    "pid-namespace": pid_namespace,
    "net-namespace": net_namespace,
    "ipc-namespace": namespace("ipc", CloneFlags.NEWIPC),
    "uts-namespace": namespace("uts", CloneFlags.NEWUTS),
    "cgroup-namespace": namespace("cgroup", CloneFlags.NEWCGROUP),
    "user-namespace": user_namespace,
    "mount-api": mount_api,
    "overlay": overlay_works,
    "overlay-index": overlay_index,
    "idmapped-mounts": idmapped_mounts,
    "landlock": landlock_works,
    "landlock-refer": landlock_abi(2, fs=landlock.AccessFs.REFER),
    "landlock-truncate": landlock_abi(3, fs=landlock.AccessFs.TRUNCATE),
    "landlock-net": landlock_abi(4, net=3),
    "landlock-ioctl": landlock_abi(5, fs=landlock.AccessFs.IOCTL_DEV),
    "landlock-scope": landlock_abi(6, scoped=3),
    "landlock-log": landlock_abi(7),
    "seccomp": seccomp_works,
    "seccomp-notify": seccomp_notify,
    "no-new-privs": no_new_privs,
    "pidfd": pidfd,
    "cgroup-kill": cgroup_kill,
    "cgroup-freeze": cgroup_freeze,
    "cgroup-limits": cgroup_limits,
    "rlimits": rlimits,
    "quota": quota,
    "keyring": own_keyring,
    "own-pty": own_pty,
    "memfd-noexec": memfd_noexec,
    "fanotify-mark": fanotify_mark,
    "inotify": inotify,
    "nftables": nftables,
    "tpm": tpm,
    "init": init,
    "agent-uid": agent_uid,
}


def probe_all(timeout_s: float = TIMEOUT_S) -> tuple[LayerState, ...]:
    """Probe every layer of the table, in its order; never raises for what it finds."""
    return tuple(probe(name, timeout_s) for name in LAYERS)


def probe(name: str, timeout_s: float = TIMEOUT_S) -> LayerState:
    """Probe one layer in a child of its own; a probe that is late or dies is an absent layer.

    Raises:
        KeyError: No such layer.
    """
    layer, action = LAYERS[name], _PROBES[name]
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _child(name, action, write_end)
    os.close(write_end)
    try:
        answer = _read_until(read_end, time.monotonic() + timeout_s)
    finally:
        os.close(read_end)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        remove_cgroup(pid)
    if not answer:
        return LayerState(name, State.ABSENT, f"the probe gave no answer within {timeout_s:g} s", layer.remedy)
    state, detail, remedy = json.loads(answer)
    return LayerState(name, State(state), detail, remedy)


def _child(name: str, action: Probe, write_end: int) -> None:
    try:
        os.setsid()
        prctl.set_pdeathsig(signal.SIGKILL)
        os.write(write_end, json.dumps(_judge(name, action)).encode())
    finally:
        os._exit(0)


def _judge(name: str, action: Probe) -> tuple[str, str, str]:
    remedy = LAYERS[name].remedy
    try:
        return State.PRESENT, action(), ""
    except Needs as needs:
        return State.NEEDS, str(needs), needs.remedy or remedy
    except Absent as absent:
        return State.ABSENT, str(absent), _kernel_remedy(name)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        detail = f"{code}: {error.strerror}"
        if error.errno in (errno.EPERM, errno.EACCES):
            return State.NEEDS, detail, remedy if is_initial_root() else _permission_remedy(remedy)
        if error.errno in (errno.ENODEV, errno.ENOENT, errno.ENOSPC, errno.EROFS):
            return State.NEEDS, detail, remedy
        return State.ABSENT, detail, _kernel_remedy(name)


def _permission_remedy(remedy: str) -> str:
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return APPARMOR
    return remedy


def _kernel_remedy(name: str) -> str:
    layer = LAYERS[name]
    return f"Linux {layer.since} or later; {layer.remedy}" if layer.since != "-" else layer.remedy


def _read_until(fd: int, deadline: float) -> bytes:
    answer = b""
    while (left := deadline - time.monotonic()) > 0 and select.select([fd], [], [], left)[0]:
        part = os.read(fd, 65536)
        if not part:
            break
        answer += part
        if answer.endswith(b"]"):
            break
    return answer
