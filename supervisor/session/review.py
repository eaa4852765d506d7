"""Reviewing a session's staged changes: the hand opens, the launcher overlays, the hand compares and applies."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

from supervisor.errors import LaunchError, RefusedError, ServiceError, UsageError, from_wire
from supervisor.linux import seqpacket
from supervisor.sandbox.operations import Overlay, to_json
from supervisor.sandbox.plan import ROOTLESS_OVERLAY
from supervisor.session.channel import Channel
from supervisor.session.hands import Hand
from supervisor.session.service import Caller, SessionService
from supervisor.session.state import NEXT_STEP, Record

# No index here: the session's own mount of the same upper has it, and two cannot. Inode numbers must stay the lower's.
SYSTEM_REVIEW_OVERLAY: Final = {"redirect_dir": "on", "index": "off", "metacopy": "off", "xino": "on"}

_T = TypeVar("_T")

# What a disk says that takes nothing more.
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Reviews:
    """diff, apply, discard and undo, per owner."""

    def __init__(self, service: SessionService) -> None:
        self._service = service

    async def each_area(
        self, caller: Caller, record: Record, do: str, paths: list[str], cwd: str, **fields: Any
    ) -> list[tuple[str, dict[str, Any], list[int]]]:
        """Ask *do* of each area that *paths* touch (all of them without paths); the descriptors are the caller's.

        Raises:
            UsageError: A path lies in no area of the session.
            RefusedError: The session has no staged area.
        """
        if not record.areas:
            raise RefusedError(
                f"session {record.name} worked directly on {record.workspace}: nothing is staged", "git diff"
            )
        hand = await self._service.hand_of(caller)
        results: list[tuple[str, dict[str, Any], list[int]]] = []
        for area, number in zip(record.areas, record.numbers, strict=True):
            relative = paths_in_area(paths, cwd, record.areas, area)
            if paths and not relative:
                continue
            asking = partial(self._ask_one, hand, record, area, number, do, relative, fields)
            answer, fds = await self._with_room(asking)
            results.append((area, answer, fds))
        if paths and do in ("changes", "diff") and not any(_found(answer) for _area, answer, _fds in results):
            for _area, _answer, fds in results:
                seqpacket.close_all(fds)
            raise UsageError(f"no session and no change is called {paths[0]!r}", "deskwarden diff --stat")
        return results

    async def _with_room(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask; on a full disk once more, with the reserve: what was not finished has left everything as it was."""
        try:
            return await ask()
        except LaunchError as error:
            if error.error_number not in FULL:
                raise
            if not self._service.make_room():
                raise LaunchError(error.step, error.error_number, error.detail, error.next_step or NEXT_STEP) from error
        return await ask()

    async def _ask_one(
        self, hand: Hand, record: Record, area: str, number: int, do: str, paths: list[str], fields: dict[str, Any]
    ) -> tuple[dict[str, Any], list[int]]:
        opened, fds = await hand.ask("area", session=record.id, number=number, path=area)
        try:
            if opened["empty"] and do == "changes":
                return {"changes": [], "stat": ""}, []
            await self._service.torn_down(record.id)
            fds.append(await self._overlay(record, area, fds))
            return await hand.ask(
                do,
                tuple(fds),
                session=record.id,
                number=number,
                path=area,
                paths=paths,
                baseline=record.baseline,
                runs_later=record.runs_later,
                **fields,
            )
        finally:
            seqpacket.close_all(fds)

    async def _overlay(self, record: Record, area: str, fds: list[int]) -> int:
        options = ROOTLESS_OVERLAY if self._service.rootless else SYSTEM_REVIEW_OVERLAY
        overlay = Overlay([0], area, area, dict(options), stage=1, read_only=True, detached=True, work="review")
        ours, theirs = seqpacket.pair()
        channel = Channel(ours)
        try:
            try:
                await self._service.launcher.ask("review", (theirs.fileno(),), id=record.id)
            finally:
                theirs.close()
            await channel.send_json({"operations": [to_json(overlay)]}, tuple(fds))
            received = await channel.receive_json()
        finally:
            channel.close()
        if received is None:
            raise ServiceError("the launcher's review process died", "run the command again")
        message, out = received
        if message.get("event") == "error" or len(out) != 1:
            seqpacket.close_all(out)
            raise from_wire(message.get("error", {}))
        return out[0]

    async def summary(self, caller: Caller, record: Record) -> dict[str, Any]:
        """Return counts for the card at exit: changed, held, conflicts, refused; and the first names of each."""
        counts: dict[str, list[str]] = {"changed": [], "held": [], "conflicts": [], "refused": []}
        if record.areas:
            for _area, answer, fds in await self.each_area(caller, record, "changes", [], "/"):
                seqpacket.close_all(fds)
                for change in answer["changes"]:
                    key = (
                        "refused"
                        if change["refused"]
                        else "conflicts"
                        if change["conflict"]
                        else "held"
                        if change["held"]
                        else "changed"
                    )
                    counts[key].append(change["path"])
        return {key: {"count": len(names), "names": names[:5]} for key, names in counts.items()}

    async def undo(self, caller: Caller, step: int, paths: list[str], cwd: str, folder: str) -> dict[str, Any]:
        """Take a step back."""
        hand = await self._service.hand_of(caller)
        relative = paths_in_area(paths, cwd, [folder], folder) if folder else paths
        answer, fds = await self._with_room(partial(hand.ask, "undo", step=step, paths=relative))
        seqpacket.close_all(fds)
        return answer

    async def steps(self, caller: Caller) -> list[dict[str, Any]]:
        """Return every apply and undo of the caller, oldest first."""
        hand = await self._service.hand_of(caller)
        answer, fds = await hand.ask("steps")
        seqpacket.close_all(fds)
        return list(answer["steps"])


def paths_in_area(paths: list[str], cwd: str, areas: list[str], area: str) -> list[str]:
    """Return *paths* as typed in *cwd*, relative to *area*; what lies in another area is left out.

    A relative path is one of the current directory when that lies in an area, else one of the first area.

    Raises:
        UsageError: A path lies in none of *areas*.
    """
    inside = any(_relative(cwd, one) is not None for one in areas)
    found = []
    for path in paths:
        absolute = os.path.normpath(os.path.join(cwd if inside else areas[0], path))
        if all(_relative(absolute, one) is None for one in areas):
            raise UsageError(f"{path}: outside of {', '.join(areas)}", "name a path that deskwarden diff --stat shows")
        relative = _relative(absolute, area)
        if relative is not None:
            found.append(relative)
    return found


def _found(answer: dict[str, Any]) -> bool:
    return bool(answer.get("changes") or answer.get("count"))


def is_in(path: str, folder: str) -> bool:
    """Return whether *path* is *folder* or lies below it."""
    return _relative(path, folder) is not None


def _relative(path: str, area: str) -> str | None:
    if path == area:
        return ""
    return path[len(area) + 1 :] if path.startswith(area.rstrip("/") + "/") else None
