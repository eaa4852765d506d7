"""``deskwarden rules``: what was answered *always* or *never*."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from supervisor.cli import service
from supervisor.errors import UsageError
from supervisor.plain_text import escape_text

HELP = "what was answered always or never"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words."""
    parser.add_argument("do", metavar="list|rm|export", nargs="?", default="list", choices=("list", "rm", "export"))
    parser.add_argument("id", metavar="ID", nargs="?", default="")


def run(args: argparse.Namespace) -> int:
    """List, remove or export them.

    Raises:
        UsageError: `rm` without an id, or an id without `rm`.
    """
    if (args.do == "rm") != bool(args.id):
        raise UsageError(
            f"rules {args.do}: {'which one?' if args.do == 'rm' else f'what is {args.id}?'}", "deskwarden rules list"
        )
    message, _body = service.ask({"verb": "rules", "remove": args.id})
    if args.do == "rm":
        removed = message["removed"]
        print(json.dumps(removed) if args.json else f"removed: {escape_text(removed['sentence'], 300)}")
        return 0
    if args.json or args.do == "export":
        print(json.dumps(message["rules"], indent=2))
        return 0
    if not message["rules"]:
        print("no standing answers")
    for rule in message["rules"]:
        print(_line(rule))
    return 0


def _line(rule: dict[str, Any]) -> str:
    until = time.strftime("%Y-%m-%d", time.localtime(int(rule["expires_ns"]) / 1e9))
    lasts = f"until the end of session {rule['session']}" if rule["session"] else f"until {until}"
    return f"{rule['id']}  {escape_text(rule['sentence'], 200)}  {lasts}, by {escape_text(rule['by'], 40)}"
