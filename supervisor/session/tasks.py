"""Tasks that nobody waits for: kept until they end (asyncio itself holds them weakly), an error never lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class Tasks:
    """The tasks of one owner of them."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, _T], name: str, *, may_fail: bool = False) -> asyncio.Task[_T]:
        """Start a task; its error is logged, or passed over where the caller looks at it, or where it *may fail*."""
        task = asyncio.create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._passed_over if may_fail else self._logged)
        return task

    def _logged(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _logger.error("%s: %s", task.get_name(), task.exception(), exc_info=task.exception())

    def _passed_over(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen: asyncio must not report it as never retrieved
