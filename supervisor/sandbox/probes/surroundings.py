"""Probes of watching, the network, the TPM, and of the programs that a sandbox needs. Standard library only."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

from supervisor.linux import netlink
from supervisor.linux.clone import CloneFlags
from supervisor.linux.libc import check, libc
from supervisor.sandbox.machine import is_initial_root
from supervisor.sandbox.probes.outcome import AS_ROOT, TIMEOUT_S, Absent, Needs, expect
from supervisor.sandbox.probes.place import enter, in_grandchild, mount_overlay, scratch

INIT_PROGRAMS: Final = ("tini-static", "catatonit", "dumb-init", "tini")
PROGRAM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec/podman"

_FAN_FID_NAME: Final = 0x1 | 0x2 | 0x80 | 0x200 | 0x400 | 0x800 | 0x1000  # CLOEXEC NONBLOCK PIDFD FID DIR NAME TARGET
_FAN_MARK_FILESYSTEM: Final = 0x1 | 0x100
_FAN_CREATE: Final = 0x100


def fanotify_mark() -> str:
    if not is_initial_root():
        raise Needs("a mark on a whole file system needs root", AS_ROOT)
    merged, _ = mount_overlay()
    group = check(libc.fanotify_init(ctypes.c_uint(_FAN_FID_NAME), ctypes.c_uint(os.O_RDONLY)), "fanotify_init")
    mask = ctypes.c_uint64(_FAN_CREATE)
    place = ctypes.c_char_p(os.fsencode(merged))
    marked = libc.fanotify_mark(ctypes.c_int(group), ctypes.c_uint(_FAN_MARK_FILESYSTEM), mask, -100, place)
    check(marked, "fanotify_mark", merged)
    Path(merged, "seen").touch()
    expect(b"seen" in os.read(group, 4096), "the event has no name")
    return "an overlay's create event with name and pidfd"


def inotify() -> str:
    place = scratch()
    fd = check(libc.inotify_init1(ctypes.c_int(os.O_CLOEXEC | os.O_NONBLOCK)), "inotify_init1")
    check(
        libc.inotify_add_watch(ctypes.c_int(fd), ctypes.c_char_p(os.fsencode(place)), ctypes.c_uint32(0x100)), "watch"
    )
    Path(place, "seen").touch()
    expect(b"seen" in os.read(fd, 4096), "the event has no name")
    return "a create event with its name"


_RULES: Final = """
table inet probe {
  chain out {
    type nat hook output priority -100
    meta l4proto tcp redirect to :9
  }
  chain refuse {
    type filter hook output priority -150
    tcp flags & (syn | ack) == syn tcp dport 1 reject with tcp reset
  }
}
"""


def nftables() -> str:
    nft = shutil.which("nft", path=PROGRAM_PATH)
    if nft is None:
        raise Needs("the program nft is missing", "apt install nftables")
    enter(CloneFlags.NEWNET)
    netlink.set_loopback_up()
    run = subprocess.run([nft, "-f", "-"], input=_RULES.encode(), capture_output=True, check=False, timeout=TIMEOUT_S)
    if run.returncode:
        text = (run.stderr.decode(errors="replace").strip() or f"nft ended with {run.returncode}").splitlines()[0]
        raise Needs(text[:200], "modprobe -a nf_tables nft_redir nft_chain_nat nft_reject_inet")
    return "a redirect and a reset rule were loaded"


def tpm() -> str:
    for device in ("/dev/tpmrm0", "/dev/tpm0"):
        if os.path.exists(device):
            try:
                os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
            except PermissionError as error:
                raise Needs(f"{device} may not be opened", "add the service's user to the group tss") from error
            return device
    emulator = " (swtpm, the emulator for tests, is installed)" if shutil.which("swtpm", path=PROGRAM_PATH) else ""
    raise Absent(f"no /dev/tpmrm0{emulator}")


def init() -> str:
    """Run the program as PID 1 of a pid namespace, as sessions do."""
    found = find_init()
    if found is None:
        raise Needs(f"none of {', '.join(INIT_PROGRAMS)} is installed")
    enter(CloneFlags.NEWPID)

    def body() -> None:
        # The exec keeps PID 1; its exit status is true's.
        os.execv(found, [found, "--", "/bin/true"])

    in_grandchild(body)
    return f"{found}{'' if is_static(found) else ' (dynamically linked)'}"


def find_init() -> str | None:
    """Return the path of the first init program that is installed, in the order of `INIT_PROGRAMS`."""
    found = (shutil.which(name, path=PROGRAM_PATH) for name in INIT_PROGRAMS)
    return next((path for path in found if path), None)


def is_static(path: str) -> bool:
    """Return whether the 64-bit ELF program at *path* names no loader (PT_INTERP, elf(5))."""
    with open(path, "rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return False
        offset, size, count = struct.unpack_from("<Q", header, 32)[0], *struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
    return all(struct.unpack_from("<I", table, index * size)[0] != 3 for index in range(count))
