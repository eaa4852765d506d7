"""``deskwarden undo``: take an apply back, whole or by path, also days later."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from supervisor.cli import service
from supervisor.cli.apply import print_result
from supervisor.plain_text import escape_text

HELP = "take an apply back"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("paths", metavar="PATH", nargs="*")
    parser.add_argument("--last", action="store_true", help="the last apply (default)")
    parser.add_argument("--step", type=int, metavar="N", help="this step of the list")
    parser.add_argument("--session", metavar="S", help="the last apply of this session")
    parser.add_argument("--list", action="store_true", help="list every apply and undo")


def run(args: argparse.Namespace) -> int:
    """Undo, or list; returns 1 when a conflict left something alone."""
    request = {
        "verb": "undo",
        "list": args.list,
        "step": args.step,
        "session": args.session,
        "paths": args.paths,
        "cwd": os.path.realpath("."),
    }
    message, _body = service.ask(request)
    if args.list:
        return _print_steps(message["steps"], args.json)
    if args.json:
        print(json.dumps(message, indent=2))
    else:
        whole = "undone" if not message["conflicts"] else "partly undone" if message["applied"] else "not undone"
        print(f"step {message['undone']} {whole}")
        print_result(message, f"redo: deskwarden undo --step {message['step']}")
    return 1 if message["conflicts"] else 0


def _print_steps(steps: list[dict[str, Any]], as_json: bool) -> int:
    if as_json:
        print(json.dumps(steps, indent=2))
        return 0
    if not steps:
        print("nothing was applied yet")
    for step in steps:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(step["created_ns"] / 1e9))
        what = f"undo of {step['undoes']}" if step["undoes"] else f"apply {step['session']}"
        folder = escape_text(step["folder"], 60)
        print(f"{step['step']:>4}  {when}  {step['state']:<13} {what:<22} {len(step['paths'])} files in {folder}")
    return 0
