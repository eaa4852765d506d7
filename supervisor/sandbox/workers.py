"""The workers: programs that compute on hostile values for the daemon, with nothing in reach but their socket.

Forked from the launcher like a hand, since an exec would have to find the interpreter again. A worker imports its
program first (third-party code is found in the directories that the launcher's starter named, in this child only);
then everything goes: files, network, ids, capabilities. What it imports later is not there any more, such as a codec
on first use. The program limits itself further, knowing what it needs.
Standard library only.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from collections.abc import Mapping
from typing import Final, NoReturn

from supervisor.errors import RefusedError
from supervisor.linux import caps, mount, prctl
from supervisor.linux.clone import CloneFlags
from supervisor.linux.mount import MountAttr
from supervisor.sandbox import child
from supervisor.sandbox.confine import AGENT_UID_FIRST, AGENT_UID_LAST, die_with_launcher
from supervisor.sandbox.operations import Context, MakeRoot, Pivot

# What the daemon may name; each module has ``main(fd)``, which serves on the socket until it is hung up.
PROGRAMS: Final[Mapping[str, str]] = {
    "policy": "supervisor.policy.worker",
    "classifier": "supervisor.policy.classifier",
}
# CLONE_* of a worker.
NAMESPACES: Final = CloneFlags.NEWNET | CloneFlags.NEWIPC | CloneFlags.NEWNS
_NAME_BYTES: Final = 15


def site_directories() -> tuple[str, ...]:
    """Return where this program itself finds third-party packages: its start script or its interpreter said so."""
    return tuple(path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages"))


def check_uid(uid: object, rootless: bool) -> int:
    """Return the uid that a worker becomes: one of the agents' pool, or with rootless the caller's own.

    Raises:
        RefusedError: Another one; a worker is nobody who has files or processes.
    """
    if rootless:
        return os.geteuid()
    if type(uid) is not int or not AGENT_UID_FIRST <= uid <= AGENT_UID_LAST:
        raise RefusedError(f"launcher: no worker as uid {uid!r}: want one of the agents' pool")
    return uid


def start_worker(
    sock: socket.socket, name: str, module: str, site: tuple[str, ...], uid: int, lifeline: int, rootless: bool
) -> NoReturn:
    """Turn this child, in `NAMESPACES` of its own, into the worker *name*; returns never."""

    def body() -> None:
        child.reset({sock.fileno(), lifeline})
        os.environ |= {"LANG": "C.UTF-8"}
        sys.path.extend(site)
        program = importlib.import_module(module)
        _leave_all_files()
        caps.drop_bounding()
        if not rootless:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        caps.drop_all()
        prctl.set_no_new_privs()
        prctl.set_dumpable(False)
        prctl.set_name(f"deskwarden-{name}"[:_NAME_BYTES])
        die_with_launcher(lifeline)
        gc.enable()
        # A second descriptor: what the program dies of is said on the first.
        program.main(os.dup(sock.fileno()))

    child.run_guarded(sock, body)


def _leave_all_files() -> None:
    """Make an empty, read-only root the root; the old one goes."""
    context = Context({})
    MakeRoot(size_bytes=4096).execute(context)
    Pivot().execute(context)
    mount.mount_setattr(context.root.root_fd, MountAttr.RDONLY | MountAttr.NOEXEC)
    os.close(context.root.root_fd)
