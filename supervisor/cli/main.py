"""``deskwarden VERB …``: the one place that prints errors. Verbs are modules of this package, imported when named.

A verb module has ``HELP``, ``add_arguments(parser)`` and ``run(args) -> int``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
from typing import Final

from supervisor.errors import DeskwardenError, to_wire

# Verb → module; in the order of --help.
VERBS: Final = {
    "run": "run",
    "exec": "exec",
    "ps": "ps",
    "show": "show",
    "inspect": "show",
    "attach": "attach",
    "logs": "logs",
    "stop": "stop",
    "kill": "kill",
    "prune": "prune",
    "diff": "diff",
    "apply": "apply",
    "discard": "discard",
    "undo": "undo",
    "profile": "profile",
    "status": "status",
    "doctor": "doctor",
}
_LATER: Final = {
    "the broker": "requests approve deny rules grants revoke why manifest policy role recert break-glass secret config",
    "the network door": "net",
    "telemetry and audit": "events audit replay",
    "posture and the control plane": "posture enroll unenroll quarantine",
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 125
    if words[0] in ("-V", "--version", "version"):
        print("deskwarden 0.1.0")
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        print(f"deskwarden: {_unknown(verb)}\n  next: deskwarden --help", file=sys.stderr)
        return 125
    module = importlib.import_module(f"supervisor.cli.{VERBS[verb]}")
    before, command = split_command(rest)
    parser = argparse.ArgumentParser(prog=f"deskwarden {verb}", description=module.HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="on an error, show where it arose")
    module.add_arguments(parser)
    try:
        args = parser.parse_args(before)
    except SystemExit as error:
        return 125 if error.code else 0
    args.command_words = command
    return guarded(args, module.run)


def split_command(words: list[str]) -> tuple[list[str], list[str]]:
    """Split at the first ``--``: what follows is the agent's, untouched."""
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def guarded(args: argparse.Namespace, run: object) -> int:
    """Call a verb; print what went wrong once, with the next step."""
    try:
        return run(args)  # type: ignore[operator,no-any-return]
    except DeskwardenError as error:
        if args.verbose:
            import traceback

            traceback.print_exc()
        if args.json:
            print(json.dumps({"error": to_wire(error), "exit_code": error.exit_code}))
        else:
            print(f"deskwarden: {error.message}", file=sys.stderr)
            if error.next_step:
                print(f"  next: {error.next_step}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        sys.stdout = None  # the interpreter would flush it once more
        return 128 + signal.SIGPIPE


def _unknown(verb: str) -> str:
    for what, verbs in _LATER.items():
        if verb in verbs.split():
            return f"{verb}: comes with {what}; this version does not have it"
    return f"unknown verb {verb!r}"


def _overview() -> str:
    lines = [
        "usage: deskwarden VERB [flags] …",
        "",
        "Run AI agents in a sandbox; review and apply what they changed.",
        "",
    ]
    for verb, name in VERBS.items():
        if verb != "inspect":
            lines.append(f"  {verb:<9} {importlib.import_module(f'supervisor.cli.{name}').HELP}")
    return "\n".join([*lines, "", "deskwarden VERB --help tells more. First: deskwarden run -- CMD…"])


if __name__ == "__main__":
    sys.exit(main())
