"""What diff, apply, discard and undo share: SESSION and PATH on one line, and how a change is shown on one."""

from __future__ import annotations

import argparse
import os
from typing import Any

from supervisor.cli import service
from supervisor.plain_text import escape_text


def add_session_and_paths(parser: argparse.ArgumentParser) -> None:
    """Declare ``[SESSION] [PATH…]``."""
    parser.usage = f"{parser.prog} [flags] [SESSION] [PATH…]"
    parser.add_argument("words", metavar="[SESSION] [PATH…]", nargs="*")


def split_session(words: list[str]) -> tuple[str, list[str]]:
    """Return the session (``last`` when none is named) and the paths.

    The first word is a session when one has that id or name; a path of the same name is written ``./NAME``.
    """
    if not words or words[0] == "last":
        return "last", words[1:]
    message, _body = service.ask({"verb": "ps", "all": True})
    if any(words[0] in (session["id"], session["name"]) for session in message["sessions"]):
        return words[0], words[1:]
    return "last", words


def request(verb: str, words: list[str], **fields: Any) -> dict[str, Any]:
    """Build a review request."""
    session, paths = split_session(words)
    return {"verb": verb, "session": session, "paths": paths, "cwd": os.path.realpath("."), **fields}


def change_line(change: dict[str, Any]) -> str:
    """Return one change on one line: its kind and name, escaped."""
    name = escape_text(change["path"], 200)
    if change["old_path"]:
        name = f"{escape_text(change['old_path'], 200)} → {name}"
    return f"{change['kind']:<9} {name}"


def reason_lines(title: str, changes: list[dict[str, Any]], key: str) -> list[str]:
    """Return a title and a line for each change with its reason; nothing for no change."""
    if not changes:
        return []
    return [title, *(f"  {change_line(change)}   ({escape_text(change[key], 200)})" for change in changes)]
