"""Drive a real launcher and a real hand without a daemon: a program, so that rootless can enter its own namespaces.

``python launch_driver.py STORE WORKSPACE`` reads requests (one JSON a line) from standard input and answers in kind:
``{"argv": […], "change": {…}, "drop": […], "fail_at": N}`` starts one session from the strict profile's plan, with the
plan's JSON changed as told (``ahead``: its base is built before, ``mount``: then the machine's mounts change). The
answer holds what the launcher's child said and what was left afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from supervisor.daemon.bootstrap import enter_own_namespaces, start_launcher
from supervisor.linux import cgroup, mount, mountinfo, seqpacket
from supervisor.linux.clone import CloneFlags, unshare
from supervisor.sandbox import plan as planning
from supervisor.sandbox import profile_source, seccomp_filter, wanted
from supervisor.sandbox.plan import Command, Owner, Source, Stage, Surroundings, Terms
from supervisor.sandbox.workers import PROGRAMS
from supervisor.session.launch import base_name

AGENT_UID = 1_900_000_777


class Driver:
    """One launcher, one hand, many sessions in turn."""

    def __init__(self, store: str, workspace: str, profile: str = "strict") -> None:
        self.uid, self.gid = os.geteuid(), os.getegid()
        self.rootless = self.uid != 0
        self.workspace = workspace
        self.home = os.environ["HOME"]
        if self.rootless:
            enter_own_namespaces(self.uid, self.gid)
        else:
            unshare(CloneFlags.NEWNS)
            mount.set_propagation("/", mount.MS_REC | mount.MS_PRIVATE)
        self.place = f"{store}/place"
        os.mkdir(self.place)
        self.control, self.launcher_pid = start_launcher(self.rootless, self.programs())
        ready = seqpacket.receive_json(self.control)
        assert ready is not None
        assert ready[0]["event"] == "ready", ready
        self.has_cgroup = ready[0]["cgroup"]
        store_fd = os.open(store, os.O_RDONLY)
        self.ask("store", [store_fd], uid=self.uid, gid=self.gid)
        ours, theirs = seqpacket.pair()
        self.ask("hand", [theirs.fileno()], uid=self.uid)
        theirs.close()
        self.hand = ours
        self.owner_store = os.open(f"{store}/{self.uid}", os.O_PATH)
        self.ask_hand([self.owner_store], do="store")
        self.profile = profile_source.load_profile(profile)
        self.filter = seccomp_filter.compile_filter(self.profile.seccomp, platform.machine())
        self.idmap = -1 if self.rootless else self._make_idmap()
        self.exits: dict[str, int] = {}
        self.count = 0

    def _make_idmap(self) -> int:
        return self.ask("idmap", owner=[self.uid, self.gid], agent=[AGENT_UID, AGENT_UID])[1][0]

    def ask(self, do: str, fds: list[int] | None = None, **fields: Any) -> tuple[dict[str, Any], list[int]]:
        seqpacket.send_json(self.control, {"seq": 1, "do": do, **fields}, tuple(fds or ()))
        while True:
            message, out = self.next_message()
            if "event" not in message:
                return message, out

    def next_message(self) -> tuple[dict[str, Any], list[int]]:
        received = seqpacket.receive_json(self.control)
        assert received is not None, "the launcher ended"
        if received[0].get("event") == "exit":
            self.exits[received[0]["id"]] = received[0]["status"]
        return received

    def ask_hand(self, fds: list[int] | None = None, **fields: Any) -> tuple[dict[str, Any], list[int]]:
        ours, theirs = seqpacket.pair()
        with ours, theirs:
            seqpacket.send_json(self.hand, fields, (theirs.fileno(), *(fds or ())))
            received = seqpacket.receive_json(ours)
        assert received is not None
        assert "ok" in received[0], received[0]
        return received[0]["ok"], received[1]

    def plan(self, session: str, argv: list[str]) -> tuple[planning.Plan, list[int]]:
        items = wanted.items(self.profile, self.home, self.workspace, [], [])
        answer, fds = self.ask_hand(do="open", items=items, home=self.home, mode="staged", id=session)
        sources = [Source(**source) for source in answer["sources"]] + self.own_sources(fds)
        stages = [Stage(stage["area"], stage["fd"]) for stage in answer["stages"]]
        idmap = None
        if self.idmap >= 0:
            fds.append(os.dup(self.idmap))
            idmap = len(fds) - 1
        self.out_r, out_w = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        first = len(fds)
        fds += [null, out_w, os.dup(out_w)]
        agent = (self.uid, self.gid) if self.rootless else (AGENT_UID, AGENT_UID)
        surroundings = Surroundings(self.rootless, *agent, idmap, self.has_cgroup, (), None)
        command = Command(
            tuple(argv), {"PATH": "/usr/bin:/bin", "HOME": self.home}, self.workspace, (first, first + 1, first + 2)
        )
        terms = Terms(self.profile, self.filter, session, "staged")
        owner = Owner(self.uid, self.gid, "owner", self.home)
        return planning.build(terms, owner, surroundings, sources, stages, command), fds

    @staticmethod
    def programs() -> Mapping[str, str]:
        """The launcher's workers."""
        return PROGRAMS

    def own_sources(self, fds: list[int]) -> list[Source]:
        """What a daemon would add to what the hand opened; the descriptors go to *fds*."""
        return []

    def launch(self, request: dict[str, Any]) -> dict[str, Any]:
        self.count += 1
        session = f"s{self.count}"
        self._wait_for_spare()
        before = self.leftovers()
        whole, fds = self.plan(session, request["argv"])
        plan, base = whole.to_json(), whole.base_json()
        base_fds = {index: fds[index] for index in whole.base_indices()}
        plan |= request.get("change", {})
        for name in request.get("drop", []):
            del plan[name]
        if "fail_at" in request:
            plan["fail_at"] = request["fail_at"]
        if "path_source" in request:
            next(item for item in plan["operations"] if item.get("stage") is not None)["stage"] = request["path_source"]
        name = base_name(whole, base_fds)
        if request.get("ahead"):
            self._build(request.get("base", base), base_fds, name)
        if request.get("mount"):
            fd = mount.new_mount("tmpfs", {})
            mount.move_mount(fd, mount.AT_FDCWD, self.place)
            os.close(fd)
        if request.get("kill_spares"):
            time.sleep(0.1)  # built, and made anew
            for pid in self._children():
                with open(f"/proc/{pid}/comm", encoding="ascii") as file:
                    if file.read() != "deskwarden-hand\n":
                        os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.1)  # gone
        ours, theirs = seqpacket.pair()
        started, pidfds = self.ask("session", [theirs.fileno()], id=session, limits={}, base=name)
        theirs.close()
        with contextlib.suppress(BrokenPipeError):
            own = {index: fd for index, fd in enumerate(fds) if index not in base_fds}
            seqpacket.send_json(ours, plan | {"indices": list(own)}, tuple(own.values()))
            if not started["has_base"]:
                seqpacket.send_json(ours, base | {"indices": list(base_fds)}, tuple(base_fds.values()))
        seqpacket.close_all(fds)
        said = self._hear(ours)
        ours.close()
        with open(self.out_r, "rb") as file:
            output = file.read()
        while session not in self.exits:
            seqpacket.close_all(self.next_message()[1])
        seqpacket.close_all(pidfds)
        alive = os.path.exists(f"/proc/{started['pid']}")
        return {
            "said": said,
            "steps": [len(whole.base), len(whole.operations)],
            "had_base": started["has_base"],
            "output": output.decode(errors="replace"),
            "status": self.exits[session],
            "alive": alive,
            "leftovers_changed": not self._settles_to(before),
            "before_and_after": [before, self.leftovers()],
        }

    def _build(self, base: dict[str, Any], fds: dict[int, int], name: str) -> None:
        ours, theirs = seqpacket.pair()
        with ours:
            seqpacket.send_json(ours, base | {"indices": list(fds)}, tuple(fds.values()))
            answer, _fds = self.ask("build", [theirs.fileno()], base=name)
            theirs.close()
            assert "error" not in answer, answer

    def _wait_for_spare(self) -> None:
        deadline = time.monotonic() + 2
        last: list[Any] = []
        while time.monotonic() < deadline:
            now = self.leftovers()
            if now[1] >= 2 and now == last:  # the hand and the spare; the launcher is done with it
                return
            last = now
            time.sleep(0.01)

    def _settles_to(self, before: list[Any]) -> bool:
        """Whether it looks as before within two seconds: the next spare is made when the launcher has time."""
        deadline = time.monotonic() + 2
        while self.leftovers() != before:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    @staticmethod
    def _hear(sock: socket.socket) -> list[dict[str, Any]]:
        said = []
        while (received := seqpacket.receive_json(sock)) is not None:
            said.append(received[0])
            seqpacket.close_all(received[1])
        return said

    def _children(self) -> list[str]:
        with open(f"/proc/{self.launcher_pid}/task/{self.launcher_pid}/children", encoding="ascii") as file:
            return file.read().split()

    def leftovers(self) -> list[Any]:
        """What a launch may not leave: mounts, cgroups, the launcher's descriptors and children, files in /tmp."""
        root = cgroup.hierarchy() or "/nonexistent"
        groups = f"{root}{cgroup.own_group().rstrip('/')}/deskwarden-{self.launcher_pid}"
        return [
            # Only where a launch could leave one: other programs of the machine mount elsewhere meanwhile.
            [
                os.fsdecode(entry.mount_point)
                for entry in mountinfo.read(self.launcher_pid)
                if entry.mount_point == b"/tmp" or entry.mount_point.startswith(os.fsencode(self.workspace))
            ],
            # Counted, not named: the launcher always keeps one spare sandbox, a new one after each launch.
            len(self._children()),
            len([name for name in os.listdir(groups) if name.startswith("c")]) if self.has_cgroup else 0,
            sorted(os.listdir(self.workspace)),
            len(os.listdir(f"/proc/{self.launcher_pid}/fd")) if not self.rootless else 0,
        ]


def main() -> None:
    driver = Driver(sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        sys.stdout.write(json.dumps(driver.launch(json.loads(line))) + "\n")
        sys.stdout.flush()
    seqpacket.send_json(driver.control, {"do": "farewell"})
    os.waitpid(driver.launcher_pid, 0)


if __name__ == "__main__":
    main()
