"""``deskwarden status``: which service answers, and what it lacks."""

from __future__ import annotations

import argparse
import json

from supervisor.cli import service
from supervisor.plain_text import escape_text

HELP = "say which service answers and what it lacks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No flags."""


def run(args: argparse.Namespace) -> int:
    """Print it; 125 when no service runs."""
    message, _body = service.ask({"verb": "status"}, start=False)
    if args.json:
        print(json.dumps(message, indent=2))
        return 0
    print(f"service    {message['service']} (pid {message['pid']}, launcher {message['launcher_pid']})")
    print(f"sockets    {message['runtime']}")
    print(f"state      {message['state']}")
    print(f"sessions   {message['sessions']} of yours running")
    approvers = message["approvers"]
    print(f"approvers  {approvers['people']}" + (f" from {approvers['path']}" if approvers["path"] else ""))
    if approvers["problem"]:
        print(f"           the newest file is NOT in force: {escape_text(approvers['problem'], 300)}")
    print(f"absent     {', '.join(message['absent']) or 'nothing'}   more: deskwarden doctor")
    return 0
