"""capabilities(7): read them, and empty all five sets."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

from supervisor.linux.libc import syscall
from supervisor.linux.prctl import PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_CAPBSET_DROP, prctl

LINUX_CAPABILITY_VERSION_3: Final = 0x20080522
# 0 (CAP_CHOWN) to 40 (CAP_CHECKPOINT_RESTORE); a newer kernel's are dropped too, an older one's answer EINVAL.
CAP_LAST: Final = 63


class CapHeader(ctypes.Structure):
    """struct __user_cap_header_struct, linux/capability.h."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapData(ctypes.Structure):
    """struct __user_cap_data_struct, linux/capability.h."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop_bounding() -> None:
    """Empty the bounding set; needs CAP_SETPCAP, so it comes before the user id changes.

    Raises:
        OSError: EPERM without CAP_SETPCAP.
    """
    for cap in range(CAP_LAST + 1):
        try:
            prctl(PR_CAPBSET_DROP, cap)
        except OSError as error:
            if error.errno == errno.EINVAL:  # beyond this kernel's last
                return
            raise


def drop_all() -> None:
    """Empty the effective, permitted, inheritable and ambient sets of this thread."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = CapHeader(LINUX_CAPABILITY_VERSION_3, 0)
    data = (CapData * 2)()
    syscall("capset", ctypes.byref(header), ctypes.byref(data))


def read_sets(pid: int | str = "self") -> dict[str, int]:
    """Return CapInh, CapPrm, CapEff, CapBnd and CapAmb of a process, from /proc/PID/status."""
    fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, 65536).decode().splitlines()
    finally:
        os.close(fd)
    pairs = (line.split(":", 1) for line in lines if line.startswith("Cap"))
    return {name: int(value, 16) for name, value in pairs}
