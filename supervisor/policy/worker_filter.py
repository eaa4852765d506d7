"""The system calls that a confined worker has left: memory, its socket, descriptors that it was given, its end.

No file is opened, no socket made, nothing run, no process or thread started. What is missing fails with EPERM, so that
a library that merely tries something (isatty, a clock) goes on.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Final

from supervisor.seccomp_program import RET_ALLOW, SeccompProgram, check_machine, ret_errno

CALLS: Final[tuple[str, ...]] = (
    # memory: the interpreter and the engine
    *("brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "futex", "membarrier"),
    # its socket, and a body in a memfd
    *("recvmsg", "sendmsg", "read", "pread64", "write", "lseek", "fstat", "fcntl", "close", "poll", "ppoll"),
    # time and chance: hash seeds of maps; getpid by the interpreter
    *("clock_gettime", "getrandom", "getpid", "gettid", "sched_yield", "restart_syscall"),
    # signals and the end
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "exit", "exit_group"),
)
_PROT_EXEC: Final = 4


def compile_calls(calls: Sequence[str], machine: str = "") -> bytes:
    """Return the program that allows *calls* on this machine, an array of struct sock_filter.

    Raises:
        LayerMissingError: No libseccomp, or a machine without a reviewed list.
    """
    check_machine(machine or platform.machine())
    program = SeccompProgram(ret_errno("EPERM"), {})
    for name in calls:
        if name in ("mmap", "mprotect"):  # no memory that code could be written to and run from
            program.add(name, RET_ALLOW, ((2, _PROT_EXEC, 0),))
        else:
            program.add(name, RET_ALLOW)
    return program.export()
