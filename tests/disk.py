"""A service whose state lies on a small disk of its own, in a mount namespace that nobody else is in."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

from supervisor.sandbox.machine import kernel_version
from tests.service import CHECKOUT, Service

# On what a service can keep its state: an ordinary user mounts no disk; root's agents have a uid of their own, and a
# tmpfs maps uids from Linux 6.3 on.
STATE_KINDS: Final = (
    ("tmpfs",)
    if os.geteuid() != 0
    else ("tmpfs", "ext4")
    if kernel_version(os.uname().release) >= (6, 3)
    else ("ext4",)
)
# Mounts, says so, and stays: the namespace lives as long as it does. Not mount(8), which wants uid 0.
_HOLD: Final = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
for kind, source, point, options in eval(sys.argv[1]):
    if libc.mount(source.encode(), point.encode(), kind.encode(), 0, options.encode()):
        sys.exit(f"mount {point}: errno {ctypes.get_errno()}")
print("mounted", flush=True)
sys.stdin.read()
"""


class SmallDisk(Service):
    """A service with its state on a tmpfs of *size_mib*, or on the ext4 of a loop device (as root).

    Args:
        own_etc: The daemon sees a writable copy of /etc (as root).
    """

    def __init__(self, size_mib: int, kind: str = "tmpfs", own_etc: bool = False) -> None:
        super().__init__(daemon=False)
        os.makedirs(self.state, mode=0o700)
        self._loop = self._make_ext4(size_mib) if kind == "ext4" else ""
        disk = (kind, self._loop or "none", self.state, "" if self._loop else f"size={size_mib}m,mode=700")
        disks = [disk, self._make_etc()] if own_etc else [disk]
        user = [] if self.is_system else ["--user", "--map-current-user", "--keep-caps"]
        self._holder = subprocess.Popen(
            [
                *("unshare", *user, "--mount", "--propagation", "private"),
                *("/usr/bin/python3", "-I", "-c", _HOLD, repr(disks)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"mounted\n"
        into = ["--mount"] if self.is_system else ["--user", "--mount", "--preserve-credentials"]
        self.prefix = ("nsenter", f"--target={self._holder.pid}", *into, f"--wd={CHECKOUT}", "--")
        self.start()

    def _make_etc(self) -> tuple[str, str, str, str]:
        upper, work = self.folder("upper"), self.folder("work")
        return "overlay", "none", "/etc", f"lowerdir=/etc,upperdir={upper},workdir={work}"

    def _make_ext4(self, size_mib: int) -> str:
        image = f"{self.base}/state.img"
        with open(image, "wb") as file:
            file.truncate(size_mib << 20)
        subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
        made = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True)
        return made.stdout.decode().strip()

    @property
    def holder_pid(self) -> int:
        """The process whose root is what the daemon sees."""
        return self._holder.pid

    @property
    def disk(self) -> Path:
        """The disk, as seen from here."""
        return Path(f"/proc/{self._holder.pid}/root{self.state}")

    def free_kib(self) -> int:
        """Return what its owner may still write to it."""
        status: Any = os.statvfs(self.disk)
        return int(status.f_bavail * status.f_frsize) >> 10

    def kill_daemon(self) -> None:
        """End the daemon without a word, and wait until its launcher is gone too."""
        self.signal_daemon(signal.SIGKILL)
        self.wait_daemon()
        self.stop()

    def close(self) -> None:
        """End everything; with its last process the namespace and its mounts go."""
        self.tidy()
        self.stop()
        self._holder.communicate()
        if self._loop:
            subprocess.run(["losetup", "--detach", self._loop], check=True)
        super().close()
