"""Probes of control groups. Their directories are the only thing outside of namespaces; removed by name.

Standard library only.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from supervisor.linux import cgroup, clone
from supervisor.sandbox.probes.outcome import Absent, Needs, expect


def _cgroup_name(pid: int) -> str:
    return f"deskwarden-probe-{pid}"


def _cgroup_parent() -> str:
    root = cgroup.hierarchy()
    if root is None:
        raise Needs("no version 2 hierarchy is mounted")
    own = cgroup.own_group()
    parent = root if own == "/" else root + own
    if not os.path.isdir(parent):
        raise Needs(f"the own group {own} is not visible below {root}")
    return parent


def remove_cgroup(pid: int) -> None:
    with suppress(OSError, Needs):
        path = f"{_cgroup_parent()}/{_cgroup_name(pid)}"
        for _ in range(50):
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    return
                time.sleep(0.01)


@contextmanager
def _cgroup_with_process() -> Iterator[tuple[int, int, int]]:
    """Make a group with one sleeping process in it; yields (directory, pid, pidfd). The prober removes the group."""
    parent = _cgroup_parent()
    path = f"{parent}/{_cgroup_name(os.getpid())}"
    try:
        os.mkdir(path)
    except PermissionError as error:
        raise Needs(f"{parent} is not delegated to uid {os.geteuid()}") from error
    directory = cgroup.open_dir(path)
    try:
        pid, pidfd = clone.clone3(0, directory)
    except PermissionError as error:
        raise Needs(f"no process may be started in {parent}") from error
    if pid == 0:
        try:
            signal.pause()
        finally:
            os._exit(0)
    try:
        yield directory, pid, pidfd
    finally:
        with suppress(OSError):
            cgroup.set_frozen(directory, False)
        with suppress(OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        with suppress(OSError):
            os.waitpid(pid, 0)


def cgroup_kill() -> str:
    with _cgroup_with_process() as (directory, pid, _):
        try:
            cgroup.kill(directory)
        except FileNotFoundError as error:
            raise Absent("no cgroup.kill") from error
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        expect(code == -signal.SIGKILL, "the process in the group lives on")
    return "a process in a group was killed"


def cgroup_freeze() -> str:
    with _cgroup_with_process() as (directory, _, _):
        try:
            expect(cgroup.set_frozen(directory, True), "the group does not freeze")
        except FileNotFoundError as error:
            raise Absent("no cgroup.freeze") from error
    return "a group was frozen and thawed"


def cgroup_limits() -> str:
    with _cgroup_with_process() as (directory, _, _):
        usable = {name for name in ("memory", "pids") if _has(directory, f"{name}.max")}
        if usable == {"memory", "pids"}:
            cgroup.set_limit(directory, "pids.max", "64")
            cgroup.set_limit(directory, "memory.max", str(256 << 20))
            return "memory, pids"
        parent = _cgroup_parent()
        offered = set(Path(parent, "cgroup.controllers").read_text().split())
    if {"memory", "pids"} <= offered:
        raise Needs(
            f"memory and pids are not enabled for the groups in {parent}",
            f"echo '+memory +pids' > {parent}/cgroup.subtree_control, or Delegate=yes in the unit",
        )
    there = " ".join(sorted(offered)) or "nothing"
    raise Needs(f"{parent} offers {there} to its groups, not memory and pids")


def _has(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True
