"""``deskwarden stop``: end sessions in order (SIGTERM, then SIGKILL after 10 s). Staged changes are kept."""

from __future__ import annotations

import argparse
import json

from supervisor.cli import service
from supervisor.errors import UsageError

HELP = "end sessions in order; staged changes are kept"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("sessions", metavar="SESSION", nargs="*")
    parser.add_argument("--all", action="store_true", help="all of yours")


def run(args: argparse.Namespace) -> int:
    """Stop them."""
    return end(args, now=False)


def end(args: argparse.Namespace, now: bool) -> int:
    """End the sessions named; shared with ``kill``.

    Raises:
        UsageError: Both some and all are named.
    """
    if args.all and args.sessions:
        raise UsageError(f"--all or {args.sessions[0]}: which?", "name the sessions, or leave them out")
    message, _body = service.ask({"verb": "stop", "sessions": args.sessions, "all": args.all, "now": now}, start=False)
    if args.json:
        print(json.dumps(message["ended"]))
    else:
        for session in message["ended"]:
            print(f"ended {session}   its changes: deskwarden diff {session}")
        if not message["ended"]:
            print("no sessions running")
    return 0
