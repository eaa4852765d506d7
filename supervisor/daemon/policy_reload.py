"""Watch the directory of the policy, and say when it came to rest after a change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from supervisor.session.tasks import Tasks

# An editor writes a file in several steps, a package manager several files.
SETTLE_S: Final = 0.3

_WATCHED: Final = ("created", "modified", "moved", "deleted", "closed")


class PolicyReload(FileSystemEventHandler):
    """Call *reload* when *directory* has changed and nothing more has happened for `SETTLE_S`."""

    def __init__(self, directory: str, reload: Callable[[], Awaitable[None]]) -> None:
        self._directory, self._reload = directory, reload
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = Tasks()
        self._observer: BaseObserver = Observer()

    def start(self) -> None:
        """Begin to watch, in a thread of watchdog's; nothing is loaded yet.

        Raises:
            OSError: The directory cannot be watched.
        """
        self._observer.schedule(self, self._directory)
        self._observer.start()

    def stop(self) -> None:
        """Stop watching; blocks until the thread has ended."""
        self._observer.stop()
        self._observer.join()

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
        self._tasks.spawn(self._run(), "reload the policy")

    async def _run(self) -> None:
        await self._reload()
