"""Points in time as signed documents write them: UTC to the second, in one spelling (RFC 3339, ``Z``)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from supervisor.errors import UsageError

_FORM: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def parse_utc(text: str) -> int:
    """Return the seconds since 1970 of ``2026-01-31T08:00:00Z``.

    Raises:
        UsageError: Another form, or no such day or time.
    """
    try:
        if not _FORM.fullmatch(text) or not text.isascii():
            raise ValueError("not of that form")
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError as error:
        raise UsageError(f"{text[:40]!a}: want a time in UTC such as 2026-01-31T08:00:00Z ({error})") from error


def format_utc(time_s: int) -> str:
    """Return the text that `parse_utc` reads as *time_s*."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
