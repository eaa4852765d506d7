"""Mounts into a running sandbox: what the launcher's child does between a grant and the agent's first look.

Sources are cloned, and overlays made, in the launcher's mount namespace and a private copy of it; only the finished,
detached mount enters the session. What is answered names each mount by id and device, so that it can be found again
wherever the agent has moved it. Standard library only.
"""

from __future__ import annotations

import os
import socket
from typing import Any, NoReturn

from supervisor.errors import DeskwardenError, LaunchError, to_wire
from supervisor.linux import mount, mountinfo, seqpacket, statx
from supervisor.linux.clone import CloneFlags, unshare
from supervisor.linux.mount import umount2
from supervisor.linux.ustat import device_of
from supervisor.sandbox import child, confine
from supervisor.sandbox.live_tree import LiveTree, enter
from supervisor.sandbox.operations import Bind, Context, MakeRoot, Overlay


def start_grant(sock: socket.socket, target_pidfd: int) -> NoReturn:
    """Attach what the plan on *sock* shows in the sandbox of *target_pidfd*; answers with the mounts.

    Nothing of the mounts is held any more when the answer goes out: it would look like a holder.
    """

    def body() -> None:
        child.reset({sock.fileno(), target_pidfd})
        plan, fds = child.receive_plan(sock)
        operations = confine.check_live(plan, fds)
        context = Context(fds)
        child.acquire(list(operations), context)
        proc_fd = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # A tree of its own, in case layers have to be attached: nobody else is to see that.
        unshare(CloneFlags.NEWNS)
        MakeRoot().execute(context)
        made = [(operation, _make(operation, context)) for operation in operations]
        seqpacket.close_all(list(fds.values()))
        enter(target_pidfd, proc_fd)
        answer = _attach_all(made, proc_fd, context)
        seqpacket.send_json(sock, answer)

    child.run_guarded(sock, body)


def _make(operation: Bind | Overlay, context: Context) -> int:
    try:
        return operation.mount_detached(context)
    except OSError as error:
        raise LaunchError(operation.describe(), error.errno or 0, str(error.strerror or "")) from error


def _attach_all(made: list[tuple[Bind | Overlay, int]], proc_fd: int, context: Context) -> dict[str, Any]:
    """Attach in the plan's order. When one fails, those before it are taken back; the answer has which could not be."""
    mounted: list[dict[str, Any]] = []
    try:
        for operation, fd in made:
            mounted.append(_attach(operation, fd, proc_fd))
    except (OSError, DeskwardenError) as error:
        for _operation, fd in made[len(mounted) + 1 :]:
            os.close(fd)
        left = [entry for entry in reversed(mounted) if not _take_back(entry, proc_fd)]
        if isinstance(error, OSError):
            step = made[len(mounted)][0].describe()
            error = LaunchError(step, error.errno or 0, str(error.strerror or ""))
        return {"event": "error", "error": to_wire(error), "mounted": left}
    active = {entry.mount_id: entry for entry in mountinfo.read_at(proc_fd)}
    for (operation, _fd), entry in zip(made, mounted, strict=True):
        if isinstance(operation, Overlay):
            operation.read_back(context, active.get(entry["id"]))
    return {"event": "prepared", "mounted": mounted, "findings": context.findings}


def _attach(operation: Bind | Overlay, fd: int, proc_fd: int) -> dict[str, Any]:
    """Attach *fd*, and close it with all that was opened to find its place."""
    # Anew for each: what the last one covered must not be looked at from before.
    tree = LiveTree(proc_fd)
    try:
        place = tree.target(operation.path, os.path.isdir(fd))
        try:
            mount.move_mount(fd, place)
        finally:
            os.close(place)
        staged = isinstance(operation, Overlay) and operation.stage is not None
        return {"path": operation.path, "id": statx.mount_id(fd), "device": list(device_of(fd)), "staged": staged}
    finally:
        tree.close()
        os.close(fd)


def _take_back(entry: dict[str, Any], proc_fd: int) -> bool:
    """Unmount what was attached a moment ago; returns whether it is gone."""
    found = mountinfo.read_at(proc_fd, frozenset({entry["id"]}))
    try:
        for one in found:
            umount2(one.mount_point, mount.UMOUNT_NOFOLLOW)
    except OSError:
        return False
    return True
