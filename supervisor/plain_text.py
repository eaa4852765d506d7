"""Words from outside, made fit for a person's eyes: one line, bounded, nothing that moves, hides or turns text."""

from __future__ import annotations

import unicodedata
from typing import Final

# Invisible although their class says printable: Hangul and Khmer fillers, the empty Braille cell.
_BLANK_LETTERS: Final = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_SHORT_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MAX_MARKS: Final = 2  # more accents on one letter than any script needs cover the lines around it


def escape_text(value: bytes | str, limit: int = 200) -> str:
    """Return *value* for showing on one line: what is seen is what is there, in at most *limit* columns.

    Controls, direction overrides, zero-width, unassigned and private characters, odd spaces and bytes that are not
    UTF-8 become escapes as in a Python literal; so does the backslash, to keep the result unambiguous. A value that
    is too long keeps its beginning and its end, where a path tells most, with … between them.
    """
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    too_long = len(text) > 2 * limit
    # Each character takes a column at least, so no more than these can be shown.
    pieces = _escaped(text[:limit] + text[-limit:] if too_long else text)
    if not too_long and sum(width for _, width in pieces) <= limit:
        return "".join(piece for piece, _ in pieces)
    room = max(limit - 1, 0)
    head = _fitting(pieces, room - room // 2)
    tail = _fitting(pieces[::-1], room // 2)[::-1]
    return "".join((*head, "…", *tail))


def _escaped(text: str) -> list[tuple[str, int]]:
    """Return the characters of *text* as they are shown, each with its width in columns."""
    pieces = []
    marks = _MAX_MARKS  # none may come first: it would join what was printed before
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) or unicodedata.category(character) in {"Mn", "Me"} else 0
        if _shown_as_is(character) and marks <= _MAX_MARKS:
            wide = unicodedata.east_asian_width(character) in {"W", "F"}
            pieces.append((character, 2 if wide else 1))
        else:
            escape = _escape(character)
            pieces.append((escape, len(escape)))
    return pieces


def _shown_as_is(character: str) -> bool:
    variation = "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
    return character.isprintable() and character != "\\" and character not in _BLANK_LETTERS and not variation


def _escape(character: str) -> str:
    short = _SHORT_ESCAPES.get(character)
    if short is not None:
        return short
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, see PEP 383
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _fitting(pieces: list[tuple[str, int]], room: int) -> list[str]:
    taken = []
    for piece, width in pieces:
        room -= width
        if room < 0:
            break
        taken.append(piece)
    return taken
