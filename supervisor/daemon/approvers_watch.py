"""Watch for a changed ``approvers.json``: the broker knows the new people, or the log says why it does not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from supervisor.broker.broker import Broker
from supervisor.daemon.approvers import Reader

_logger = logging.getLogger(__name__)

# An editor writes a file in several steps.
SETTLE_S: Final = 0.3
# A change of rights is "modified" or "attrib", by the version of watchdog.
_WATCHED: Final = ("created", "modified", "attrib", "moved", "deleted", "closed")


class ApproversWatch(FileSystemEventHandler):
    """Keeps the broker's directory at what *reader* reads. What cannot be watched is read at the start only."""

    def __init__(self, reader: Reader, broker: Broker) -> None:
        self._reader, self._broker = reader, broker
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._observer: BaseObserver | None = None
        self._watches: dict[str, ObservedWatch] = {}

    def start(self) -> None:
        """Read what there is, and begin to watch in a thread of watchdog's."""
        observer = Observer()
        try:
            observer.start()
            self._observer = observer
            self._follow()
        except OSError as error:
            _logger.warning("approvers: changes are seen only after a restart: %s", error)
        self.reload()

    def stop(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
        if self._timer is not None:
            self._timer.cancel()

    def reload(self) -> None:
        """Read the file, and tell the log what that changed."""
        before, problem = self._reader.approvers.directory, self._reader.problem
        if not self._reader.read():
            if self._reader.problem != problem:
                _logger.error(
                    "approvers: %s; %d people of before stay in force", self._reader.problem, len(before.people)
                )
            return
        self._broker.directory = self._reader.approvers.directory
        if self._broker.directory != before or problem:
            _logger.info(
                "approvers: %d people from %s", len(self._broker.directory.people), self._reader.path or "nowhere"
            )

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called in watchdog's thread."""
        if event.event_type in _WATCHED:
            with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_S, self._begin)

    def _begin(self) -> None:
        self._timer = None
        try:
            self._follow()
        except OSError as error:
            _logger.warning("approvers: changes are seen only after a restart: %s", error)
        self.reload()

    def _follow(self) -> None:
        """Watch each folder, or what exists of the way to it."""
        if self._observer is None:
            return
        wanted = {_existing(folder) for folder in self._reader.folders}
        for path in self._watches.keys() - wanted:
            self._observer.unschedule(self._watches.pop(path))
        for path in wanted - self._watches.keys():
            self._watches[path] = self._observer.schedule(self, path)


def _existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
