"""All sessions of this daemon: start, list, signal, freeze, end, prune. Owners never see each other's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from supervisor.clock import now_ns
from supervisor.errors import DeskwardenError, RefusedError, ServiceError, UsageError
from supervisor.ids import is_session_name, new_session_id
from supervisor.linux import seqpacket
from supervisor.sandbox.layers import LayerState, check_required
from supervisor.sandbox.operations import Keyring, to_json
from supervisor.sandbox.plan import Command, Owner, Plan, Terms, command_json, rlimits, stubs_of
from supervisor.sandbox.profile import Profile, build_environment
from supervisor.session import launch
from supervisor.session.agent_ids import AgentIds
from supervisor.session.channel import Channel
from supervisor.session.console import Console, Log
from supervisor.session.hands import Hand, Hands
from supervisor.session.init_process import wait_listening
from supervisor.session.launch import Agent, Machine, Prepared, Request, Started
from supervisor.session.launcher_client import LauncherClient
from supervisor.session.profiles import Profiles
from supervisor.session.session import Execution, Session, shell_code
from supervisor.session.state import LIVE_STATES, Record, State
from supervisor.session.stub_server import StubServer
from supervisor.session.tasks import Tasks

_logger = logging.getLogger(__name__)

STOP_GRACE_S: Final = 10.0
# Of one owner at once, so that nobody takes the whole pool of agent uids.
MAX_SESSIONS: Final = 1000
# How long a launch has the machine to itself before the next one is prepared.
QUIET_S: Final = 0.03
TEARDOWNS_AT_ONCE: Final = 8
# Its console (3), log, mounts, stubs, door and client's connection; kept free: what launches and reviews hold.
OPEN_FILES_OF_A_SESSION: Final = 9
OPEN_FILES_RESERVED: Final = 512
OUT_OF_MEMORY: Final = 137  # 128+SIGKILL, as a shell and a container say it
# How long a launch that came to nothing waits for its killed process, before its uid is lent again.
END_DEADLINE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, in the kernel's word."""

    owner: Owner


class SessionObserver:
    """Who wants to know of sessions: `daemon` hands in one that tells the broker and opens the agent's door."""

    def door_of(self, session_id: str) -> str:
        """Return the path of the socket that the sandbox shows to the agent, or an empty word for none."""
        return ""

    async def starting(self, session_id: str, owner: Owner, request: Request) -> None:
        """Record what stands behind a session, before anything of it is started.

        Raises:
            DeskwardenError: It must not start.
        """

    def started(self, session: Session, request: Request) -> None:
        """Hear of a session that runs."""

    def opened(self, session: Session, stub: str, path: str, pid: int) -> None:
        """Hear that *path*, which lies at or below the ask-list name *stub*, was opened in vain."""

    async def ended(self, session_id: str) -> None:
        """Hear that all of a session's processes are gone, or that it never came to run."""


class SessionService:
    """The one owner of all sessions, hands and agent uids."""

    def __init__(
        self,
        launcher: LauncherClient,
        hands: Hands,
        state: State,
        machine: Machine,
        logs: str,
        layers: tuple[LayerState, ...],
        profiles: Profiles,
    ) -> None:
        self._launcher = launcher
        self._hands = hands
        self._state = state
        self._machine = machine
        self._logs = logs
        self._layers = layers
        self._profiles = profiles
        self.uids = AgentIds()
        self._idmaps: dict[tuple[int, int, int], int] = {}
        self._live: dict[str, Session] = {}
        # Closing the last descriptor of a mount namespace writes staged files back: as many at once as disks take.
        self._closer = ThreadPoolExecutor(TEARDOWNS_AT_ONCE, "teardown")
        self._teardowns: dict[str, asyncio.Future[None]] = {}
        self._removals: dict[str, asyncio.Future[int]] = {}
        self._starting: dict[str, asyncio.Future[int]] = {}
        self._reasons: dict[str, str] = {}
        self.observer: SessionObserver = SessionObserver()
        self.spawn = Tasks().spawn  # for verbs and the server too
        launcher.on_exit = self._on_exit

    # ---- starting ----

    async def run(self, caller: Caller, request: Request, client: Channel | None) -> Session:
        """Start a session; returns it running, with *client* attached to its console.

        Raises:
            DeskwardenError: What failed, by name; nothing is left of it.
        """
        if request.name and not is_session_name(request.name):
            raise UsageError(
                f"--name {request.name!r}: want lower-case letters, digits, - _ .", "choose another --name"
            )
        if request.name and any(session.record.name == request.name for session in self.live_of(caller)):
            raise UsageError(f"a session named {request.name} is running", f"deskwarden attach {request.name}")
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OPEN_FILES_RESERVED
        if (len(self._live) + len(self._starting)) * OPEN_FILES_OF_A_SESSION > room:
            raise ServiceError(
                f"{len(self._live)} sessions are running, all that the service has open files for",
                "end some: deskwarden stop SESSION; or raise its limit (LimitNOFILE=, ulimit -n) and start it again",
            )
        self._state.check_writable()
        if len(self.live_of(caller)) >= MAX_SESSIONS:
            raise ServiceError(f"{MAX_SESSIONS} of your sessions are running", "end some: deskwarden stop SESSION")
        own_uid = not self._machine.rootless
        try:
            return await self._start(caller, request, own_uid, client)
        except DeskwardenError as error:
            if not (own_uid and launch.is_unmappable(error)):
                raise
            if caller.owner.uid == 0:
                raise RefusedError(
                    f"{request.workspace}: its file system cannot map ids, and an agent never has root's",
                    "use a folder on ext4, xfs or btrfs, or run as an ordinary user",
                ) from error
        return await self._start(caller, request, False, client)

    async def _start(self, caller: Caller, request: Request, own_uid: bool, client: Channel | None) -> Session:
        owner = caller.owner
        hand = await self._hands.of(owner.uid, owner.gid)
        terms = await self._terms(request, hand, owner)
        session_id, profile = terms.session_id, terms.profile
        log_path = f"{self._logs}/{session_id}.log"
        console = Console(Log(log_path))
        agent_uid = self.uids.lend() if own_uid else owner.uid
        ended = self._starting[session_id] = asyncio.get_running_loop().create_future()
        started: Started | None = None
        session: Session | None = None
        try:
            await self.observer.starting(session_id, owner, request)
            mapping = await self._idmap(owner, agent_uid) if own_uid else None
            agent = Agent(agent_uid, mapping, self.observer.door_of(session_id))
            prepared, started = await self._launch(request, terms, owner, hand, agent, console)
            record = self._record(request, terms, owner, agent, prepared, started)
            session = Session(record, self._state, Execution(console), prepared.plan, profile, started.mounts)
            session.roots.add(started.pid)
            if started.stubs >= 0:
                hear = partial(self.observer.opened, session)
                session.stubs = StubServer(started.stubs, stubs_of(prepared.plan), hear)
            self._state.put(record)
        except BaseException:
            if await launch.end(self._launcher, session_id):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended, END_DEADLINE_S)
            if started is not None:
                os.close(started.mounts)
                if session is not None and session.stubs is not None:
                    session.stubs.close()
                elif started.stubs >= 0:
                    os.close(started.stubs)
            del self._starting[session_id]
            await self.observer.ended(session_id)
            await console.close()
            _remove_log(log_path)
            if own_uid:
                self.uids.give_back(agent_uid)
            self.spawn(self._remove_stage(hand, session_id), f"remove the stage of {session_id}")
            raise
        self._live[session_id] = session
        self.observer.started(session, request)
        console.client = client
        console.start()
        del self._starting[session_id]
        if ended.done():
            self._end(session, ended.result())
        return session

    def _record(
        self, request: Request, terms: Terms, owner: Owner, agent: Agent, prepared: Prepared, started: Started
    ) -> Record:
        command = os.path.basename(request.argv[0])[:24] or "agent"
        own_uid = agent.idmap_fd is not None
        report = launch.enforcement_report(
            terms.profile, self._machine, prepared, started.findings, self._layers, own_uid
        )
        return Record(
            id=terms.session_id,
            name=request.name or f"{command}-{terms.session_id[:4]}",
            owner_uid=owner.uid,
            owner_gid=owner.gid,
            profile=terms.profile.name,
            mode=terms.mode,
            workspace=prepared.plan.command.directory,
            argv=list(request.argv),
            areas=prepared.areas,
            numbers=prepared.numbers,
            shown=prepared.shown,
            agent_uid=agent.uid,
            pid=started.pid,
            state="running",
            started_ns=now_ns(),
            report=report,
            baseline=prepared.baseline,
            runs_later=[os.fsdecode(pattern) for pattern in terms.profile.runs_later],
        )

    async def _terms(self, request: Request, hand: Hand, owner: Owner) -> Terms:
        """Find the profile, lower its limits, check what it requires and the mode."""
        compiled = await self._profiles.get(request.profile, hand, owner.home)
        profile = with_limits(compiled.profile, request.limits)
        check_required(profile.requires, self._layers)
        mode = launch.check_request(request, profile)
        return Terms(profile, compiled.filter_for(mode), new_session_id(), mode)

    async def _launch(
        self, request: Request, terms: Terms, owner: Owner, hand: Hand, agent: Agent, console: Console
    ) -> tuple[Prepared, Started]:
        agent_ends: tuple[int, int, int] | None = None
        prepared: Prepared | None = None
        try:
            if request.terminal is None:
                agent_ends = console.make_pipes()
            prepared = await launch.prepare(request, terms, owner, hand, self._machine, agent, agent_ends)
            started = await launch.carry_out(self._launcher, terms.session_id, prepared.plan, prepared.fds, console)
            self._build_base_ahead(prepared, terms.session_id)
            return prepared, started
        finally:
            seqpacket.close_all(list(agent_ends or ()))
            if prepared is not None:
                prepared.close()
            self._drop_program(request, hand, terms.session_id)

    def _drop_program(self, request: Request, hand: Hand, session_id: str) -> None:
        if request.standing is not None and request.standing.manifest.binaries:
            self.spawn(launch.drop_program(hand, session_id), f"drop the name of the program of {session_id}")

    def _build_base_ahead(self, prepared: Prepared, session_id: str) -> None:
        """Do it when the launch is over; without descriptors to spare, the next session builds its own."""
        base: dict[int, int] = {}
        try:
            for index in prepared.plan.base_indices():
                base[index] = os.dup(prepared.fds[index])
        except OSError:
            seqpacket.close_all(list(base.values()))
            return
        self.spawn(self._after_launch(prepared.plan, base), f"build a base as that of {session_id}")

    async def _after_launch(self, plan: Plan, base: dict[int, int]) -> None:
        try:
            await asyncio.sleep(QUIET_S)
            await launch.build_base_ahead(self._launcher, plan, base)
        finally:
            seqpacket.close_all(list(base.values()))

    async def _idmap(self, owner: Owner, agent_uid: int) -> int:
        key = (owner.uid, owner.gid, agent_uid)
        if key not in self._idmaps:
            on_disk, inside = [owner.uid, owner.gid], [agent_uid, agent_uid]
            _answer, fds = await self._launcher.ask("idmap", owner=on_disk, agent=inside)
            self._idmaps[key] = fds[0]
        return self._idmaps[key]

    async def describe(self, caller: Caller, request: Request) -> list[str]:
        """Return the plan of a launch in words; nothing is started and nothing is left."""
        owner = caller.owner
        hand = await self._hands.of(owner.uid, owner.gid)
        terms = await self._terms(request, hand, owner)
        console = Console(None)
        agent_ends = console.make_pipes()
        agent_uid = owner.uid if self._machine.rootless else self.uids.lend()
        try:
            agent = Agent(agent_uid, None if self._machine.rootless else await self._idmap(owner, agent_uid))
            prepared = await launch.prepare(request, terms, owner, hand, self._machine, agent, agent_ends)
            prepared.close()
            return prepared.plan.describe()
        finally:
            seqpacket.close_all(list(agent_ends))
            await console.close()
            if not self._machine.rootless:
                self.uids.give_back(agent_uid)
            self._drop_program(request, hand, terms.session_id)
            await self._remove_stage(hand, terms.session_id)

    async def profile_of(self, owner: Owner, request: Request) -> Profile:
        """Return the profile that a launch names."""
        hand = await self._hands.of(owner.uid, owner.gid)
        return (await self._profiles.get(request.profile, hand, owner.home)).profile

    async def exec(
        self,
        session: Session,
        argv: tuple[str, ...],
        environment: Mapping[str, str],
        overrides: Mapping[str, str | None],
        terminal: tuple[int, int] | None,
        client: Channel,
    ) -> tuple[str, Execution]:
        """Start one more command inside, under the same confinement; returns its key and handle.

        Raises:
            DeskwardenError: It was not found, is not executable, or the session is not running.
        """
        if session.record.state != "running":
            raise RefusedError(f"session {session.record.name} is {session.record.state}", "deskwarden ps")
        plan = session.plan
        variables = dict(plan.command.environment)
        if overrides:
            variables |= build_environment(session.profile, environment, overrides)
            variables |= {key: plan.command.environment[key] for key in ("HOME", "USER", "PATH", "DESKWARDEN_SESSION")}
        console = Console(None)
        agent_ends = console.make_pipes() if terminal is None else None
        command = Command(argv, variables, plan.command.directory, (0, 1, 2) if agent_ends else (), terminal)
        message = plan.to_json() | {
            "operations": [to_json(rlimits(plan)), to_json(Keyring())],
            "command": command_json(command),
        }
        key = new_session_id()
        ours, theirs = seqpacket.pair()
        channel = Channel(ours)
        execution = Execution(console)
        session.execs[key] = execution
        try:
            try:
                answer, pidfds = await self._launcher.ask("exec", (theirs.fileno(),), id=session.record.id, exec=key)
                session.roots.add(int(answer["pid"]))
            finally:
                theirs.close()
            seqpacket.close_all(pidfds)
            with contextlib.suppress(BrokenPipeError):
                await channel.send_json(message, agent_ends or ())
            await launch.hear(channel, console)
        except BaseException:
            session.execs.pop(key, None)
            await console.close()
            raise
        finally:
            channel.close()
            seqpacket.close_all(list(agent_ends or ()))
        console.client = client
        console.start()
        return key, execution

    # ---- ending ----

    def _on_exit(self, event: dict[str, Any]) -> None:
        """The launcher reaped something: a session's PID 1, an exec, a hand."""
        if event["kind"] == "hand":
            self._hands.ended(int(event["pid"]))
            return
        if event["kind"] == "remove":
            removal = self._removals.pop(event["exec"], None)
            if removal is not None and not removal.done():
                removal.set_result(int(event["status"]))
            if event["status"]:
                _logger.error("not all staged files of session %s could be removed", event["exec"])
            return
        session = self._live.get(event["id"])
        if event["kind"] == "exec":
            execution = session.execs.pop(event["exec"], None) if session else None
            if execution is not None:
                self.spawn(execution.finish(int(event["status"])), f"end of exec {event['exec']}")
        elif session is not None:
            if event["oom_kills"] and shell_code(int(event["status"])) == OUT_OF_MEMORY:
                self._reasons.setdefault(session.record.id, "out of memory: see --memory, or the profile's limits")
            self._end(session, int(event["status"]))
        elif event["id"] in self._starting:
            self._starting[event["id"]].set_result(int(event["status"]))

    def _end(self, session: Session, status: int) -> None:
        if session.stubs is not None:
            session.stubs.close()
        teardown = asyncio.get_running_loop().run_in_executor(self._closer, os.close, session.mounts)
        self._teardowns[session.record.id] = teardown
        teardown.add_done_callback(lambda _done: self._teardowns.pop(session.record.id, None))
        self.spawn(self._finish(session, status), f"end of {session.record.id}")

    async def _finish(self, session: Session, status: int) -> None:
        record = session.record
        try:
            await session.finish(status, self._reasons.pop(record.id, ""))
        finally:
            self._live.pop(record.id, None)
            await self.observer.ended(record.id)
            if not self._machine.rootless:
                self.uids.give_back(record.agent_uid)
            session.on_ended.set()

    async def torn_down(self, session_id: str) -> None:
        """Wait until an ended session's mounts are gone: until then its overlay has its layers in use."""
        teardown = self._teardowns.get(session_id)
        if teardown is not None:
            await asyncio.shield(teardown)

    async def stop(self, session: Session, grace_s: float = STOP_GRACE_S, reason: str = "stopped") -> None:
        """End a session in order: SIGTERM to the agent's group, after *grace_s* SIGKILL to everything."""
        self._reasons[session.record.id] = reason
        if session.record.state == "frozen":
            await self.set_frozen(session, False)
        with contextlib.suppress(DeskwardenError):
            await self.signal(session, signal.SIGTERM)
            if session.main.console.is_terminal:
                # An interactive shell ignores SIGTERM; a terminal that goes away is said with SIGHUP.
                await self._launcher.ask("signal", id=session.record.id, signal=int(signal.SIGHUP))
        try:
            async with asyncio.timeout(grace_s):
                await session.on_ended.wait()
        except TimeoutError:
            await self.kill(session, reason)

    async def kill(self, session: Session, reason: str = "killed") -> None:
        """End a session at once; waits until nothing of it is left."""
        self._reasons[session.record.id] = reason
        with contextlib.suppress(DeskwardenError):
            await self._launcher.ask("kill", id=session.record.id)
        await session.on_ended.wait()

    async def signal(self, session: Session, number: int, execution: str = "") -> None:
        """Forward a signal to the agent (or to one exec inside)."""
        if not execution:
            await wait_listening(session.record.pid)
        with contextlib.suppress(DeskwardenError):
            await self._launcher.ask("signal", id=session.record.id, signal=number, exec=execution)

    async def hang_up(self, session: Session, key: str, execution: Execution) -> None:
        """End an exec whose client went away: SIGHUP and SIGTERM, and SIGKILL for what ignores them."""
        await self.signal(session, signal.SIGHUP, key)
        await self.signal(session, signal.SIGTERM, key)
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await execution.ended.wait()
        except TimeoutError:
            await self.signal(session, signal.SIGKILL, key)

    async def resume(self, session: Session) -> None:
        """Let stopped jobs go on, as a shell's ``fg`` does."""
        with contextlib.suppress(DeskwardenError):
            await self._launcher.ask("continue", id=session.record.id)

    async def set_frozen(self, session: Session, frozen: bool) -> float:
        """Freeze or thaw the whole tree; returns the measured bound in ms."""
        answer, _fds = await self._launcher.ask("freeze" if frozen else "thaw", id=session.record.id)
        session.change(state="frozen" if frozen else "running")
        return float(answer["bound_ms"])

    async def end_all(self) -> None:
        """End every session, the newest first; they may depend on older ones."""
        newest_first = sorted(self._live.values(), key=lambda session: -session.record.started_ns)
        for session in newest_first:
            await self.stop(session, reason="the service stopped")
        await self._launcher.farewell()

    # ---- asking ----

    def live_of(self, caller: Caller) -> list[Session]:
        """Return the caller's living sessions."""
        return [session for session in self._live.values() if session.record.owner_uid == caller.owner.uid]

    def living(self) -> list[Session]:
        """Return all living sessions, of all owners."""
        return list(self._live.values())

    def living_session(self, session_id: str) -> Session | None:
        """Return a living session of any owner, or None."""
        return self._live.get(session_id)

    async def mapping_of(self, session: Session) -> int | None:
        """Return the mapping owner → agent (our descriptor), or None when the agent has its owner's uid."""
        record = session.record
        if record.agent_uid == record.owner_uid:
            return None
        owner = Owner(record.owner_uid, record.owner_gid, "", "")
        return await self._idmap(owner, record.agent_uid)

    async def end_for(self, session_id: str, why: str) -> None:
        """Kill a session for a reason that is not its owner's."""
        session = self._live.get(session_id)
        if session is not None:
            await self.kill(session, why)

    async def staged_bytes(self, session: Session) -> int:
        """Return how much a session has staged, as the hand counts it."""
        record = session.record
        if not record.numbers:
            return 0
        hand = await self._hands.of(record.owner_uid, record.owner_gid)
        answer, fds = await hand.ask("usage", session=record.id)
        seqpacket.close_all(fds)
        used = answer.get("bytes")
        if type(used) is not int or used < 0:
            raise ServiceError(
                f"the hand of uid {record.owner_uid} answered {answer!r:.80}, expected a number of bytes"
            )
        return used

    @property
    def live_count(self) -> int:
        """How many sessions are running, of all owners."""
        return len(self._live)

    def is_first_run(self, caller: Caller, record: Record) -> bool:
        """Return whether this program ran in this folder for the first time, and remember it."""
        return self._state.meet(caller.owner.uid, os.path.basename(record.argv[0]), record.workspace)

    def records(self, caller: Caller) -> list[Record]:
        """Return the caller's sessions, also ended ones, oldest first."""
        return self._state.of_owner(caller.owner.uid)

    def find(self, caller: Caller, word: str, cwd: str = "") -> Record:
        """Return the caller's session of that id, name or ``last``; the newest of several with one name.

        With *cwd*, ``last`` is the newest that worked on the folder one stands in, when any did.

        Raises:
            UsageError: There is none; another owner's sessions are never told apart from missing ones.
        """
        records = self.records(caller)
        matches = records if word == "last" else [item for item in records if word in (item.id, item.name)]
        if not matches:
            raise UsageError(
                "you have no sessions yet" if word == "last" else f"no session {word!r}", "deskwarden ps --all"
            )
        if word == "last" and cwd:
            here = [
                item
                for item in matches
                if any(cwd == area or cwd.startswith(area + "/") for area in (item.workspace, *item.areas))
            ]
            matches = here or matches
        return matches[-1]

    def find_live(self, caller: Caller, word: str) -> Session:
        """Return the caller's living session.

        Raises:
            UsageError: There is none, or it has ended.
        """
        if word == "last":
            living = sorted(self.live_of(caller), key=lambda session: session.record.started_ns)
            if living:
                return living[-1]
        record = self.find(caller, word)
        session = self._live.get(record.id)
        if session is None:
            raise UsageError(f"session {record.name} has ended", f"deskwarden show {record.id}")
        return session

    def log_path(self, record: Record) -> str:
        """Return where the output of a session is kept."""
        return f"{self._logs}/{record.id}.log"

    async def hand_of(self, caller: Caller) -> Hand:
        """Return the caller's hand."""
        return await self._hands.of(caller.owner.uid, caller.owner.gid)

    @property
    def launcher(self) -> LauncherClient:
        """The launcher, for reviews."""
        return self._launcher

    @property
    def rootless(self) -> bool:
        """Whether this service runs without root."""
        return self._machine.rootless

    # ---- forgetting ----

    async def forget(self, caller: Caller, record: Record) -> None:
        """Remove an ended session: staged files, log and record, in this order: a full disk has room for the last then.

        Undo steps stay.

        Raises:
            RefusedError: It is running.
            ServiceError: Some of its files are still there; so is its record.
        """
        if record.id in self._live or record.state in LIVE_STATES:
            raise RefusedError(f"session {record.name} is running", f"deskwarden stop {record.id}")
        await self.torn_down(record.id)
        if record.numbers and not await self._removed(await self.hand_of(caller), record.id):
            raise ServiceError(
                f"not all staged files of session {record.name} could be removed",
                "see the daemon's log; then try again",
            )
        _remove_log(self.log_path(record))
        self._state.remove(record.id)

    async def _removed(self, hand: Hand, session_id: str) -> bool:
        """Remove a session's staged files; returns whether none is left. On a full disk the reserve is used."""
        while True:
            done = self._removals.setdefault(session_id, asyncio.get_running_loop().create_future())
            await self._launcher.ask("remove", (hand.store_fd,), name=session_id)
            if await asyncio.shield(done) == 0:
                return True
            if not self.make_room():
                return False

    def make_room(self) -> bool:
        """On a full disk, free what is held in reserve; returns whether it helps to try again."""
        return self._state.make_room()

    async def _remove_stage(self, hand: Hand, session_id: str) -> None:
        with contextlib.suppress(DeskwardenError):
            await self._launcher.ask("remove", (hand.store_fd,), name=session_id)


def with_limits(profile: Profile, wanted: Mapping[str, int]) -> Profile:
    """Return the profile with ``--memory`` and ``--pids``; they may only lower what it says.

    Raises:
        RefusedError: A flag asks for more.
    """
    limits = profile.limits
    for name, value in wanted.items():
        most = getattr(limits, name)
        if most is not None and value > most:
            flag, allowed = f"--{name.split('_')[0]}", shown_limit(name, most)
            said = f"{flag} {shown_limit(name, value)}: profile {profile.name} allows {allowed}"
            raise RefusedError(said, f"at most {flag} {allowed}")
        limits = replace(limits, **{name: value})
    return replace(profile, limits=limits)


def shown_limit(name: str, value: int) -> str:
    """Return a limit as one types it: a size in the largest unit that fits, or a number."""
    if name.endswith("_bytes"):
        for unit, shift in (("g", 30), ("m", 20), ("k", 10)):
            if value >= 1 << shift:
                return f"{value >> shift}{unit}"
    return str(value)


def _remove_log(path: str) -> None:
    for name in (path, path + ".1"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
