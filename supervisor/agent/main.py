"""``deskwarden-agent``: what an agent calls inside its sandbox. The broker, which will answer it, comes later."""

from __future__ import annotations

import json
import os
import sys

_USAGE = "usage: deskwarden-agent have|request TYPE TARGET --reason TEXT|release|why|spawn"


def main(argv: list[str] | None = None) -> int:
    """Answer ``have`` from what the sandbox was given at launch; refuse the rest with a reason a model can use."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if words else 125
    session = os.environ.get("DESKWARDEN_SESSION")
    if not session:
        print("deskwarden-agent: not inside a Deskwarden session\n  next: deskwarden run -- CMD…", file=sys.stderr)
        return 125
    if words[0] == "have":
        print(json.dumps({"session": session, "network": "off", "grants": [], "asking": "not in this version"}))
        return 0
    if words[0] in ("request", "release", "why", "spawn"):
        print(
            f"deskwarden-agent: {words[0]}: asking while running is not in this version; "
            "what you may reach was fixed at launch\n"
            "  next: tell the owner which path you need; they start again with -r PATH or -w PATH",
            file=sys.stderr,
        )
        return 126
    print(f"deskwarden-agent: unknown word {words[0]!r}\n  {_USAGE}", file=sys.stderr)
    return 125
