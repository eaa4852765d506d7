"""The daemon's log: bounded for each source, honest about what it left out, and plain text."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from supervisor.daemon import log


@pytest.fixture
def written() -> Iterator[tuple[logging.Logger, log.Limit, io.StringIO]]:
    """A logger of its own with the daemon's limit and format; the limit's own messages go the same way."""
    stream, limit = io.StringIO(), log.Limit()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log.Plain("deskwardend: %(levelname)s: %(message)s"))
    handler.addFilter(limit)
    loggers = [logging.getLogger("tests.log"), logging.getLogger(log.__name__)]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    yield loggers[0], limit, stream
    for logger in loggers:
        logger.removeHandler(handler)
        logger.propagate = True


Written = tuple[logging.Logger, log.Limit, io.StringIO]


def test_a_source_that_floods_is_cut_and_counted(written: Written) -> None:
    logger, limit, stream = written
    for number in range(1000):
        logger.warning("nonsense %d", number, extra=log.from_uid(1000))
    assert len(stream.getvalue().splitlines()) == log.MOST
    limit.settle()
    assert stream.getvalue().splitlines()[-1] == (
        f"deskwardend: WARNING: {1000 - log.MOST} more messages from uid 1000 were left out"
    )


def test_a_flood_of_one_user_hides_nothing_of_another(written: Written) -> None:
    logger, _limit, stream = written
    for _ in range(1000):
        logger.warning("flood", extra=log.from_uid(1000))
    logger.warning("of another", extra=log.from_uid(1001))
    logger.warning("of the daemon itself")
    assert stream.getvalue().splitlines()[-2:] == [
        "deskwardend: WARNING: of another",
        "deskwardend: WARNING: of the daemon itself",
    ]


def test_a_new_period_begins_from_nothing(written: Written) -> None:
    logger, limit, stream = written
    for _ in range(3):
        for _ in range(log.MOST):
            logger.warning("as many as may", extra=log.from_uid(1000))
        limit.settle()
    assert len(stream.getvalue().splitlines()) == 3 * log.MOST
    assert "left out" not in stream.getvalue()


def test_the_count_is_written_when_the_daemon_ends(written: Written) -> None:
    logger, limit, stream = written

    async def life() -> None:
        watching = asyncio.create_task(limit.watch())
        await asyncio.sleep(0)
        for _ in range(log.MOST + 5):
            logger.warning("flood", extra=log.from_uid(1000))
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    asyncio.run(life())
    assert "5 more messages from uid 1000 were left out" in stream.getvalue()


def test_a_message_cannot_forge_a_line_or_act_on_a_terminal(written: Written) -> None:
    logger, _limit, stream = written
    logger.warning("%s", "x\ndeskwardend: WARNING: all is well\r\x1b[2J\x9b2J\u202e")
    assert stream.getvalue() == (
        "deskwardend: WARNING: x\n  | deskwardend: WARNING: all is well\\r\\x1b[2J\\x9b2J\\u202e\n"
    )


def test_a_long_message_keeps_its_beginning_and_its_end(written: Written) -> None:
    logger, _limit, stream = written
    try:
        raise ValueError("y" * 1_000_000)
    except ValueError:
        logger.exception("connection")
    text = stream.getvalue()
    assert len(text) < log.LONGEST + 200
    assert text.startswith("deskwardend: ERROR: connection")
    assert text.endswith("y\n")
