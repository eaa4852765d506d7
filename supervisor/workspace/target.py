"""What an agent typed as the target of a request: text, judged before anything on a disk is touched.

Standard library only.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from typing import Final

from supervisor.errors import RefusedError, UsageError

MAX_BYTES: Final = 4095  # PATH_MAX without its NUL, linux/limits.h
MAX_SEGMENTS: Final = 64
_SHOWN: Final = 200
# Bidirectional controls reorder what an approver reads (Unicode TR 36, section 3.3); the mark of byte order hides.
_HIDDEN: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_NEVER: Final = ("proc", "sys", "dev")
_STEP: Final = "write it as /folder/name, ~/folder/name, ~/folder/*.xlsx or ~/folder/**"


@dataclass(frozen=True, slots=True)
class Target:
    """A target in two parts.

    Attributes:
        prefix: The absolute path before the first ``*``; it may lead through links.
        tail: The segments from there on; ``("**",)`` is all below, empty the path itself.
    """

    prefix: str
    tail: tuple[str, ...]


def parse_target(text: str, home: str) -> Target:
    """Take a target apart.

    Raises:
        UsageError: It is no path of the form that is asked for.
        RefusedError: It lies where nothing is ever granted.
    """
    problem = problem_with(text)
    if problem:
        raise UsageError(f"{shown(text)}: {problem}", _STEP)
    path = _absolute(text, home)
    segments = path.strip("/").split("/") if path.strip("/") else []
    _check_segments(text, segments)
    wild = next((at for at, segment in enumerate(segments) if "*" in segment), len(segments))
    refuse_kernel_paths("/" + "/".join(segments[:wild]), text)
    return Target("/" + "/".join(segments[:wild]), tuple(segments[wild:]))


def problem_with(text: str) -> str:
    """Return why *text* can't be part of a selector, or nothing."""
    if 0 < len(text) <= MAX_BYTES and text.isascii() and text.isprintable():
        return ""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return "not UTF-8"
    if not 0 < size <= MAX_BYTES:
        return f"{size} bytes, want 1 to {MAX_BYTES}"
    for character in text:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp") or character in _HIDDEN:
            return f"holds the control character U+{ord(character):04X}"
    if not unicodedata.is_normalized("NFC", text):
        return "not in Unicode's normal form C: another spelling would look the same"
    return ""


def shown(text: str) -> str:
    """Return *text* for a message: escaped and bounded."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def refuse_kernel_paths(path: str, asked: str) -> None:
    """Refuse what is no file of a person's.

    Raises:
        RefusedError: /proc, /sys, /dev or below.
    """
    if path.split("/")[1] in _NEVER:
        raise RefusedError(f"{shown(asked)}: /proc, /sys and /dev are never granted", "ask for a file or folder")


def _absolute(text: str, home: str) -> str:
    if text == "~" or text.startswith("~/"):
        return os.path.join(home, text[2:])
    if text.startswith("~"):
        raise UsageError(f"{shown(text)}: only the owner's own home can be named by ~", _STEP)
    if not text.startswith("/"):
        raise UsageError(f"{shown(text)}: not an absolute path", _STEP)
    return text


def _check_segments(text: str, segments: list[str]) -> None:
    if len(segments) > MAX_SEGMENTS:
        raise UsageError(f"{shown(text)}: {len(segments)} segments, at most {MAX_SEGMENTS}", _STEP)
    for at, segment in enumerate(segments):
        if segment in ("", ".", ".."):
            raise UsageError(f"{shown(text)}: holds the segment {segment!r}", _STEP)
        if "**" in segment and (segment != "**" or at != len(segments) - 1):
            raise UsageError(f"{shown(text)}: ** may only be the last segment, alone", _STEP)
    if segments and segments[-1] == "**" and any("*" in segment for segment in segments[:-1]):
        raise UsageError(f"{shown(text)}: a * before /** is too wide", "name one folder before /**")
