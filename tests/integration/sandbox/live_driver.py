"""Drive grants into running sandboxes: a program, so that rootless can enter its own namespaces.

``python live_driver.py STORE WORKSPACE PROFILE`` reads requests (one JSON a line) from standard input and answers in
kind, ``{"ok": …}`` or ``{"error": …}``. The agents are interpreters: they run what `tell` sends and answer `result`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from launch_driver import Driver

from supervisor.errors import DeskwardenError, to_wire
from supervisor.linux import seqpacket
from supervisor.sandbox import plan as planning
from supervisor.sandbox.plan import CLIENT, Plan, Source
from supervisor.session import launch, live_mounts
from supervisor.session.channel import Channel, wait_readable
from supervisor.session.console import Console
from supervisor.session.launcher_client import LauncherClient
from supervisor.session.live_mounts import Item, Layers, Mounted
from supervisor.session.session import Session
from supervisor.session.stub_server import StubServer
from tests.service import PRELUDE

_AGENT = (
    PRELUDE
    + """
import array, mmap, threading
result = None
for line in sys.stdin:
    result = None
    try:
        exec(json.loads(line))
    except OSError as error:
        result = errno.errorcode.get(error.errno, str(error))
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    report(result)
"""
)


@dataclasses.dataclass(slots=True)
class Agent:
    """A running session, and the pipes of its agent."""

    session: Session
    pid: int
    stdin: int
    stdout: int


class LiveDriver(Driver):
    """One launcher, many sessions at once."""

    def __init__(self, store: str, workspace: str, profile: str) -> None:
        super().__init__(store, workspace, profile)
        self.store = store
        os.mkdir(f"{store}/empty", 0o555)
        self.empty = os.open(f"{store}/empty", os.O_PATH)
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(f"{store}/door")
        os.chmod(f"{store}/door", 0o666)
        self.door.listen()
        os.makedirs(f"{store}/client/bin")
        with open(f"{store}/client/bin/hello", "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\necho hello from the client\n")
        os.chmod(f"{store}/client/bin/hello", 0o755)
        self.agents: dict[str, Agent] = {}
        self.stubs: list[StubServer] = []
        self.mounted: dict[str, list[Mounted]] = {}
        self.ends: dict[str, asyncio.Event] = {}

    @staticmethod
    def programs() -> Mapping[str, str]:
        return {"probe": "tests.integration.sandbox.probe_worker"}

    def own_sources(self, fds: list[int]) -> list[Source]:
        fds += [os.open(f"{self.store}/door", os.O_PATH), os.open(f"{self.store}/client", os.O_PATH)]
        return [Source("", "socket", "door", len(fds) - 2), Source(CLIENT, "directory", "client", len(fds) - 1)]

    async def run(self) -> None:
        self.launcher = LauncherClient(Channel(self.control))
        self.launcher.on_exit = self._on_exit
        reading = asyncio.create_task(self.launcher.read())
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            request = json.loads(line)
            try:
                answer = {"ok": await getattr(self, "do_" + request.pop("do"))(**request)}
            except DeskwardenError as error:
                answer = {"error": to_wire(error)}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        await self.launcher.farewell()
        await asyncio.wait_for(reading, 10)

    async def do_start(self) -> dict[str, Any]:
        self.count += 1
        name = f"s{self.count}"
        plan, fds = self.plan(name, ["/usr/bin/python3", "-I", "-u", "-c", _AGENT])
        stdin_r, stdin_w = os.pipe()
        os.dup2(stdin_r, fds[plan.command.stdio[0]])
        os.close(stdin_r)
        started = await launch.carry_out(self.launcher, name, plan, fds, Console(None))
        seqpacket.close_all(fds)
        if started.stubs >= 0:
            self.stubs.append(StubServer(started.stubs, planning.stubs_of(plan), lambda *_: None))
        session = cast(Session, SimpleNamespace(record=SimpleNamespace(id=name), plan=plan))
        self.agents[name] = Agent(session, started.pid, stdin_w, self.out_r)
        return {"id": name, "pid": started.pid, "path": plan_path(plan), "home": self.home}

    async def do_tell(self, session: str, code: str) -> Any:
        agent = self.agents[session]
        os.write(agent.stdin, json.dumps(code).encode() + b"\n")
        said = b""
        while not said.endswith(b"\n"):
            await asyncio.wait_for(wait_readable(agent.stdout), 30)
            part = os.read(agent.stdout, 1 << 16)
            if not part:
                return "the agent ended"
            said += part
        return json.loads(said.splitlines()[-1])

    async def do_grant(
        self, session: str, grant: str, paths: list[str], writable: bool = False, shown: str = ""
    ) -> list[dict[str, Any]]:
        fds = [os.open(path, os.O_PATH) for path in paths]
        stages = [self._stage() if writable else None for _path in paths]
        kinds = ["directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file" for fd in fds]
        items = [
            Item(shown or path, kind, fd, stage)
            for path, kind, fd, stage in zip(paths, kinds, fds, stages, strict=True)
        ]
        try:
            mounted = await live_mounts.grant(self.launcher, self.agents[session].session, items, self._layers)
        finally:
            seqpacket.close_all(fds + [stage for stage in stages if stage is not None])
        self.mounted[grant] = mounted
        return [dataclasses.asdict(one) for one in mounted]

    @property
    def _layers(self) -> Layers:
        return Layers(self.empty, self.idmap if self.idmap >= 0 else None, self.rootless)

    def _stage(self) -> int:
        self.count += 1
        place = f"{self.store}/stage{self.count}"
        for name in ("", "/upper", "/work"):
            os.mkdir(place + name)
        return os.open(place, os.O_PATH)

    async def do_withdraw(self, session: str, grants: list[str]) -> dict[str, Any]:
        mounted = [one for grant in grants for one in self.mounted[grant]]
        withdrawn = await live_mounts.withdraw(self.launcher, self.agents[session].session, mounted)
        seqpacket.close_all(list(withdrawn.held))
        return dataclasses.asdict(withdrawn) | {"held": len(withdrawn.held)}

    async def do_raw(self, request: str, session: str, plan: dict[str, Any], sources: list[str]) -> dict[str, Any]:
        """Say to the launcher what no client of ours would."""
        fds = [os.open(path, os.O_PATH) for path in sources]
        ours, theirs = seqpacket.pair()
        try:
            seqpacket.send_json(ours, plan, tuple(fds))
            await self.launcher.ask(request, (theirs.fileno(),), id=session)
            theirs.close()
            answer = await asyncio.to_thread(seqpacket.receive_json, ours)
            return answer[0] if answer else {}
        finally:
            seqpacket.close_all(fds)
            ours.close()

    async def do_raw_hand(self, request: str) -> str:
        """Ask for a grant in the hand, which is a tree of the launcher's too."""
        (hand,) = [pid for pid in self._children() if _comm(pid) == "deskwarden-hand"]
        ours, theirs = seqpacket.pair()
        with ours, theirs:
            try:
                answer, _fds = await self.launcher.ask(request, (theirs.fileno(),), id=f"hand{self.uid}/{hand}")
            except DeskwardenError as error:
                return "no running session" if "no running session" in error.message else error.message
        return "ended" if answer["ended"] else "done"

    async def do_worker(self, program: str, uid: Any) -> dict[str, Any]:
        """Start a worker; returns what it says of itself, and how it ended when it was hung up."""
        ours, theirs = seqpacket.pair()
        with ours, theirs:
            answer, pidfds = await self.launcher.ask("worker", (theirs.fileno(),), program=program, uid=uid)
            theirs.close()
            said = await asyncio.to_thread(seqpacket.receive_json, ours)
            name = _comm(str(answer["pid"])) if said and "ids" in said[0] else ""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wait_readable(pidfds[0]), 5)
        seqpacket.close_all(pidfds)
        status = await self.do_ended(f"worker-{program}")
        return {"said": said[0] if said else None, "status": status, "name": name}

    async def do_running(self, session: str) -> bool:
        return session not in self.exits

    async def do_freeze(self, session: str) -> None:
        await self.launcher.ask("freeze", id=session)

    async def do_thaw(self, session: str) -> None:
        await self.launcher.ask("thaw", id=session)

    async def do_processes(self, session: str) -> list[str]:
        """Return the state letters of all processes of the session."""
        return states_inside(self.agents[session].pid)

    async def do_ended(self, session: str) -> int | None:
        """Wait a moment for the session's end; returns its status, None while it runs."""
        ended = self.ends.setdefault(session, asyncio.Event())
        if session not in self.exits:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 5)
        return self.exits.get(session)

    def _on_exit(self, event: dict[str, Any]) -> None:
        self.exits[event["id"]] = event["status"]
        self.ends.setdefault(event["id"], asyncio.Event()).set()

    async def do_kill(self, session: str) -> None:
        await self.launcher.ask("kill", id=session)

    async def do_die(self) -> int:
        """End like a daemon that was killed: nothing is said to anybody."""
        sys.stdout.write(json.dumps({"ok": self.launcher_pid}) + "\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    async def do_door(self) -> str:
        """Take a connection at the door; returns what it says."""
        self.door.settimeout(10)
        client, _address = await asyncio.to_thread(self.door.accept)
        with client:
            return client.recv(100).decode()


def _comm(pid: str) -> str:
    with open(f"/proc/{pid}/comm", encoding="ascii") as file:
        return file.read().strip()


def states_inside(pid: int) -> list[str]:
    """Return the state letters of the processes in the pid namespace of *pid*."""
    states = []
    namespace = os.stat(f"/proc/{pid}/ns/pid").st_ino
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}/ns/pid").st_ino == namespace:
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                    states.append(file.read().rpartition(")")[2].split()[0])
        except OSError:
            continue
    return states


def plan_path(plan: Plan) -> str:
    """Return the search path that a launch would give."""
    return f"{plan.command.environment.get('PATH', '')}:{CLIENT}/bin"


if __name__ == "__main__":
    driver = LiveDriver(*sys.argv[1:4])
    asyncio.run(driver.run())
    os.waitpid(driver.launcher_pid, 0)
