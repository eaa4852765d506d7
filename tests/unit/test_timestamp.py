"""Times in signed documents: one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from supervisor.errors import UsageError
from supervisor.timestamp import format_utc, parse_utc


@given(integers(0, 253402300799))
def test_a_time_is_read_back(time_s: int) -> None:
    assert parse_utc(format_utc(time_s)) == time_s


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-31",
        "2026-01-31T08:00:00",
        "2026-01-31T08:00:00z",
        "2026-01-31t08:00:00Z",
        "2026-01-31T08:00:00.5Z",
        "2026-01-31T08:00:00+00:00",
        "2026-01-31T08:00:60Z",
        "2026-01-31T24:00:00Z",
        "2026-02-29T08:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-01-31T08:00:00Z\n",
        "\u0662026-01-31T08:00:00Z",
    ],
)
def test_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="want a time in UTC"):
        parse_utc(text)
