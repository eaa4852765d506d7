"""Probes of namespaces. Standard library only."""

from __future__ import annotations

import errno
import os
import socket

from supervisor.linux import clone, netlink, prctl
from supervisor.linux.clone import CloneFlags
from supervisor.sandbox.machine import is_initial_root
from supervisor.sandbox.probes.outcome import APPARMOR, Needs, Probe, expect, sysctl
from supervisor.sandbox.probes.place import NOBODY, enter, in_grandchild


def namespace(kind: str, flag: CloneFlags) -> Probe:
    def action() -> str:
        before = os.readlink(f"/proc/self/ns/{kind}")
        enter(flag)
        expect(os.readlink(f"/proc/self/ns/{kind}") != before, "unshare left the old namespace in place")
        return "made"

    return action


def pid_namespace() -> str:
    enter(CloneFlags.NEWPID)

    def body() -> None:
        if os.getpid() != 1:
            raise OSError(errno.EINVAL, "the first process is not PID 1")

    in_grandchild(body)
    return "made; the first process is PID 1"


def net_namespace() -> str:
    enter(CloneFlags.NEWNET)
    netlink.set_loopback_up()
    names = [name for _, name in socket.if_nameindex()]
    expect("lo" in names, "no loopback interface")
    return "made; only lo is inside" if names == ["lo"] else f"made; inside: {', '.join(names)}"


def user_namespace() -> str:
    """As an ordinary user would; the namespace must give its capabilities (Ubuntu's AppArmor may take them)."""
    if os.geteuid() == 0 and is_initial_root():
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl.set_dumpable(True)
    uid, gid = os.geteuid(), os.getegid()
    try:
        clone.unshare(CloneFlags.NEWUSER)
        clone.map_own_ids(0, uid, 0, gid)
        clone.unshare(CloneFlags.NEWNS)
    except OSError as error:
        raise _user_namespace_refusal(error) from error
    return "ordinary users can make one"


def _user_namespace_refusal(error: OSError) -> Exception:
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return Needs("kernel.apparmor_restrict_unprivileged_userns=1", APPARMOR)
    if sysctl("kernel/unprivileged_userns_clone") == "0":
        return Needs("kernel.unprivileged_userns_clone=0", "sysctl -w kernel.unprivileged_userns_clone=1")
    if sysctl("user/max_user_namespaces") == "0":
        return Needs("user.max_user_namespaces=0", "sysctl -w user.max_user_namespaces=15000")
    return error
