"""``deskwarden logs``: what a session printed, filtered when it goes to a terminal.

Cursor movement and erasing pass, as in `run`: without them the log of a full-screen program can't be read. So an agent
can overwrite what it printed before. Nothing is decided on a log; `diff` shows every byte, `logs … | cat -v` does here.
"""

from __future__ import annotations

import argparse
import os

from supervisor.cli import conversation, service
from supervisor.cli.terminal import OutputFilter
from supervisor.errors import ServiceError, from_wire
from supervisor.linux import seqpacket

HELP = "show what a session printed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("session", metavar="SESSION", nargs="?", default="last")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it ends")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    one = OutputFilter() if os.isatty(1) else None
    with service.connect() as sock:
        seqpacket.send_json(sock, {"verb": "logs", "session": args.session, "follow": args.follow})
        while True:
            payload, fds = seqpacket.receive(sock)
            seqpacket.close_all(fds)
            if not payload:
                raise ServiceError("the daemon hung up", f"deskwarden logs {args.session}")
            if payload[:1] != b"{":
                conversation.write_all(1, one.feed(payload[1:]) if one else payload[1:])
                continue
            message, _fds = seqpacket.decode_json(payload, [])
            if message["event"] == "error":
                raise from_wire(message["error"])
            if one is not None:
                conversation.write_all(1, one.flush() + one.restore())
            return 0
