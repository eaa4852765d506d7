"""The daemon's side of the launcher's control socket."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

from supervisor.errors import ServiceError, from_wire
from supervisor.linux import seqpacket
from supervisor.session.channel import Channel

_logger = logging.getLogger(__name__)

ExitListener = Callable[[dict[str, Any]], None]


class LauncherClient:
    """Ask the launcher, and hear of every process that ended."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self.on_exit: ExitListener = lambda _event: None
        self.on_lost: Callable[[], None] = lambda: None
        self.has_cgroup = False
        self.cgroup_finding = ""
        self.controllers: tuple[str, ...] = ()

    async def start(self) -> None:
        """Wait until the launcher is ready.

        Raises:
            DeskwardenError: What the launcher said, e.g. that no init is installed.
        """
        received = await self._channel.receive_json()
        if received is None:
            raise ServiceError(
                "the launcher ended before it was ready", "see its messages above, or: deskwarden doctor"
            )
        event = received[0]
        if event.get("event") != "ready":
            raise from_wire(event.get("error", {}))
        self.has_cgroup = bool(event["cgroup"])
        self.cgroup_finding = str(event["cgroup_finding"])
        self.controllers = tuple(event["controllers"])

    async def read(self) -> None:
        """Read answers and events until the launcher is gone; run as a task."""
        try:
            while (received := await self._channel.receive_json()) is not None:
                message, fds = received
                if "event" in message:
                    seqpacket.close_all(fds)
                    self.on_exit(message)
                    continue
                waiting = self._waiting.pop(int(message.get("seq") or 0), None)
                if waiting is None or waiting.done():
                    seqpacket.close_all(fds)
                else:
                    waiting.set_result((message, fds))
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ServiceError("the launcher is gone", "start the service again"))
            self.on_lost()

    async def ask(self, do: str, fds: tuple[int, ...] = (), **fields: Any) -> tuple[dict[str, Any], list[int]]:
        """Send one request; returns the answer and its descriptors (the caller's).

        Raises:
            DeskwardenError: What the launcher refused or could not do.
        """
        number = next(self._numbers)
        future: asyncio.Future[tuple[dict[str, Any], list[int]]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await self._channel.send_json({"seq": number, "do": do, **fields}, fds)
        except OSError as error:
            self._waiting.pop(number, None)
            raise ServiceError("the launcher is gone", "start the service again") from error
        answer, received = await future
        if "error" in answer:
            seqpacket.close_all(received)
            raise from_wire(answer["error"])
        return answer, received

    async def farewell(self) -> None:
        """Tell the launcher that every session has ended, so that it neither freezes nor waits."""
        try:
            await self._channel.send_json({"do": "farewell"})
        except OSError:
            _logger.debug("the launcher was gone before the farewell")
