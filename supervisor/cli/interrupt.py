"""Ctrl-C: it ends the program at once and quietly, but for the verbs that have something to put in order first.

KeyboardInterrupt everywhere would print a trace where it cannot be caught: in a module's import, in a finalizer.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

# signal(7), the same on every architecture; `_signal` is built in, the module `signal` takes 4 ms to import.
SIGINT = 2


def end_quietly() -> None:
    """Have Ctrl-C end the program with 130 from now on, as the start script has done before."""
    _handle(lambda *_signal: os._exit(128 + SIGINT))


def ignore() -> None:
    """Have Ctrl-C change nothing any more: how the program ends is settled."""
    _handle(_signal.SIG_IGN)


class _While:
    """``with``: another handler for this long."""

    def __init__(self, handler: object) -> None:
        self._handler = handler
        self._before: object = None

    def __enter__(self) -> None:
        self._before = _signal.getsignal(SIGINT)
        _handle(self._handler)

    def __exit__(self, *_error: object) -> None:
        _handle(self._before)


def raised() -> _While:
    """Have Ctrl-C raise KeyboardInterrupt inside a ``with``, so that what was begun is put in order."""
    return _While(_signal.default_int_handler)


def unheeded() -> _While:
    """Leave Ctrl-C, inside a ``with``, to the program that has the terminal: it does not inherit this."""
    return _While(lambda *_signal: None)


def _handle(handler: object) -> None:
    """Set the handler; who started us with SIGINT ignored (nohup, a script's background job) wants it ignored."""
    if _signal.getsignal(SIGINT) != _signal.SIG_IGN:
        _signal.signal(SIGINT, handler)
