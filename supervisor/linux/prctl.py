"""prctl(2): the per-process switches that a sandboxed child needs."""

from __future__ import annotations

import ctypes
from typing import Final

from supervisor.linux.libc import check, libc

PR_SET_PDEATHSIG: Final = 1
PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Call prctl with integer arguments."""
    return check(libc.prctl(option, *(ctypes.c_ulong(arg) for arg in (arg2, arg3, arg4, arg5))), f"prctl {option}")


def set_pdeathsig(signal_number: int) -> None:
    """Ask for *signal_number* when the parent thread dies. Cleared by setresuid: call it after."""
    prctl(PR_SET_PDEATHSIG, signal_number)


def set_no_new_privs() -> None:
    """Set no_new_privs: no exec ever adds privilege again."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_name(name: str) -> None:
    """Set the name that ps shows, at most 15 bytes."""
    check(libc.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0), "prctl PR_SET_NAME")


def set_dumpable(dumpable: bool) -> None:
    """Set the dumpable flag; it also decides who owns /proc/self."""
    prctl(PR_SET_DUMPABLE, int(dumpable))
