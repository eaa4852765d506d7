"""A seccomp program under construction: libseccomp's answer as bytes that `linux.seccomp.load_filter` installs.

For every list of system calls there is (sandboxes, workers). Compiled in the daemon, never in what it confines.

Source: seccomp(2), libseccomp 2.5 (seccomp_rule_add(3), seccomp_export_bpf(3)).
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, Final

from supervisor.errors import LayerMissingError, UsageError

RET_ALLOW: Final = 0x7FFF0000
MACHINES: Final = ("x86_64", "aarch64")

_UNKNOWN_CALL: Final = -1  # __NR_SCMP_ERROR; other negative numbers are calls that this machine does not have
_BINARY_TREE: Final = 2


def check_machine(machine: str) -> None:
    """Refuse a machine that the lists were not reviewed for.

    Raises:
        LayerMissingError: *machine*, a `platform.machine()`, is no known one.
    """
    if machine not in MACHINES:
        raise LayerMissingError(
            f"seccomp: no reviewed list of system calls for {machine}, only for {' and '.join(MACHINES)}"
        )


def ret_errno(errno_name: str) -> int:
    """Return SECCOMP_RET_ERRNO with that errno."""
    number: int = getattr(errno, errno_name)
    return 0x00050000 | number


class SeccompProgram:
    """One libseccomp filter; foreign architectures are killed.

    Args:
        default_action: What happens to a call without a rule.
        numbers: Calls that an older libseccomp does not know by name.
    """

    def __init__(self, default_action: int, numbers: Mapping[str, int]) -> None:
        self.seccomp = _library()
        self._numbers = numbers
        self._filter = self.seccomp.SyscallFilter(default_action)
        self._default = default_action
        self._filter.set_attr(self.seccomp.Attr.ACT_BADARCH, self.seccomp.KILL_PROCESS)
        self._filter.set_attr(self.seccomp.Attr.CTL_OPTIMIZE, _BINARY_TREE)

    def add(self, name: str, action: int, conditions: Iterable[tuple[int, int, int]] = ()) -> None:
        """Add one rule; conditions are (argument, mask, value).

        Raises:
            UsageError: There is no such call.
        """
        number = self._resolve(name)
        if number < 0 or action == self._default:
            return
        seccomp = self.seccomp
        compared = [seccomp.Arg(arg, seccomp.MASKED_EQ, mask, value) for arg, mask, value in conditions]
        self._filter.add_rule(action, number, *compared)

    def export(self) -> bytes:
        """Return the program, an array of struct sock_filter."""
        with tempfile.TemporaryFile() as file:
            self._filter.export_bpf(file)
            file.seek(0)
            return file.read()

    def _resolve(self, name: str) -> int:
        number: int = self.seccomp.resolve_syscall(self.seccomp.Arch.NATIVE, name)
        if number != _UNKNOWN_CALL:
            return number
        if name in self._numbers:
            return self._numbers[name]
        raise UsageError(
            f"seccomp: no system call is called {name!r}", "the names are in sandbox_profiles/seccomp.yaml"
        )


def _library() -> Any:
    """Import pyseccomp late: it loads libseccomp, which `profile list` does not need."""
    try:
        import pyseccomp  # type: ignore[import-untyped]
    except (ImportError, RuntimeError) as error:
        raise LayerMissingError(f"seccomp: libseccomp is not usable: {error}", "apt install libseccomp2") from error
    return pyseccomp
