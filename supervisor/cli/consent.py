"""The card of a run whose manifest nobody has agreed to yet: asked once, before anything is started."""

from __future__ import annotations

import sys
import termios
from typing import Any

from supervisor.plain_text import escape_text

_SHOWN = 8


def card(message: dict[str, Any]) -> list[str]:
    """Return the lines: what it may ask for, and what a yes means."""
    program, folder = escape_text(message["program"], 60), escape_text(message["workspace"], 200)
    whose = "its signed manifest" if message["signed"] else f"the profile {message['profile']}"
    lines = [f"── {program} in {folder}: {whose} says that it will ask for"]
    entries = message["entries"]
    for entry in entries[:_SHOWN]:
        what = f"{' and '.join(entry['operations'])} {escape_text(entry['selector'], 100)}"
        lines.append(f"   {what} (data up to {entry['level']}): {escape_text(entry['why'].strip(), 100)}")
    if len(entries) > _SHOWN:
        lines.append(f"   and {len(entries) - _SHOWN} more: deskwarden run -n … lists them")
    if not entries:
        lines.append("   nothing beforehand")
    lines.append("   Yes: low risk is given without asking again, the rest is still asked each time.")
    lines.append("   No: it runs, and each request is a question.")
    return lines


def agreed(message: dict[str, Any]) -> str:
    """Ask the person on the terminal; returns the digest that they said yes to, or ``no``."""
    print("\n".join(card(message)), file=sys.stderr)
    termios.tcflush(0, termios.TCIFLUSH)  # what was typed before the question is no answer to it
    sys.stderr.write("   agree? [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline(16).strip().lower()
    return str(message["digest"]) if answer in ("y", "yes") else "no"
