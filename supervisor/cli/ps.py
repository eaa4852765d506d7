"""``deskwarden ps``: sessions in a table."""

from __future__ import annotations

import argparse
import json
from typing import Any

from supervisor.cli import service
from supervisor.plain_text import escape_text

HELP = "list sessions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("-a", "--all", action="store_true", help="ended ones too")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    message, _body = service.ask({"verb": "ps", "all": args.all})
    sessions = message["sessions"]
    if args.json:
        print(json.dumps(sessions, indent=2))
        return 0
    if not sessions:
        print("no sessions running" + ("" if args.all else "   ended ones: deskwarden ps --all"))
        return 0
    rows: list[tuple[str, ...]] = [("SESSION", "NAME", "STATE", "TIME", "PROFILE", "MODE", "WORKSPACE", "COMMAND")]
    rows += [_row(session) for session in sessions]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(session: dict[str, Any]) -> tuple[str, ...]:
    state = session["state"]
    if state == "ended":
        state = f"exit {session['exit_code']}"
    return (
        session["id"],
        session["name"],
        state,
        duration(session["lasted_s"]),
        session["profile"],
        session["mode"],
        escape_text(session["workspace"], 40),
        escape_text(" ".join(session["argv"]), 40),
    )


def duration(seconds: float) -> str:
    """Return a duration as people say it: 3s, 4m10s, 2h05m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
