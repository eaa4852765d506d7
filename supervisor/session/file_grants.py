"""Files granted to a running session: opened or copied by the owner's hand, mounted and taken back by the launcher."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, Final, Protocol

from supervisor.broker.enforcer import Effected
from supervisor.broker.grant import Grant
from supervisor.errors import ConflictError, RefusedError
from supervisor.linux import seqpacket
from supervisor.session import live_mounts
from supervisor.session.hands import Hand, Hands
from supervisor.session.launcher_client import LauncherClient
from supervisor.session.live_mounts import Item, Layers, Mounted
from supervisor.session.session import Session

_OPEN_DEADLINE_S: Final = 20.0
_COPY_DEADLINE_S: Final = 120.0
_TREE: Final = "/**"


class Sessions(Protocol):
    """What the enforcer needs of the sessions' owner."""

    def living_session(self, session_id: str) -> Session | None:
        """Return a living session, or None."""

    async def mapping_of(self, session: Session) -> int | None:
        """Return the mapping owner → agent (the service's descriptor), or None when both are one uid."""


class FileEnforcer:
    """Shows what is granted at its own path, read-only."""

    def __init__(self, launcher: LauncherClient, hands: Hands, sessions: Sessions, rootless: bool) -> None:
        self._launcher = launcher
        self._hands = hands
        self._sessions = sessions
        self._rootless = rootless
        self._mounted: dict[str, list[Mounted]] = {}
        self._owners: dict[str, tuple[int, int]] = {}

    async def apply(self, grant: Grant) -> Effected:
        """Show it; see `Enforcer`."""
        start = time.monotonic()
        if grant.capability.operations != ("read",):
            raise RefusedError(
                f"{grant.capability.selector}: a running session can be shown files, not given them to change",
                "start it with: deskwarden run -w FOLDER …",
            )
        session = self._sessions.living_session(grant.session)
        if session is None:
            raise RefusedError(f"session {grant.session} has ended")
        owner = session.record.owner_uid, session.record.owner_gid
        hand = await self._hands.of(*owner)
        try:
            mounted = await self._show(grant, session, hand)
        except BaseException:
            await self._drop_copy(grant, hand)
            raise
        self._mounted[grant.id] = mounted
        self._owners[grant.id] = owner
        took_ms = (time.monotonic() - start) * 1000
        return Effected(took_ms, {"shown": "\n".join(one.path for one in mounted)})

    async def _show(self, grant: Grant, session: Session, hand: Hand) -> list[Mounted]:
        fds: list[int] = []
        try:
            items, empty = await (self._copied if grant.copy else self._opened)(grant, hand, fds)
            layers = Layers(empty, await self._sessions.mapping_of(session), self._rootless)
            if session.stubs is not None:
                for item in items:
                    session.stubs.admit(item.path, item.kind)
            try:
                return await live_mounts.grant(self._launcher, session, items, layers)
            except BaseException:
                self._forget(session, [item.path for item in items])
                raise
        finally:
            seqpacket.close_all(fds)

    async def _opened(self, grant: Grant, hand: Hand, fds: list[int]) -> tuple[list[Item], int]:
        """Open what lies there now, and see that it is what was asked for."""
        wanted = [{"path": item.path, "purpose": "read", "required": True} for item in grant.items]
        sources, empty = await self._open(hand, wanted, fds)
        items = []
        for item in grant.items:
            source = sources.get(item.path)
            status = os.fstat(fds[source["fd"]]) if source else None
            if source is None or status is None or (status.st_dev, status.st_ino) != (item.device, item.inode):
                raise ConflictError(f"{item.path}: is no longer what was asked for", "ask again")
            items.append(Item(item.path, source["kind"], fds[source["fd"]]))
        return items, empty

    async def _copied(self, grant: Grant, hand: Hand, fds: list[int]) -> tuple[list[Item], int]:
        root = root_of(grant.capability.selector)
        items = [
            {
                "path": item.path,
                "device": item.device,
                "inode": item.inode,
                "size": item.size_bytes,
                "ctime_ns": item.changed_ns,
            }
            for item in grant.items
        ]
        _answer, copied = await hand.ask("copy", (), _COPY_DEADLINE_S, id=grant.id, root=root, items=items)
        fds += copied
        folder = copied[0]
        _sources, empty = await self._open(hand, [], fds)
        return [Item(root, "directory", folder)], empty

    @staticmethod
    async def _open(hand: Hand, items: list[dict[str, Any]], fds: list[int]) -> tuple[dict[str, dict[str, Any]], int]:
        """Have the hand open *items*; returns them by path, with indices into *fds*, and an empty folder."""
        answer, opened = await hand.ask("open", (), _OPEN_DEADLINE_S, items=items, home="/", mode="staged", id="")
        first = len(fds)
        fds += opened
        sources = {one["path"]: one | {"fd": one["fd"] + first} for one in answer["sources"] if one["fd"] >= 0}
        return sources, fds[sources.pop("")["fd"]]

    async def withdraw(self, grant: Grant, reason: str) -> Effected:
        """Take it back, with the launcher's proof that nobody holds it; see `Enforcer`."""
        start = time.monotonic()
        mounted = self._mounted.pop(grant.id, [])
        session = self._sessions.living_session(grant.session)
        details = {"ended": "with its session"}
        if session is not None and mounted:
            done = await live_mounts.withdraw(self._launcher, session, mounted)
            self._forget(session, [one.path for one in mounted])
            await asyncio.to_thread(seqpacket.close_all, list(done.held))
            details = {"ended": done.ended, "killed": str(done.killed)}
        took_ms = (time.monotonic() - start) * 1000
        if grant.copy and (owner := self._owners.pop(grant.id, None)):
            await self._drop_copy(grant, await self._hands.of(*owner))
        return Effected(took_ms, details)

    @staticmethod
    def _forget(session: Session, paths: list[str]) -> None:
        if session.stubs is not None:
            for path in paths:
                session.stubs.forget(path)

    @staticmethod
    async def _drop_copy(grant: Grant, hand: Hand) -> None:
        if grant.copy:
            await hand.ask("drop_copy", (), _OPEN_DEADLINE_S, id=grant.id)


def root_of(selector: str) -> str:
    """Return the folder that a pattern's matches, or a single file, lie in."""
    if selector.endswith(_TREE):
        return selector.removesuffix(_TREE)
    parts = selector.split("/")
    first = next((index for index, part in enumerate(parts) if "*" in part), len(parts) - 1)
    return "/".join(parts[:first]) or "/"
