"""``deskwarden grants``: what your agents hold now, beyond what their sandbox shows."""

from __future__ import annotations

import argparse
import json
from typing import Any

from supervisor.cli import service
from supervisor.cli.ps import duration
from supervisor.plain_text import escape_text

HELP = "what is granted now"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No flags of its own."""


def run(args: argparse.Namespace) -> int:
    """Print them."""
    message, _body = service.ask({"verb": "grants"})
    if args.json:
        print(json.dumps(message["grants"], indent=2))
        return 0
    if not message["grants"]:
        print("nothing is granted   what waits: deskwarden requests")
    for grant in message["grants"]:
        print(line_of(grant))
    return 0


def line_of(grant: dict[str, Any]) -> str:
    """Return a grant as one line."""
    capability = grant["capability"]
    what = f"{capability['kind']}:{'+'.join(capability['operations'])} {escape_text(capability['selector'], 80)}"
    how = " (a copy)" if grant["copy"] else ""
    by = (
        f"{len(grant['approvals'])} approval{'s' if len(grant['approvals']) != 1 else ''}"
        if grant["approvals"]
        else "policy"
    )
    return f"{grant['id']}  {grant['session_name']}  {what}{how}  {duration(grant['left_s'])} left  by {by}"
