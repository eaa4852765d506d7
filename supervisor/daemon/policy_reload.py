"""Watch the directory of the policy: a good change answers from then on, a broken one is told and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from supervisor.daemon.policy_client import WorkerEngine
from supervisor.errors import DeskwardenError
from supervisor.policy.bundle_lint import check_bundle
from supervisor.policy.bundle_source import read_bundle
from supervisor.session.tasks import Tasks

# An editor writes a file in several steps, a package manager several files.
SETTLE_S: Final = 0.3

_WATCHED: Final = ("created", "modified", "moved", "deleted", "closed")


class PolicyReload(FileSystemEventHandler):
    """Keep *engine* at what lies in *directory*.

    Args:
        on_loaded: Told the new revision.
        on_broken: Told why the bundle on disk is not used, and the revision that goes on answering.
    """

    def __init__(
        self,
        directory: str,
        engine: WorkerEngine,
        on_loaded: Callable[[str], None],
        on_broken: Callable[[DeskwardenError, str], None],
    ) -> None:
        self._directory, self._engine = directory, engine
        self._on_loaded, self._on_broken = on_loaded, on_broken
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._loading = asyncio.Lock()
        self._tasks = Tasks()
        self._observer: BaseObserver = Observer()

    def start(self) -> None:
        """Begin to watch, in a thread of watchdog's; nothing is loaded yet, see `reload`.

        Raises:
            OSError: The directory cannot be watched.
        """
        self._observer.schedule(self, self._directory)
        self._observer.start()

    def stop(self) -> None:
        """Stop watching."""
        self._observer.stop()
        self._observer.join()
        if self._timer is not None:
            self._timer.cancel()

    async def reload(self) -> None:
        """Load what lies there now, unless it is what answers already."""
        async with self._loading:
            try:
                bundle = await asyncio.to_thread(read_bundle, self._directory)
                if bundle.revision == self._engine.revision:
                    return
                check_bundle(bundle)
                await self._engine.load(bundle)
            except DeskwardenError as error:
                self._on_broken(error, self._engine.revision)
            else:
                self._on_loaded(bundle.revision)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called in watchdog's thread."""
        if event.event_type in _WATCHED:
            with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(SETTLE_S, self._begin)

    def _begin(self) -> None:
        self._tasks.spawn(self.reload(), "reload the policy")
