"""The verbs of ``launch.sock``: a request becomes values in the first lines, `session` does the work.

Each handler answers with frames and one last JSON message, ``{"event": "result" | "exit", …}``; an error raised here is
sent by the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from supervisor import protocol
from supervisor.clock import now_ns
from supervisor.daemon import approval_verbs, reading, recert_verbs, secret_verbs
from supervisor.daemon.consenting import parse_wanted, plan_lines, stand
from supervisor.daemon.conversation import Conversation, Handler
from supervisor.errors import DeskwardenError, RefusedError, ServiceError, UsageError, to_wire
from supervisor.linux import seqpacket
from supervisor.sandbox.layers import State as LayerPresence
from supervisor.session.channel import Channel
from supervisor.session.console import Console, LogReader, chunks_of
from supervisor.session.launch import Request
from supervisor.session.review import Reviews, is_in
from supervisor.session.service import Caller, SessionService, shown_limit
from supervisor.session.session import Execution, Session
from supervisor.session.state import LIVE_STATES, Record

_LOG_POLL_S: Final = 0.1
_LONGEST_S: Final = 366 * 86400
_HIGHEST_STEP: Final = 1 << 62
# Below these no program starts: the init, a shell and one command; an interpreter.
_LEAST: Final = {"memory_bytes": 16 << 20, "pids": 4}
_FLAGS: Final = {"memory_bytes": "--memory", "pids": "--pids"}
# After Ctrl-Z the job stops as soon as it runs again; looked for twenty times a second, for two seconds.
_SUSPEND_LOOK_S: Final = 0.05
_SUSPEND_LOOKS: Final = 40
_CTRL_Z: Final = b"\x1a"


# ---- reading requests ----


def _terminal(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise UsageError("terminal: want rows and columns")
    return reading.number(value[0], "rows", 1, 65535), reading.number(value[1], "columns", 1, 65535)


def _limits(value: object) -> dict[str, int]:
    limits = reading.mapping(value, "limits")
    if not limits.keys() <= _LEAST.keys():
        raise UsageError(f"limits: want {' or '.join(_LEAST)}")
    for key, number in limits.items():
        if reading.number(number, _FLAGS[key], 0, 1 << 62) < _LEAST[key]:
            least = shown_limit(key, _LEAST[key])
            raise UsageError(f"{_FLAGS[key]} {shown_limit(key, number)}: no program starts below {least}", "raise it")
    return dict(limits)


def _paths(value: object, what: str) -> tuple[str, ...]:
    return tuple(reading.absolute(path, what) for path in reading.strings(value, what))


def parse_run(request: Mapping[str, Any]) -> Request:
    """Turn a ``run`` request into a value, strictly.

    Raises:
        UsageError: A field is missing, or is not what it must be.
    """
    argv = reading.strings(request.get("argv"), "command")
    if not argv or not argv[0]:
        raise UsageError("no command to run", "deskwarden run -- CMD…")
    return Request(
        argv=tuple(argv),
        workspace=reading.absolute(reading.word(request.get("workspace"), "-C"), "-C"),
        environment=reading.environment(request.get("environment")),
        profile=reading.word(request.get("profile"), "--profile") or "coding",
        mode=reading.word(request.get("mode"), "--mode"),
        name=reading.word(request.get("name"), "--name"),
        reads=_paths(request.get("reads", []), "--read"),
        writes=_paths(request.get("writes", []), "--write"),
        overrides=reading.overrides(request.get("overrides", {})),
        limits=_limits(request.get("limits", {})),
        terminal=_terminal(request.get("terminal")),
        umask=reading.number(request.get("umask", 0o022), "umask", 0, 0o7777) & 0o777,
        lasts_s=reading.number(request["for_s"], "--for", 1, _LONGEST_S) if request.get("for_s") is not None else None,
    )


# ---- running ----


async def run(conversation: Conversation, request: dict[str, Any]) -> None:
    """Start a session; stay with it unless detached."""
    parsed, note = await stand(conversation, parse_run(request), parse_wanted(request))
    if parsed is None:
        return
    service = conversation.service
    detach = reading.flag(request.get("detach"), "--detach")
    session = await service.run(conversation.caller, parsed, None if detach else conversation.channel)
    record = session.record
    times = [value for value in (parsed.lasts_s, session.profile.limits.wall_time_s) if value]
    if times:
        service.spawn(_end_after(service, session, min(times)), f"time of {record.id}")
    started: dict[str, Any] = {"event": "started", "id": record.id, "name": record.name}
    if service.is_first_run(conversation.caller, record):
        started["first_run"] = _public(record)
    if note:
        started["note"] = note
    if parsed.limits.get("memory_bytes") and "memory" not in record.report["limits"]:
        started["note"] = "--memory bounds each process here, not all together: no memory controller is delegated"
    try:
        await conversation.channel.send_json(started)
        if detach:
            await conversation.result(id=record.id, name=record.name)
            return
        await _stay(conversation, session, session.main, "", own=True)
    except BaseException:
        if not session.on_ended.is_set():  # the client is gone, or was never there: nobody learned of the session
            service.spawn(service.stop(session, reason="its terminal went away"), f"stop {record.id}")
        raise


async def _end_after(service: SessionService, session: Session, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await session.on_ended.wait()
            return
    await service.stop(session, reason=f"its time of {seconds:.0f} s was over")


async def execute(conversation: Conversation, request: dict[str, Any]) -> None:
    """Run one more command in a session."""
    service = conversation.service
    session = service.find_live(conversation.caller, reading.session(request))
    argv = reading.strings(request.get("argv"), "command")
    if not argv:
        raise UsageError("no command to run", "deskwarden exec SESSION -- CMD…")
    key, execution = await service.exec(
        session,
        tuple(argv),
        reading.environment(request.get("environment", {})),
        reading.overrides(request.get("overrides", {})),
        _terminal(request.get("terminal")),
        conversation.channel,
    )
    await _stay(conversation, session, execution, key, own=True)


async def attach(conversation: Conversation, request: dict[str, Any]) -> None:
    """Watch and type into a running session; the newest output is shown first."""
    session = conversation.service.find_live(conversation.caller, reading.session(request))
    console = session.main.console
    if console.client is not None:
        raise RefusedError(
            f"session {session.record.name} has a client attached", f"deskwarden logs -f {session.record.id}"
        )
    terminal = _terminal(request.get("terminal"))
    await conversation.channel.send_json(
        {"event": "started", "id": session.record.id, "name": session.record.name, "terminal": console.is_terminal}
    )
    replay = console.replay()
    if replay:
        await conversation.channel.send(protocol.STDOUT + replay)
    console.client = conversation.channel
    if terminal:
        console.resize(*terminal)
    await _stay(conversation, session, session.main, "", own=False)


async def _stay(conversation: Conversation, session: Session, execution: Execution, key: str, *, own: bool) -> None:
    """Carry input until the command ends or the client leaves."""
    service = conversation.service
    reading = asyncio.create_task(_carry_input(conversation, session, execution, key))
    ending = asyncio.create_task(execution.ended.wait())
    try:
        await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not execution.ended.is_set():
            execution.console.client = None
            if reading.exception() is not None:
                raise reading.exception()  # type: ignore[misc]
            left_running = reading.result()
            if left_running or not own:
                await conversation.result(id=session.record.id, name=session.record.name, detached=True)
            elif key:
                service.spawn(service.hang_up(session, key, execution), f"hang up {key} of {session.record.id}")
            else:
                service.spawn(service.stop(session, reason="its terminal went away"), f"stop {session.record.id}")
            return
    finally:
        reading.cancel()
        ending.cancel()
    execution.console.client = None
    fields: dict[str, Any] = {"id": session.record.id, "name": session.record.name, "code": execution.exit_code}
    if not key:
        await session.on_ended.wait()
        fields |= {"reason": session.record.reason, "card": await _card(conversation, session.record)}
    await conversation.channel.send_json({"event": "exit", **fields})


async def _card(conversation: Conversation, record: Record) -> dict[str, Any]:
    """Return what the card at exit shows; a review that fails must not hide the exit code."""
    card: dict[str, Any] = {"workspace": record.workspace, "mode": record.mode, "findings": record.report["findings"]}
    try:
        card |= await Reviews(conversation.service).summary(conversation.caller, record)
    except DeskwardenError as error:
        card["error"] = to_wire(error)
    return card


async def _look_for_stop(channel: Channel, console: Console, parent_pid: int) -> None:
    """Tell the client when Ctrl-Z stopped its command; a busy machine may take a while to stop it."""
    for _ in range(_SUSPEND_LOOKS):
        await asyncio.sleep(_SUSPEND_LOOK_S)
        if console.client is not channel:
            return
        if console.foreground_stopped(parent_pid):
            with contextlib.suppress(OSError):
                await channel.send(protocol.SUSPENDED)
            return


async def _carry_input(conversation: Conversation, session: Session, execution: Execution, key: str) -> bool:
    """Read the client's frames; returns True when it detached, False when it went away."""
    console = execution.console
    while True:
        payload, fds = await conversation.channel.receive()
        seqpacket.close_all(fds)
        if not payload:
            return False
        kind, body = payload[:1], payload[1:]
        if kind == protocol.STDIN:
            await console.feed(body)
            if console.is_terminal and _CTRL_Z in body:
                parent = 0 if key else session.record.pid
                conversation.service.spawn(_look_for_stop(conversation.channel, console, parent), "look for a stop")
        elif kind == protocol.WINDOW and len(body) == 4:
            console.resize(*struct.unpack("HH", body))
        elif kind == protocol.SIGNAL and len(body) == 1:
            await conversation.service.signal(session, body[0], key)
        elif kind == protocol.SUSPENDED:
            await conversation.service.resume(session)
        elif kind == protocol.DETACH:
            return True


# ---- looking ----


def _public(record: Record) -> dict[str, Any]:
    value = asdict(record)
    value["lasted_s"] = round(((record.ended_ns or now_ns()) - record.started_ns) / 1e9, 3)
    return value


async def ps(conversation: Conversation, request: dict[str, Any]) -> None:
    """List sessions, living ones only unless ``all``."""
    everything = reading.flag(request.get("all"), "--all")
    records = conversation.service.records(conversation.caller)
    if not everything:
        records = [record for record in records if record.state in LIVE_STATES]
    await conversation.result(sessions=[_public(record) for record in records])


async def show(conversation: Conversation, request: dict[str, Any]) -> None:
    """Show one session whole."""
    record = conversation.service.find(conversation.caller, reading.session(request))
    await conversation.result(session=_public(record))


async def status(conversation: Conversation, _request: dict[str, Any]) -> None:
    """Say what this service is and has."""
    foundation, service, people = conversation.foundation, conversation.service, conversation.approvers
    await conversation.result(
        service="rootless" if foundation.rootless else "system",
        pid=os.getpid(),
        launcher_pid=foundation.launcher_pid,
        runtime=foundation.places.runtime,
        state=foundation.places.state,
        sessions=len(service.live_of(conversation.caller)),
        approvers={
            "people": len(people.approvers.directory.people),
            "path": people.path,
            "problem": people.problem,
        },
        policy=conversation.upkeep.policy.status(),
        absent=[layer.name for layer in foundation.layers if layer.state is not LayerPresence.PRESENT],
    )


async def logs(conversation: Conversation, request: dict[str, Any]) -> None:
    """Send the output that is kept; with ``follow`` also what comes, until the session ends."""
    service = conversation.service
    record = service.find(conversation.caller, reading.session(request))
    follow = reading.flag(request.get("follow"), "--follow")
    path = service.log_path(record)
    kept, newest = LogReader(path + ".1"), LogReader(path)
    await _send_chunks(conversation, kept.chunks())
    while True:
        running = any(session.record.id == record.id for session in service.live_of(conversation.caller))
        await _send_chunks(conversation, newest.chunks())
        if not (follow and running):
            break
        await asyncio.sleep(_LOG_POLL_S)
    await conversation.result(id=record.id)


async def _send_chunks(conversation: Conversation, chunks: Iterator[bytes]) -> None:
    for chunk in chunks:
        await conversation.channel.send(protocol.STDOUT + chunk)


async def plan(conversation: Conversation, request: dict[str, Any]) -> None:
    """Describe a launch in words; nothing is started."""
    parsed, note = await stand(conversation, parse_run(request), replace(parse_wanted(request), can_ask=False))
    if parsed is not None:
        lines = await conversation.service.describe(conversation.caller, parsed)
        await conversation.result(plan=[*plan_lines(parsed.standing), *filter(None, [note]), *lines])


# ---- ending ----


async def stop(conversation: Conversation, request: dict[str, Any]) -> None:
    """End sessions in order; ``now`` kills."""
    service, caller = conversation.service, conversation.caller
    words = reading.strings(request.get("sessions", []), "SESSION") or ["last"]
    end = service.kill if reading.flag(request.get("now"), "now") else service.stop
    if reading.flag(request.get("all"), "--all"):
        sessions = service.live_of(caller)
    else:
        sessions = [service.find_live(caller, word) for word in words]
    await asyncio.gather(*(end(session) for session in sessions))
    await conversation.result(ended=[session.record.id for session in sessions])


async def prune(conversation: Conversation, request: dict[str, Any]) -> None:
    """Forget ended sessions: those that staged nothing, or ``all`` of them. Undo steps stay."""
    service, caller = conversation.service, conversation.caller
    reviews, everything = Reviews(service), reading.flag(request.get("all"), "--all")
    pruned, kept, failed = [], [], []
    for record in service.records(caller):
        if record.state in LIVE_STATES:
            continue
        if not everything and await _may_hold_changes(reviews, caller, record):
            kept.append(record.id)
            continue
        try:
            await service.forget(caller, record)
        except ServiceError as error:  # one that cannot go must not keep the others
            failed.append(error)
            continue
        pruned.append(record.id)
    if failed:
        raise failed[0]
    await conversation.result(pruned=pruned, kept=kept)


async def _may_hold_changes(reviews: Reviews, caller: Caller, record: Record) -> bool:
    try:
        return any(item["count"] for item in (await reviews.summary(caller, record)).values())
    except DeskwardenError:  # its folder is gone, or on a disk that is not there: nobody can say
        return True


# ---- reviewing ----


async def _review(conversation: Conversation, request: dict[str, Any], do: str, **fields: Any) -> tuple[Record, Any]:
    service, caller = conversation.service, conversation.caller
    cwd = reading.absolute(reading.word(request.get("cwd"), "cwd") or "/", "cwd")
    paths = reading.strings(request.get("paths", []), "PATH")
    record = service.find(caller, reading.session(request), cwd)
    return record, await Reviews(service).each_area(caller, record, do, paths, cwd, **fields)


async def changes(conversation: Conversation, request: dict[str, Any]) -> None:
    """Return what changed, as values and as ``--stat`` text."""
    record, results = await _review(
        conversation, request, "changes", stat=True, held=reading.flag(request.get("held"), "--held")
    )
    await conversation.result(id=record.id, areas=[{"area": area} | answer for area, answer, _fds in results])


async def diff(conversation: Conversation, request: dict[str, Any]) -> None:
    """Send the patch, area by area."""
    record, results = await _review(conversation, request, "diff", held=reading.flag(request.get("held"), "--held"))
    count = 0
    for _area, answer, fds in results:
        count += answer["count"]
        await _send_chunks(conversation, chunks_of(fds.pop(0)))
    await conversation.result(id=record.id, count=count)


async def apply(conversation: Conversation, request: dict[str, Any]) -> None:
    """Apply what was named, or all that is not held."""
    record, results = await _review(conversation, request, "apply", held=reading.flag(request.get("held"), "--held"))
    await conversation.result(id=record.id, areas=[{"area": area} | answer for area, answer, _fds in results])


async def discard(conversation: Conversation, request: dict[str, Any]) -> None:
    """Take changes off the list; the agent's own view stays as it is."""
    record, results = await _review(conversation, request, "discard")
    await conversation.result(id=record.id, areas=[{"area": area} | answer for area, answer, _fds in results])


async def undo(conversation: Conversation, request: dict[str, Any]) -> None:
    """List steps, or take one back."""
    reviews, caller = Reviews(conversation.service), conversation.caller
    listed, word = reading.flag(request.get("list"), "--list"), reading.word(request.get("session"), "SESSION")
    number = reading.number(request["step"], "--step", 0, _HIGHEST_STEP) if request.get("step") is not None else None
    cwd = reading.absolute(reading.word(request.get("cwd"), "cwd") or "/", "cwd")
    paths = reading.strings(request.get("paths", []), "PATH")
    steps = await reviews.steps(caller)
    if listed:
        await conversation.result(steps=steps)
        return
    if word:
        record = conversation.service.find(caller, word)
        steps = [step for step in steps if step["session"].startswith(record.id + "-")]
    open_steps = [step for step in steps if not step["undoes"] and step["state"] in ("applied", "partly undone")]
    open_steps = [step for step in open_steps if is_in(cwd, step["folder"])] or open_steps
    chosen = open_steps[-1:] if number is None else [step for step in steps if step["step"] == number]
    if not chosen:
        raise UsageError("nothing to undo" if number is None else f"no step {number} to undo", "deskwarden undo --list")
    answer = await reviews.undo(caller, int(chosen[0]["step"]), paths, cwd, chosen[0]["folder"])
    await conversation.result(undone=chosen[0]["step"], folder=chosen[0]["folder"], **answer)


HANDLERS: Final[dict[str, Handler]] = {
    **approval_verbs.HANDLERS,
    **secret_verbs.HANDLERS,
    **recert_verbs.HANDLERS,
    "run": run,
    "exec": execute,
    "attach": attach,
    "ps": ps,
    "show": show,
    "status": status,
    "logs": logs,
    "plan": plan,
    "stop": stop,
    "prune": prune,
    "changes": changes,
    "diff": diff,
    "apply": apply,
    "discard": discard,
    "undo": undo,
}
