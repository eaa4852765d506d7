"""``deskwarden discard``: take changes off the list. Nothing on the real disk changes."""

from __future__ import annotations

import argparse
import json

from supervisor.cli import review, service
from supervisor.plain_text import escape_text

HELP = "leave a session's changes; nothing on your disk changes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    review.add_session_and_paths(parser)


def run(args: argparse.Namespace) -> int:
    """Discard."""
    message, _body = service.ask(review.request("discard", args.command_words + args.words))
    names = [name for area in message["areas"] for name in area["discarded"]]
    if args.json:
        print(json.dumps(names))
        return 0
    print(f"discarded {len(names)} changes of {message['id']}")
    for name in names:
        print(f"  {escape_text(name, 200)}")
    return 0
