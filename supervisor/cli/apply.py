"""``deskwarden apply``: put a session's changes in place, as you, never over your own edits."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from supervisor.cli import diff, interrupt, review, service
from supervisor.errors import DeskwardenError
from supervisor.plain_text import escape_text

HELP = "put a session's changes in place"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    review.add_session_and_paths(parser)
    parser.add_argument("--held", action="store_true", help="also what is held (runs later), without asking")
    parser.add_argument("--stat", action="store_true", help="only say what would be applied")


def run(args: argparse.Namespace) -> int:
    """Apply; returns 0, or 1 when something named was left alone."""
    request = review.request("apply", args.command_words + args.words, held=args.held)
    if args.stat:
        return diff.print_stat(request | {"verb": "changes", "held": False}, as_json=args.json)
    message, _body = service.ask(request)
    held = [change for area in message["areas"] for change in area["held"]]
    if held and not args.json and os.isatty(0) and os.isatty(2):
        named = [f"{area['area']}/{change['path']}" for area in message["areas"] for change in area["held"]]
        try:
            if _confirmed(held):
                again, _body = service.ask(request | {"held": True, "session": message["id"], "paths": named})
                _merge(message, again)
        except (DeskwardenError, KeyboardInterrupt):
            _print_all(message)  # what was applied before must be said whatever comes now
            raise
    if args.json:
        print(json.dumps(message["areas"], indent=2))
    elif any(area["applied"] or _left(area) for area in message["areas"]):
        _print_all(message)
    else:
        print(f"nothing to apply in {message['id']}   other sessions: deskwarden ps --all")
    return 1 if any(_left(area) for area in message["areas"]) else 0


def _left(area: dict[str, Any]) -> bool:
    return bool(area["conflicts"] or area["refused"] or area["held"])


def _confirmed(held: list[dict[str, Any]]) -> bool:
    """Ask on the caller's own terminal; the agent cannot write to it any more."""
    with interrupt.raised():  # from before the question: who sees it may answer with Ctrl-C at once
        for line in review.reason_lines("These run later on your machine:", held, "held"):
            print(line, file=sys.stderr)
        print("Apply them too? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print_all(message: dict[str, Any]) -> None:
    for area in message["areas"]:
        print_result(area, f"undo: deskwarden undo --step {area['step']}")


def _merge(message: dict[str, Any], again: dict[str, Any]) -> None:
    more = {area["area"]: area for area in again["areas"]}
    for area in message["areas"]:
        other = more.get(area["area"])
        if other is not None:
            area["applied"] += other["applied"]
            area["conflicts"] += other["conflicts"]
            area["refused"] += other["refused"]
            area["held"] = other["held"]
            area["step"] = area["step"] or other["step"]


def print_result(area: dict[str, Any], undo: str) -> None:
    """Print what was done in one area, and what was left and why."""
    folder = escape_text(area.get("area") or area.get("folder", ""), 300)
    if area["applied"]:
        print(f"{folder}: {len(area['applied'])} applied   {undo}")
        for change in area["applied"]:
            print(f"  {review.change_line(change)}")
    else:
        print(f"{folder}: nothing applied")
    groups = (
        ("held back (runs later; name it to apply it, or --held):", area["held"], "held"),
        ("left alone, changed on your disk meanwhile:", area["conflicts"], "conflict"),
        ("refused:", area["refused"], "refused"),
    )
    for title, changes, key in groups:
        for line in review.reason_lines(title, changes, key):
            print(line)
