"""``deskwarden kill``: end sessions at once. Staged changes are kept."""

from __future__ import annotations

import argparse

from supervisor.cli import stop

HELP = "end sessions at once; staged changes are kept"

add_arguments = stop.add_arguments


def run(args: argparse.Namespace) -> int:
    """Kill them."""
    return stop.end(args, now=True)
