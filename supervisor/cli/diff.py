"""``deskwarden diff``: what the agent changed, as git shows it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from supervisor.cli import conversation, review, service
from supervisor.cli.terminal import OutputFilter

HELP = "show what a session changed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    review.add_session_and_paths(parser)
    parser.add_argument("--stat", action="store_true", help="a summary, with marks on what is held or in conflict")
    parser.add_argument("--held", action="store_true", help="only what is held (runs later on your machine)")


def run(args: argparse.Namespace) -> int:
    """Print the patch, the summary or the values."""
    if args.json or args.stat:
        message, _body = service.ask(review.request("changes", args.command_words + args.words, held=args.held))
        if args.json:
            values = [change | {"area": area["area"]} for area in message["areas"] for change in area["changes"]]
            print(json.dumps(values, indent=2))
        else:
            for area in message["areas"]:
                if len(message["areas"]) > 1:
                    print(f"{area['area']}:")
                print(area["stat"], end="")
            if not any(area["changes"] for area in message["areas"]):
                print("no changes")
        return 0
    message, body = service.ask(review.request("diff", args.command_words + args.words, held=args.held))
    if not message["count"]:
        print("no changes", file=sys.stderr)
        return 0
    show(body)
    return 0


def show(body: bytes) -> None:
    """Write a patch: as it is into a pipe, filtered and paged on a terminal."""
    if not os.isatty(1):
        conversation.write_all(1, body)
        return
    one = OutputFilter()
    shown = one.feed(body) + one.flush() + one.restore()
    pager = os.environ.get("PAGER", "less")
    if shown.count(b"\n") > os.get_terminal_size(1).lines and pager and pager != "cat":
        try:
            subprocess.run(
                [*pager.split()], input=shown, check=False, env=os.environ | {"LESS": "FRX", "LESSSECURE": "1"}
            )
            return
        except FileNotFoundError:
            pass
    conversation.write_all(1, shown)
