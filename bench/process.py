"""Start a program and time it, from spawn to reaped, with nothing of Python's in between."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence


class FailedError(RuntimeError):
    """A candidate did not do what it is timed for."""


def time_ms(
    argv: Sequence[str], environment: Mapping[str, str], fds: Mapping[int, int] | None = None, expected: int = 0
) -> float:
    """Run *argv* (an absolute path first) with /dev/null as 0–2; returns milliseconds from spawn to wait.

    Args:
        fds: Descriptor in the child → descriptor here; files among them are read from their start.
        expected: The exit code without which the figure would be of something else.

    Raises:
        FailedError: It ended otherwise.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        actions: list[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, null, number) for number in range(3)]
        for number, fd in (fds or {}).items():
            os.lseek(fd, 0, os.SEEK_SET)
            actions.append((os.POSIX_SPAWN_DUP2, fd, number))
        start = time.perf_counter_ns()
        pid = os.posix_spawn(argv[0], list(argv), environment, file_actions=actions)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        elapsed_ns = time.perf_counter_ns() - start
    finally:
        os.close(null)
    if status != expected:
        raise FailedError(f"{' '.join(argv[:6])} …: got exit code {status}, expected {expected}")
    return elapsed_ns / 1e6
