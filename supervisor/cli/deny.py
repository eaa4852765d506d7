"""``deskwarden deny``: say no; the agent is told why, and asks again later at best."""

from __future__ import annotations

import argparse

from supervisor.cli import approve

HELP = "say no to a request"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--never", action="store_true", help="and to the same question for 90 days")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why; the agent is told")
    parser.add_argument("--key", metavar="FILE", help="sign the answer with this private key")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask again on this terminal")


def run(args: argparse.Namespace) -> int:
    """Show the request and refuse it."""
    return approve.vote(args, "never" if args.never else "deny")
