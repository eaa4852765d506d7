"""Probes of Landlock, one for each level of its ABI that brings something. Standard library only."""

from __future__ import annotations

import ctypes
import os

from supervisor.linux import landlock, prctl
from supervisor.linux.libc import syscall
from supervisor.sandbox.probes.outcome import Absent, Needs, Probe, expect


def landlock_works() -> str:
    abi = landlock.abi_version()
    if not abi:
        raise Needs("not built in, or switched off at boot")
    ruleset = landlock.create_ruleset(abi)
    usr = landlock.open_path("/usr")
    landlock.allow_beneath(ruleset, usr, landlock.READ, abi)
    prctl.set_no_new_privs()
    landlock.restrict_self(ruleset)
    os.listdir("/usr")
    try:
        os.listdir("/etc")
    except PermissionError:
        return f"ABI {abi}"
    raise Absent("a ruleset that allows /usr alone leaves /etc open")


def landlock_abi(wanted: int, fs: int = 0, net: int = 0, scoped: int = 0) -> Probe:
    def action() -> str:
        abi = landlock.abi_version()
        if not abi:
            raise Needs("not built in, or switched off at boot")
        expect(abi >= wanted, f"ABI {abi}, needs {wanted}")
        attr = landlock.RulesetAttr(fs or int(landlock.AccessFs.READ_FILE), net, scoped)
        size = ctypes.c_size_t(24 if scoped else 16 if net else 8)
        ruleset = syscall("landlock_create_ruleset", ctypes.byref(attr), size, ctypes.c_uint(0))
        prctl.set_no_new_privs()
        flags = 1 if wanted >= 7 else 0  # LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF
        syscall("landlock_restrict_self", ctypes.c_int(ruleset), ctypes.c_uint(flags))
        return f"ABI {abi}"

    return action
