"""``deskwarden revoke``: take grants back; when it returns nobody holds anything of them."""

from __future__ import annotations

import argparse
import json

from supervisor.cli import service
from supervisor.errors import UsageError

HELP = "take grants back, open files included"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words."""
    parser.add_argument("ids", metavar="ID", nargs="*")
    parser.add_argument("--session", metavar="SESSION", default="", help="all of one session")
    parser.add_argument("--agent", metavar="AGENT", default="", help="all of one agent")
    parser.add_argument("--all", action="store_true", help="all of yours")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why; it is recorded")


def run(args: argparse.Namespace) -> int:
    """Take them back, and print how each ended.

    Raises:
        UsageError: None is named, or in two ways at once.
    """
    ways = [bool(args.ids), bool(args.session), bool(args.agent), args.all]
    if sum(ways) != 1:
        raise UsageError("revoke: name grants, or one of --session, --agent, --all", "deskwarden grants")
    fields = {"ids": args.ids, "session": args.session, "agent": args.agent, "all": args.all, "reason": args.reason}
    message, _body = service.ask({"verb": "revoke", **fields}, start=False)
    if args.json:
        print(json.dumps(message["revoked"], indent=2))
        return 0
    for grant in message["revoked"]:
        print(f"revoked {grant['id']}  {grant['capability']['selector']}  in {grant['session_name']}")
    if not message["revoked"]:
        print("nothing was granted")
    return 0
