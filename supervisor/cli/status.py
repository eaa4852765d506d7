"""``deskwarden status``: which service answers, and what it lacks."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

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
    for line in _policy(message["policy"]):
        print(line)
    print(f"absent     {', '.join(message['absent']) or 'nothing'}   more: deskwarden doctor")
    return 0


def _policy(policy: dict[str, Any]) -> list[str]:
    """Say which policy decides, since when, and why a newer one does not."""
    if policy["revision"]:
        number = f", number {policy['seq']} signed by {', '.join(policy['signers'])}" if policy["seq"] else ""
        since = _time(int(policy["since_ns"]) / 1e9)
        lines = [f"policy     {policy['revision'][:19]} ({escape_text(policy['source'], 200)}{number}) since {since}"]
    else:
        lines = ["policy     none: every request is denied"]
    if policy["expires_s"]:
        over = ": expired, nothing is given without a person" if policy["expired"] else ""
        lines.append(f"           signed until {_time(policy['expires_s'])}{over}")
    if policy["problem"]:
        lines.append(f"           not used: {escape_text(policy['problem'], 400)}")
        lines += [f"           next: {escape_text(policy['next'], 200)}"] if policy["next"] else []
    return lines


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
