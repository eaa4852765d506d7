"""execveat(2): run a program by descriptor, so that no path is looked up again."""

from __future__ import annotations

import ctypes
from typing import NoReturn

from supervisor.linux.libc import encode, syscall
from supervisor.linux.mount import AT_EMPTY_PATH


def fexecve(fd: int, argv: list[bytes], environment: list[bytes]) -> NoReturn:
    """Replace this process by the program behind *fd*; *environment* as ``K=V``.

    Raises:
        OSError: ENOENT for a script whose descriptor is close-on-exec, EACCES, ENOEXEC, ….
    """
    arg_array = (ctypes.c_char_p * (len(argv) + 1))(*[encode(arg) for arg in argv], None)
    env_array = (ctypes.c_char_p * (len(environment) + 1))(*[encode(item) for item in environment], None)
    syscall("execveat", ctypes.c_int(fd), ctypes.c_char_p(b""), arg_array, env_array, ctypes.c_int(AT_EMPTY_PATH))
    raise AssertionError("execveat returned without an error")
