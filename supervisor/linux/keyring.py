"""keyctl(2): a session keyring of one's own."""

from __future__ import annotations

import ctypes
from typing import Final

from supervisor.linux.libc import syscall

KEYCTL_JOIN_SESSION_KEYRING: Final = 1


def join_new_session_keyring() -> int:
    """Replace the session keyring by a new, empty, anonymous one; returns its serial number."""
    return syscall(
        "keyctl",
        ctypes.c_int(KEYCTL_JOIN_SESSION_KEYRING),
        ctypes.c_char_p(None),
        ctypes.c_ulong(0),
        ctypes.c_ulong(0),
        ctypes.c_ulong(0),
    )
