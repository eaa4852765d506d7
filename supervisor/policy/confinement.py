"""What workers give up before they see anything hostile: files, rights, memory without end, system calls."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from typing import Final

from supervisor.linux import landlock, prctl, seccomp

_MEMORY_BYTES: Final = 512 << 20
# RLIMIT_CORE 1: at 0 the kernel still runs a piped core handler (core(5)).
_LIMITS: Final = ((resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 1))


def confine(program: bytes, limits: Iterable[tuple[int, int]]) -> int:
    """Confine this process for good; returns the Landlock ABI, 0 without Landlock.

    Args:
        program: The seccomp filter, an array of struct sock_filter.
        limits: Resource limits beside those of every worker; one that is lower already stays.

    Raises:
        OSError, ValueError: The kernel refuses the filter; nothing may be served then.
    """
    prctl.set_dumpable(False)
    prctl.set_no_new_privs()
    for which, limit in (*_LIMITS, *limits):
        hard = resource.getrlimit(which)[1]
        lowest = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (lowest, lowest))
    abi = landlock.abi_version()
    if abi:
        ruleset = landlock.create_ruleset(abi)
        landlock.restrict_self(ruleset)
        os.close(ruleset)
    seccomp.load_filter(program)
    return abi
