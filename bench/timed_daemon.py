"""deskwardend as it is, which also writes how long a session took from its plan to its end.

``python -IS -c "…; from bench.timed_daemon import main; main(stamps_fd, [deskwardend's arguments])"``. One JSON line a
session goes to a file: ``{"id", "launch_ms"}``; the first has ``plan`` too, as the launcher's child reads it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, ClassVar

from supervisor.daemon import main as daemon
from supervisor.sandbox.plan import Plan
from supervisor.session import launch
from supervisor.session.launcher_client import ExitListener, LauncherClient


class TimedLauncherClient(LauncherClient):
    """Takes the time from when a plan is ready to the event of its session's end."""

    stamps_fd = -1
    started_ns: ClassVar[dict[str, int]] = {}

    def __init__(self, *args: Any, **fields: Any) -> None:
        self._listener: ExitListener = lambda _event: None
        super().__init__(*args, **fields)

    @property
    def on_exit(self) -> ExitListener:
        """Who hears of an end, after it was noted."""
        return self._note_exit

    @on_exit.setter
    def on_exit(self, listener: ExitListener) -> None:
        self._listener = listener

    def _note_exit(self, event: dict[str, Any]) -> None:
        now_ns = time.perf_counter_ns()
        self._listener(event)
        started_ns = self.started_ns.pop(event.get("id", ""), None) if event["kind"] == "session" else None
        if started_ns is not None:
            stamp = {"id": event["id"], "launch_ms": (now_ns - started_ns) / 1e6}
            os.write(self.stamps_fd, json.dumps(stamp | _first_plan(event["id"])).encode() + b"\n")


_plans: dict[str, Any] = {}


def _first_plan(session: str) -> dict[str, Any]:
    """Return the plan with the first stamp only: later launches are timed."""
    if not _plans or "shown" in _plans:
        return {}
    _plans["shown"] = session
    return {"plan": _plans.pop("plan")}


def _keep_first_plan() -> None:
    original = Plan.to_json

    def to_json(plan: Plan) -> dict[str, Any]:
        value = original(plan)
        if not _plans:
            _plans["plan"] = value | plan.base_json()
        return value

    vars_of_plan: Any = Plan
    vars_of_plan.to_json = to_json


def _note_starts() -> None:
    original = launch.carry_out

    async def carry_out(launcher: LauncherClient, session_id: str, *args: Any) -> launch.Started:
        TimedLauncherClient.started_ns[session_id] = time.perf_counter_ns()
        return await original(launcher, session_id, *args)

    vars(launch)["carry_out"] = carry_out


def main(stamps_fd: int, arguments: list[str]) -> None:
    """Run the daemon, timed."""
    os.set_inheritable(stamps_fd, False)
    TimedLauncherClient.stamps_fd = stamps_fd
    _keep_first_plan()
    _note_starts()
    vars(daemon)["LauncherClient"] = TimedLauncherClient
    sys.exit(daemon.main(arguments))
