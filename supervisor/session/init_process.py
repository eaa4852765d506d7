"""The first process of a sandbox, before it listens: a signal that comes too early is lost to it."""

from __future__ import annotations

import asyncio
from typing import Final

# From its exec to its first fork an init needs a millisecond; a busy machine may take longer.
_LOOK_S: Final = 0.005
_LOOKS: Final = 400


async def wait_listening(pid: int) -> None:
    """Wait until PID 1 has started the agent; at most two seconds, and not when it is gone.

    Until then the kernel drops signals: the first process of a pid namespace has no default actions
    (pid_namespaces(7)). Every init takes its signals over before it forks.
    """
    for _ in range(_LOOKS):
        if has_started(pid):
            return
        await asyncio.sleep(_LOOK_S)


def has_started(pid: int) -> bool:
    """Return whether the process has a child (proc_pid_task_children(5)), or is gone."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return bool(file.read())
    except OSError:
        return True
