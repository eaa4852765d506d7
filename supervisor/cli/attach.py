"""``deskwarden attach``: watch and type into a running session; Ctrl-] d leaves it running."""

from __future__ import annotations

import argparse

from supervisor.cli import conversation, service
from supervisor.cli.run import finish
from supervisor.linux import seqpacket

HELP = "go back to a running session (Ctrl-] d leaves it)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = "With --json the value is the last line of stderr: stdout is the command's own."
    parser.add_argument("session", metavar="SESSION", nargs="?", default="last")


def run(args: argparse.Namespace) -> int:
    """Attach; returns the agent's exit code when it ends meanwhile."""
    interactive = conversation.is_interactive()
    with service.connect(start=False) as sock:
        terminal = list(conversation.window_size()) if interactive else None
        seqpacket.send_json(sock, {"verb": "attach", "session": args.session, "terminal": terminal})
        message = conversation.Conversation(sock, interactive, left=None).carry()
    return finish(message, args.json, loud=False)
