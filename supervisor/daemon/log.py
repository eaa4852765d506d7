"""The daemon's log: no client can flood it, forge a line of it, or act on the terminal that shows it.

Who causes a message is its source: a client by its uid, else the line of code. Of each source so many are written in a
period; the rest is counted, and the count is written when the period ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Final

_logger = logging.getLogger(__name__)

PERIOD_S: Final = 60.0
MOST: Final = 10  # of one source in a period
LONGEST: Final = 4000  # characters of one message with its trace; the end tells most

# A line break stays, and what follows is marked as going on; everything else that is no plain text is spelled out.
_CONTINUED: Final = "\n  | "


class Limit(logging.Filter):
    """Lets `MOST` messages of a source through in a period; a message may name its source: ``extra=from_uid(uid)``."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == __name__:
            return True
        source = getattr(record, "source", None) or f"{record.name}:{record.lineno}"
        self._seen[source] += 1
        return self._seen[source] <= MOST

    def settle(self) -> None:
        """End a period: write how many messages were left out, and begin the next."""
        for source, count in self._seen.items():
            if count > MOST:
                _logger.warning("%d more messages from %s were left out", count - MOST, source)
        self._seen.clear()

    async def watch(self) -> None:
        """Settle at the end of each period, until cancelled; once more then."""
        try:
            while True:
                await asyncio.sleep(PERIOD_S)
                self.settle()
        finally:
            self.settle()


class Plain(logging.Formatter):
    """Writes a message as plain text of bounded length, each of its lines after the first marked."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 4]} … {text[-LONGEST * 3 // 4 :]}"
        return _CONTINUED.join(_plain(line) for line in text.split("\n"))


def from_uid(uid: int) -> dict[str, str]:
    """Return what names a client as the source of a message."""
    return {"source": f"uid {uid}"}


def set_up(level: int) -> Limit:
    """Send all messages to standard error, limited."""
    limit = Limit()
    handler = logging.StreamHandler()
    handler.setFormatter(Plain("deskwardend: %(levelname)s: %(message)s"))
    handler.addFilter(limit)
    logging.basicConfig(level=level, handlers=[handler])
    return limit


def _plain(line: str) -> str:
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in line)
