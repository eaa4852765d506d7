"""``deskwarden recert``: what grants only until its review; renew or remove what is one's own."""

from __future__ import annotations

import argparse
import json

from supervisor.cli import service
from supervisor.errors import UsageError
from supervisor.plain_text import escape_text

HELP = "what has to be looked at again, and until when it grants"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words."""
    parser.add_argument("do", metavar="list|renew|rm", nargs="?", default="list", choices=("list", "renew", "rm"))
    parser.add_argument("id", metavar="ID", nargs="?", default="")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why it is still needed; it is recorded")


def run(args: argparse.Namespace) -> int:
    """List, renew or remove.

    Raises:
        UsageError: No id where one is needed, or one where none is.
    """
    if (args.do == "list") == bool(args.id):
        raise UsageError(
            f"recert {args.do}: {'which one?' if not args.id else 'takes no ID'}", "deskwarden recert list"
        )
    message, _body = service.ask({"verb": "recert", "do": args.do, "id": args.id, "reason": args.reason})
    found = message["items"] if args.do == "list" else [message["item"]]
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    if args.do == "rm":
        print(f"removed: {escape_text(found[0]['what'], 300)}")
        return 0
    for item in found:
        owner = f", {escape_text(item['owner'], 60)}" if item["owner"] else ""
        what = escape_text(item["what"], 200)
        print(f"{item['due']}  {item['state']:<5}  {item['kind']:<8}  {item['id']}  {what}{owner}")
    if not found:
        print("nothing has a review")
    return 0
