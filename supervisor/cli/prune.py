"""``deskwarden prune``: forget ended sessions. What is staged and not applied is kept unless --all; undo steps stay."""

from __future__ import annotations

import argparse
import json

from supervisor.cli import service

HELP = "forget ended sessions that hold no changes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--all", action="store_true", help="also those with changes that were never applied")


def run(args: argparse.Namespace) -> int:
    """Prune."""
    message, _body = service.ask({"verb": "prune", "all": args.all})
    if args.json:
        print(json.dumps({"pruned": message["pruned"], "kept": message["kept"]}))
        return 0
    count = len(message["pruned"])
    print(f"forgot {count} session" + ("" if count == 1 else "s"))
    if message["kept"]:
        print(f"kept {len(message['kept'])} with changes: {', '.join(message['kept'])}   look: deskwarden diff SESSION")
    return 0
