"""Untrusted words stay on their line, and show what is there."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.plain_text import escape_text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"reports/q2.xlsx", "reports/q2.xlsx"),
        ("Grüße/日本語", "Grüße/日本語"),
        (b"a\nb\tc\\n", r"a\nb\tc\\n"),
        (b"\x1b]52;c;x\x07", r"\x1b]52;c;x\x07"),
        (b"caf\xe9", r"caf\xe9"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("pass\u200bword\ufeff", r"pass\u200bword\ufeff"),
        ("a\u2066b\u2069", r"a\u2066b\u2069"),
        ("a\u00a0b\u3000c", r"a\u00a0b\u3000c"),
        ("\u2028\x85", r"\u2028\u0085"),
        ("\ue000\U000e0041", r"\ue000\U000e0041"),
        ("\u3164\u2800", r"\u3164\u2800"),
        ("\u0301x", r"\u0301x"),
        ("e\u0301\u0301\u0301\u0301", "e\u0301\u0301\\u0301\\u0301"),
    ],
)
def test_escaped_text_shows_what_is_there(value: bytes | str, expected: str) -> None:
    assert escape_text(value) == expected


def test_long_text_keeps_its_beginning_and_its_end() -> None:
    shown = escape_text("/srv/" + "x" * 100_000 + "/evil.sh", 30)
    assert len(shown) == 30
    assert shown.startswith("/srv/xxx")
    assert shown.endswith("/evil.sh")
    assert "…" in shown


def test_shortening_counts_wide_characters_twice_and_cuts_no_escape() -> None:
    assert escape_text("日" * 30, 11) == "日日…日日"
    assert escape_text("\n" * 30, 8) == r"\n\n…\n"


@given(value=st.one_of(st.text(), st.binary()), limit=st.integers(1, 60))
def test_escaped_text_is_printable_and_bounded(value: bytes | str, limit: int) -> None:
    shown = escape_text(value, limit)
    columns = sum(2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1 for character in shown)
    assert shown.isprintable()
    assert columns <= limit


@given(first=st.binary(max_size=30), second=st.binary(max_size=30))
def test_different_names_are_shown_differently(first: bytes, second: bytes) -> None:
    assert (escape_text(first, 1000) == escape_text(second, 1000)) == (first == second)
