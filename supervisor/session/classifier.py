"""The daemon's side of the classifier: files by descriptor in, classes with counts out; late is not looked at."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from supervisor.errors import DeskwardenError
from supervisor.linux import seqpacket
from supervisor.policy.sensitivity import Content
from supervisor.session.channel import Channel
from supervisor.session.workers import Worker

_logger = logging.getLogger(__name__)

# Of one question; what is not read by then counts as not looked at. The worker is killed a second later.
BUDGET_MS: Final = 2000
_GRACE_S: Final = 1.0
_START_S: Final = 10.0


class Classifier:
    """Asks one worker, one question at a time.

    Args:
        seccomp: Its program.
        markers: Words of one's own to look for, by class.
    """

    def __init__(self, worker: Worker, seccomp: bytes, markers: Mapping[str, Sequence[str]]) -> None:
        self._worker = worker
        self._seccomp = seccomp
        self._markers = {name: list(words) for name, words in markers.items()}
        self._channel: Channel | None = None
        self._lock = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def look(self, names: Sequence[str], fds: Sequence[int]) -> list[Content]:
        """Return what is in each file; never raises: what could not be looked at says so. *fds* stay the caller's."""
        async with self._lock:
            try:
                async with asyncio.timeout(_START_S + BUDGET_MS / 1000 + _GRACE_S):
                    answer = await self._ask(names, fds)
            except (TimeoutError, OSError, ValueError, KeyError, DeskwardenError) as error:
                why = "it took too long" if isinstance(error, TimeoutError) else str(error)
                _logger.warning("classifier: %s; another is started when it is needed", why)
                self.close()
                return [Content(name, {}, complete=False, why="the classifier did not answer") for name in names]
        return [_content(name, item) for name, item in zip(names, answer["files"], strict=True)]

    async def _ask(self, names: Sequence[str], fds: Sequence[int]) -> dict[str, Any]:
        channel = self._channel or await self._start()
        self._channel = channel
        number = next(self._numbers)
        question = {"id": number, "names": list(names), "markers": self._markers, "budget_ms": BUDGET_MS}
        await channel.send_json(question, tuple(fds))
        async with asyncio.timeout(BUDGET_MS / 1000 + _GRACE_S):
            received = await channel.receive_json()
        if received is None:
            raise ValueError("it died")
        answer, more = received
        seqpacket.close_all(more)
        if answer.get("id") != number:
            raise ValueError(f"answer {answer.get('id')!r}, expected {number}")
        return answer

    async def _start(self) -> Channel:
        channel = await self._worker.start()
        try:
            await channel.send(self._seccomp)
            received = await channel.receive_json()
            if received is None or received[0] != {"ready": True}:
                raise ValueError("it could not confine itself")
        except BaseException:
            channel.close()
            self._worker.kill()
            raise
        return channel

    def close(self) -> None:
        """End the worker."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._worker.kill()


def _content(name: str, item: dict[str, Any]) -> Content:
    classes = {str(key): int(count) for key, count in item["classes"].items()}
    return Content(name, classes, bool(item["complete"]), str(item.get("why", ""))[:200])
