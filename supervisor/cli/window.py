"""This terminal: whether there is one, and its size. Imported by every run before the request is sent."""

from __future__ import annotations

import os


def is_interactive() -> bool:
    """Return whether the command gets a terminal of its own: both ends of this one must be a terminal."""
    return os.isatty(0) and os.isatty(1)


def window_size() -> tuple[int, int]:
    """Return this terminal's rows and columns."""
    size = os.get_terminal_size(1)
    return size.lines or 24, size.columns or 80
