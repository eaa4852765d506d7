"""What agents opened in vain: a question where a person is there to answer it, else a denial that is on record."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from supervisor.broker.agent_access import DEFAULT_DURATION_S
from supervisor.broker.ask import MAX_TARGET, MAX_TEXT, Ask
from supervisor.broker.broker import Broker
from supervisor.errors import DeskwardenError
from supervisor.plain_text import escape_text
from supervisor.policy.capability import Kind

_logger = logging.getLogger(__name__)

# One question, or one denial on record, per name and session in this time: programs look again and again.
PAUSE_S: Final = 60.0


class Openings:
    """The openings of all sessions.

    Args:
        now_s: A clock that is never set back.
    """

    def __init__(self, broker: Broker, now_s: Callable[[], float]) -> None:
        self._broker = broker
        self._now_s = now_s
        self._heard: dict[str, dict[str, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def hear(self, session_id: str, stub: str, path: str, *, attended: bool) -> None:
        """Ask for *stub* because *path* was opened, unless that was done a moment ago."""
        heard, now = self._heard.setdefault(session_id, {}), self._now_s()
        if now - heard.get(stub, -PAUSE_S) < PAUSE_S or len(stub) > MAX_TARGET:
            return
        heard[stub] = now
        reason = f"opened {escape_text(path, MAX_TEXT // 2)}"
        if attended or self._broker.is_watched:
            with contextlib.suppress(DeskwardenError):  # too many, or it has ended: the open has failed anyway
                self._broker.ask(session_id, Ask(Kind.FILE, ("read",), stub, DEFAULT_DURATION_S, reason))
            return
        _logger.info("session %s %s; denied: nobody is there to ask", session_id, reason)
        task = asyncio.create_task(self._broker.note_denial(session_id, stub, f"{reason}; nobody was there to ask"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, session_id: str) -> None:
        """Forget a session that has ended."""
        self._heard.pop(session_id, None)
