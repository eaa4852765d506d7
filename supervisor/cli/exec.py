"""``deskwarden exec``: one more command in a running session, under the same confinement."""

from __future__ import annotations

import argparse
import json
import os
import sys

from supervisor.cli import conversation, service
from supervisor.cli.run import parse_environment
from supervisor.errors import UsageError
from supervisor.linux import seqpacket

HELP = "run one more command inside a session"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.usage = "deskwarden exec SESSION -- CMD…"
    parser.epilog = "With --json the value is the last line of stderr: stdout is the command's own."
    parser.add_argument("session", metavar="SESSION")
    parser.add_argument("--env", action="append", default=[], metavar="K[=V]", help="pass or set a variable")


def run(args: argparse.Namespace) -> int:
    """Run it; returns its exit code."""
    if not args.command_words:
        raise UsageError("no command to run", "deskwarden exec SESSION -- CMD…")
    interactive = conversation.is_interactive()
    with service.connect(start=False) as sock:
        request = {
            "verb": "exec",
            "session": args.session,
            "argv": args.command_words,
            "environment": dict(os.environ),
            "overrides": parse_environment(args.env),
            "terminal": list(conversation.window_size()) if interactive else None,
        }
        seqpacket.send_json(sock, request)
        message = conversation.Conversation(sock, interactive).carry()
    if args.json:
        print(json.dumps(message), file=sys.stderr)
    elif message["event"] == "result":
        print(f"\nleft in {message['name']}", file=sys.stderr)
    return int(message.get("code") or 0)
