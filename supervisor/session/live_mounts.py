"""Files granted to a session that runs: mounts put into its sandbox, and taken back with the launcher's proof.

What is granted was opened by the owner's hand; here it becomes the launcher's plan. Descriptors stay the caller's.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from supervisor.errors import LaunchError, RefusedError, ServiceError, from_wire
from supervisor.linux import seqpacket
from supervisor.sandbox import plan as planning
from supervisor.sandbox.operations import to_json
from supervisor.sandbox.plan import Source
from supervisor.sandbox.profile import is_within
from supervisor.session.channel import Channel
from supervisor.session.launcher_client import LauncherClient
from supervisor.session.session import Session

# Both take milliseconds; a child that does not answer in this time hangs in the kernel.
GRANT_DEADLINE_S: Final = 20.0
WITHDRAW_DEADLINE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Item:
    """One file or directory to show, at the path that it has for its owner.

    Attributes:
        kind: ``directory`` or ``file``.
        fd: What the hand opened (O_PATH).
        stage: A directory that holds ``upper`` and ``work``: staged for writing; directories only.
    """

    path: str
    kind: str
    fd: int
    stage: int | None = None


@dataclass(frozen=True, slots=True)
class Layers:
    """What the mounts of a session are made with, as at its launch.

    Attributes:
        empty: An empty directory, as the hand gives it with what it opened.
        idmap: The user namespace that maps the owner to the agent; None where the agent has the owner's uid.
    """

    empty: int
    idmap: int | None
    rootless: bool


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount in the sandbox; id and device find it wherever the agent has moved it."""

    path: str
    mount_id: int
    device: tuple[int, int]
    staged: bool


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """How it ended: nobody holds anything of it.

    Attributes:
        ended: ``unmounted``, ``holders killed``, ``session killed``, ``session ended`` (before we came).
        took_ms: From the call to the proof.
        also: Ids of mounts that lay on those asked for and went with them.
        held: Descriptors of staged mounts, the caller's. Closing the last one writes the disk back (seconds: do it
            in a thread), and only afterwards can what was staged be reviewed.
    """

    ended: str
    killed: int
    took_ms: float
    also: tuple[int, ...] = ()
    held: tuple[int, ...] = ()


async def grant(launcher: LauncherClient, session: Session, items: Sequence[Item], layers: Layers) -> list[Mounted]:
    """Show *items* in the running session, in their order: all of them, or none.

    Raises:
        RefusedError: Landlock of this session does not cover a place, or something is in the way there.
        LaunchError: A step failed, by name.
    """
    for item in items:
        check_covered(session.plan.landlock, item)
    operations, fds = _operations(items, layers)
    answer, out = await _ask(launcher, "grant", session, {"operations": operations}, fds, GRANT_DEADLINE_S)
    seqpacket.close_all(out)
    if answer is None:
        raise ServiceError("the process that mounts a grant died", "ask again")
    if answer.get("event") == "error":
        left = [_mounted(entry) for entry in answer.get("mounted", [])]
        if left:
            seqpacket.close_all(list((await withdraw(launcher, session, left)).held))
        raise from_wire(answer["error"])
    return [_mounted(entry) for entry in answer["mounted"]]


async def withdraw(launcher: LauncherClient, session: Session, mounted: Iterable[Mounted]) -> Withdrawn:
    """Take mounts back, of one grant or of many: on return nobody in the session holds anything of them.

    Raises:
        DeskwardenError: It could not be proved, whatever was tried; the caller has to end the session.
    """
    start = time.monotonic()
    mounts = [{"id": one.mount_id, "device": list(one.device)} for one in mounted]
    answer, held = await _ask(launcher, "withdraw", session, {"mounts": mounts}, (), WITHDRAW_DEADLINE_S)
    took_ms = (time.monotonic() - start) * 1000
    if answer is None:
        raise ServiceError("the process that takes a grant back died", f"deskwarden kill {session.record.id}")
    if answer["event"] == "ended":
        return Withdrawn("session ended", 0, took_ms)
    if answer["event"] == "error":
        seqpacket.close_all(held)
        raise from_wire(answer["error"])
    return Withdrawn(str(answer["ended"]), int(answer["killed"]), took_ms, tuple(answer["also"]), tuple(held))


def check_covered(rules: Iterable[tuple[str, str]], item: Item) -> None:
    """Refuse a place that the session's Landlock rules do not cover: they were set at its start, and stay.

    Raises:
        RefusedError: Says how it can be had.
    """
    wanted = ("write",) if item.stage is not None else ("write", "read")
    if not any(access in wanted and is_within(os.fsencode(item.path), os.fsencode(path)) for path, access in rules):
        how = "written" if item.stage is not None else "read"
        raise RefusedError(
            f"{item.path}: cannot be {how} in a session that runs: it lies outside of its writable places",
            f"start it with: deskwarden run {'-w' if item.stage is not None else '-r'} {item.path} …",
        )


def _operations(items: Sequence[Item], layers: Layers) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    fds = [layers.empty]
    if layers.idmap is not None:
        fds.append(layers.idmap)
    idmap = None if layers.idmap is None else 1
    operations = []
    for item in items:
        fds.append(item.fd)
        source = Source(item.path, item.kind, "read", len(fds) - 1)
        stage = None
        if item.stage is not None:
            fds.append(item.stage)
            stage = len(fds) - 1
        operations.append(to_json(planning.area(source, stage, 0, layers.rootless, idmap)))
    return operations, tuple(fds)


async def _ask(
    launcher: LauncherClient, do: str, session: Session, plan: dict[str, Any], fds: tuple[int, ...], deadline_s: float
) -> tuple[dict[str, Any] | None, list[int]]:
    """Send a plan to a child of the launcher's; returns its answer (None: it died) and the descriptors with it."""
    ours, theirs = seqpacket.pair()
    channel = Channel(ours)
    try:
        with theirs:
            # It lies ready when the child looks.
            await channel.send_json(plan, fds)
            answer, _none = await launcher.ask(do, (theirs.fileno(),), id=session.record.id)
        if answer.get("ended"):
            return {"event": "ended"}, []
        async with asyncio.timeout(deadline_s):
            return await channel.receive_json() or (None, [])
    except TimeoutError:
        raise LaunchError(do, 110, f"no answer after {deadline_s:.0f} s", "deskwarden doctor") from None
    finally:
        channel.close()


def _mounted(entry: dict[str, Any]) -> Mounted:
    major, minor = entry["device"]
    return Mounted(str(entry["path"]), int(entry["id"]), (int(major), int(minor)), bool(entry["staged"]))
