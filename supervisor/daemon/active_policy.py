"""The policy that decides now: rules and roles as one value, swapped at once, and what is wrong with a newer one.

A bundle is read, checked and put on record before it decides. One that fails any step changes nothing: the last good
one goes on, the log and ``status`` say why. Without any, everything is denied.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from supervisor.broker import journal, records
from supervisor.broker.journal import Entry
from supervisor.broker.store import Store
from supervisor.clock import now_ns
from supervisor.daemon.policy_reload import PolicyReload
from supervisor.daemon.policy_source import PACKAGED, Found, PolicySource
from supervisor.errors import DeskwardenError, ServiceError
from supervisor.policy.bundle_lint import check_bundle
from supervisor.policy.bundle_source import Bundle
from supervisor.policy.role import Roles, parse_roles

_logger = logging.getLogger(__name__)

# How often it is looked whether the directory was replaced as a whole, which ends a watch on it.
LOOK_S: Final = 2.0


class Loader(Protocol):
    """What the policy is loaded into; `WorkerEngine` is one."""

    async def load(self, bundle: Bundle) -> None:
        """Let *bundle* answer from now on.

        Raises:
            DeskwardenError: It does not; the one before goes on.
        """


@dataclass(frozen=True, slots=True)
class Active:
    """What decides, with its roles."""

    found: Found
    roles: Roles
    since_ns: int

    @property
    def revision(self) -> str:
        return self.found.bundle.revision

    def is_expired(self, now_s: int) -> bool:
        """Return whether its signature's time is over: then it may only deny and ask."""
        return 0 < self.found.expires_s <= now_s


class ActivePolicy:
    """Keeps what decides at what lies on the disk.

    Args:
        on_change: Told when another policy than before decides.
    """

    def __init__(self, source: PolicySource, engine: Loader, store: Store, on_change: Callable[[Active], None]) -> None:
        self._source, self._engine, self._store, self._on_change = source, engine, store, on_change
        self._loading = asyncio.Lock()
        self._watch: PolicyReload | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._is_gone = True
        self.active: Active | None = None
        self.problem: DeskwardenError | None = None

    async def start(self) -> None:
        """Load what there is, and go on watching."""
        await self.reload()
        self._task = asyncio.create_task(self._look(), name="policy")

    async def stop(self) -> None:
        """Stop watching; what decides goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._watch is not None:
            await asyncio.to_thread(self._watch.stop)
            self._watch = None

    async def reload(self) -> None:
        """Let decide what lies there now, unless it does already."""
        async with self._loading:
            before = self.active
            try:
                self.active = await self._load()
            except DeskwardenError as error:
                self._again = isinstance(error, ServiceError)  # a full disk, a worker that is being started
                await self._refuse(error)
                return
            if self.problem is not None:
                _logger.info("policy: what was wrong is repaired")
            self.problem, self._again = None, False
            if self.active is not before:
                _logger.info("policy %s from %s", self.active.revision, self.active.found.source)
                if before is not None:
                    self._on_change(self.active)

    async def _load(self) -> Active:
        found = await asyncio.to_thread(self._source.find, now_ns() // 10**9)
        if self.active is not None and (self.active.found == found or (found.source == PACKAGED and not self._is_gone)):
            return self.active
        if found.source != PACKAGED:
            check_bundle(found.bundle)
        roles = parse_roles(found.bundle.roles, f"{found.bundle.path}/roles.json")
        await self._store.commit(lambda db: _keep(db, found))
        if self.active is None or self.active.revision != found.bundle.revision:
            await self._engine.load(found.bundle)
        # No step of another task lies between the worker's answer and this: see `Judge`.
        return Active(found, roles, now_ns())

    async def _refuse(self, error: DeskwardenError) -> None:
        if self.problem is not None and self.problem.message == error.message:
            return
        self.problem = error
        kept = f"revision {self.active.revision} goes on" if self.active else "every request is denied"
        _logger.error("policy: %s; %s", error.message, kept)
        body = {"state": "refused", "why": error.message[:4000], "kept": self.active.revision if self.active else ""}
        try:
            await self._store.commit(lambda db: journal.append(db, Entry("policy", now_ns(), "", "policy", body)))
        except DeskwardenError as unwritten:
            _logger.error("policy: %s", unwritten.message)  # noqa: TRY400 - the text says it all

    # ---- watching ----

    async def _look(self) -> None:
        """Reload what the watch does not tell of: another directory, settings, rights, a disk without inotify."""
        watched, seen, last = "", "", ""
        while True:
            place, now = self._identity()
            if place != watched:
                # Whoever replaces it as a whole removes it for a moment: it is gone when it is still gone next time.
                self._is_gone = False
                watched = place
                await self._watch_anew(place)
                await self.reload()
            elif self._again or (now != seen and now == last) or not (place or self._is_gone):
                seen = now
                self._is_gone = not place
                await self.reload()
            last = now
            await asyncio.sleep(LOOK_S)

    def _identity(self) -> tuple[str, str]:
        """Return what changes when the directory is replaced (empty without one), and when anything in it changes."""
        managed, directory = self._source.managed, self._source.directory
        try:
            place = _mark(directory, with_time=False)
            files = [f"{folder}/{name}" for folder in (directory, managed) for name in sorted(os.listdir(folder))]
            return place, " ".join(_mark(path) for path in files)
        except OSError:
            return "", ""

    async def _watch_anew(self, identity: str) -> None:
        if self._watch is not None:
            await asyncio.to_thread(self._watch.stop)
            self._watch = None
        if not identity:
            return
        watch = PolicyReload(self._source.directory, self.reload)
        try:
            watch.start()
        except OSError as error:  # the next look tries again
            _logger.warning("policy: %s cannot be watched: %s", self._source.directory, error)
            return
        self._watch = watch

    def status(self) -> dict[str, Any]:
        """Return what ``status`` shows."""
        active, problem = self.active, self.problem
        return {
            "revision": active.revision if active else "",
            "source": active.found.source if active else "",
            "since_ns": str(active.since_ns) if active else "0",
            "seq": active.found.seq if active else 0,
            "signers": list(active.found.signers) if active else [],
            "expires_s": active.found.expires_s if active else 0,
            "expired": bool(active and active.is_expired(now_ns() // 10**9)),
            "problem": problem.message if problem else "",
            "next": problem.next_step if problem else "",
        }


def _keep(db: sqlite3.Connection, found: Found) -> None:
    if found.seq:
        records.keep_policy(db, found.seq, found.bundle.revision)
    body = {
        "state": "active",
        "revision": found.bundle.revision,
        "source": found.source,
        "seq": str(found.seq),
        "signers": list(found.signers),
    }
    journal.append(db, Entry("policy", now_ns(), "", "policy", body))


def _mark(path: str, with_time: bool = True) -> str:
    status = os.stat(path, follow_symlinks=False)
    return f"{status.st_dev}:{status.st_ino}:{status.st_ctime_ns if with_time else ''}"
