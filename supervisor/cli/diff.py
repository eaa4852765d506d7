"""``deskwarden diff``: what the agent changed, as git shows it.

On a terminal every byte is shown and none acts: a reviewer must see what a pager or terminal would swallow (a carriage
return that hides the line before it, text from right to left). In a pipe or file the patch stays raw, for `git apply`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from typing import Any, Final

from supervisor.cli import conversation, interrupt, review, service
from supervisor.plain_text import escape_text

HELP = "show what a session changed"

_PLAIN: Final = re.compile(rb"[\x20-\x7e\t]*")
# Shown as they are: a doubled backslash would not be the file's text.
_KEPT: Final = re.compile(rb"([\\\t])")
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|r)")
_WIDEST_ESCAPE: Final = len("\\U00000000")
_COLOURS: Final = {b"+": b"\x1b[32m", b"-": b"\x1b[31m", b"@": b"\x1b[36m"}
_REVERSE: Final = "\x1b[7m{}\x1b[27m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    review.add_session_and_paths(parser)
    parser.add_argument("--stat", action="store_true", help="a summary, with marks on what is held or in conflict")
    parser.add_argument("--held", action="store_true", help="only what is held (runs later on your machine)")


def run(args: argparse.Namespace) -> int:
    """Print the patch, the summary or the values."""
    if args.json or args.stat:
        request = review.request("changes", args.command_words + args.words, held=args.held)
        return print_stat(request, as_json=args.json)
    message, body = service.ask(review.request("diff", args.command_words + args.words, held=args.held))
    if not message["count"]:
        print(_no_changes(message["id"]), file=sys.stderr)
        return 0
    show(body)
    return 0


def print_stat(request: dict[str, Any], *, as_json: bool) -> int:
    """Print the changes as a summary or as values; returns 0. Shared with ``apply --stat``."""
    message, _body = service.ask(request)
    if as_json:
        values = [change | {"area": area["area"]} for area in message["areas"] for change in area["changes"]]
        print(json.dumps(values, indent=2))
        return 0
    sys.stdout.flush()
    for area in message["areas"]:
        title = f"{escape_text(area['area'])}:\n" if len(message["areas"]) > 1 else ""
        body = os.fsencode(title + area["stat"])
        conversation.write_all(1, shown(body, coloured=False) if os.isatty(1) else body)
    if not any(area["changes"] for area in message["areas"]):
        print(_no_changes(message["id"]))
    return 0


def _no_changes(session: str) -> str:
    return f"no changes in {session}   other sessions: deskwarden ps --all"


def show(body: bytes) -> None:
    """Write a patch: as it is into a pipe or file, made visible and paged on a terminal."""
    if not os.isatty(1):
        conversation.write_all(1, body)
        return
    can_draw = os.environ.get("TERM", "dumb") not in ("", "dumb")
    text = shown(body, coloured=not os.environ.get("NO_COLOR") and can_draw)
    pager = os.environ.get("PAGER", "less")
    if can_draw and text.count(b"\n") > os.get_terminal_size(1).lines and pager and pager != "cat":
        try:
            with interrupt.unheeded():
                environment = os.environ | {"LESS": "FRX", "LESSSECURE": "1"}
                subprocess.run([*pager.split()], input=text, check=False, env=environment)
            return
        except OSError:  # no such program, or none that can be started
            pass
    conversation.write_all(1, text)


def shown(body: bytes, *, coloured: bool) -> bytes:
    """Return *body* for a terminal, line by line: tabs stay, other controls and what is not seen are spelled out.

    As less does: ^M, <U+202E>, and <FF> for a byte that is not UTF-8. Coloured, they stand out from the same text.
    """
    return b"\n".join(_shown_line(line, coloured=coloured) for line in body.split(b"\n"))


def _shown_line(line: bytes, *, coloured: bool) -> bytes:
    text = line if _PLAIN.fullmatch(line) else b"".join(_shown_piece(piece, coloured) for piece in _KEPT.split(line))
    colour = _COLOURS.get(line[:1], b"") if coloured else b""
    return colour + text + b"\x1b[m" if colour else text


def _shown_piece(piece: bytes, coloured: bool) -> bytes:
    if _PLAIN.fullmatch(piece) or piece == b"\\":
        return piece
    # No backslash goes in, so every one that comes out begins an escape.
    escaped = escape_text(piece, len(piece) * _WIDEST_ESCAPE)
    return _ESCAPE.sub(lambda found: _spelled(found, coloured), escaped).encode()


def _spelled(found: re.Match[str], coloured: bool) -> str:
    byte, short, long = found.groups()
    code = int(byte or short or long or "d", 16)
    if byte and code >= 0x80:
        word = f"<{code:02X}>"
    else:
        word = f"^{chr(code ^ 0x40)}" if code < 0x80 else f"<U+{code:04X}>"
    return _REVERSE.format(word) if coloured else word
