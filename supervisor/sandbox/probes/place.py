"""Where probes try things: namespaces, a tmpfs, an overlay, all of which vanish with the probe's process.

Standard library only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from supervisor.linux import clone, mount
from supervisor.linux.clone import CloneFlags
from supervisor.sandbox.machine import is_initial_root
from supervisor.sandbox.probes.outcome import Absent

SYSTEM_OVERLAY: Final = {"index": "on", "nfs_export": "on", "redirect_dir": "on", "metacopy": "off", "xino": "on"}
SPARE_UID: Final = 61_234
NOBODY: Final = 65_534


def enter(flags: int) -> None:
    """Enter new namespaces, through a user namespace of our own when we may not otherwise."""
    try:
        clone.unshare(flags)
    except PermissionError:
        uid, gid = os.geteuid(), os.getegid()
        clone.unshare(CloneFlags.NEWUSER | flags)
        clone.map_own_ids(0, uid, 0, gid)


def scratch(size: str = "16m") -> str:
    """Mount a private tmpfs over the temporary directory of this child alone; returns its path."""
    place = tempfile.gettempdir()
    enter(CloneFlags.NEWNS)
    mount.set_propagation("/", mount.MS_REC | mount.MS_PRIVATE)
    fd = mount.new_mount("tmpfs", {"size": size, "mode": "0700"})
    mount.move_mount(fd, mount.AT_FDCWD, place)
    os.close(fd)
    return place


def mount_overlay(tree: int | None = None) -> tuple[str, str]:
    """Mount an overlay in the scratch place as sessions do, over the detached *tree* if given; (merged, lower)."""
    place = scratch()
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{place}/{name}")
    # Another file system than the upper's, else the kernel needs no xino and does not show it.
    fd = mount.new_mount("tmpfs", {"size": "1m"})
    if tree is None:
        Path(f"/proc/self/fd/{fd}/old").write_text("lower")
    # Attached, since an overlay takes no detached layer before Linux 6.15.
    mount.move_mount(fd if tree is None else tree, mount.AT_FDCWD, f"{place}/lower")
    os.close(fd)
    options: dict[str, str | bytes | None] = {
        "lowerdir": f"{place}/lower",
        "upperdir": f"{place}/upper",
        "workdir": f"{place}/work",
    }
    options |= SYSTEM_OVERLAY if is_initial_root() else {"userxattr": None}
    fd = mount.new_mount("overlay", options)
    mount.move_mount(fd, mount.AT_FDCWD, f"{place}/merged")
    os.close(fd)
    return f"{place}/merged", f"{place}/lower"


def in_grandchild(body: Callable[[], None]) -> None:
    """Run *body* in a fork (PID 1 after unshare of the pid namespace); its OSError is raised here."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            body()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 255 or code < 0:
        raise Absent(f"it does not hold (exit {code})")
    if code:
        raise OSError(code, os.strerror(code))
