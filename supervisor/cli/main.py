"""``deskwarden VERB …``: the one place that prints errors. Verbs are modules of this package, imported when named.

A verb module has ``HELP``, ``add_arguments(parser)`` and ``run(args) -> int``. ``run``, the verb that people wait for,
also has ``read_plain``, which spares it argparse (10 ms); whatever that does not know goes the common way.
"""

from __future__ import annotations

import os
import sys

from supervisor.errors import DeskwardenError, to_wire

TYPE_CHECKING = False  # typing.TYPE_CHECKING without typing, which takes 3 ms to import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from types import ModuleType

# Verb → module; in the order of --help.
VERBS = {
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
_LATER = {
    "the broker": "requests approve deny rules grants revoke why manifest policy role recert break-glass secret config",
    "the network door": "net",
    "telemetry and audit": "events audit replay",
    "posture and the control plane": "posture enroll unenroll quarantine",
}
# signal(7), the same on every architecture; the module of that name takes 4 ms to import.
_SIGINT = 2
_SIGPIPE = 13


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code. Called as the program, ``run`` does not return: see `_leave`."""
    words = sys.argv[1:] if argv is None else argv
    _hold_standard_descriptors()
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
    module = _import(VERBS[verb])
    before, command = split_command(rest)
    args = module.read_plain(before) if verb == "run" else None
    if args is None:
        try:
            args = _parse(verb, module, before)
        except SystemExit as error:
            return 125 if error.code else 0
    args.command_words = command
    code = guarded(args, module.run)
    if argv is None and verb == "run":
        _leave(code)
    return code


def _hold_standard_descriptors() -> None:
    """Open /dev/null where the caller closed 0, 1 or 2: no socket of ours may take the number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)


def _import(name: str) -> ModuleType:
    if name == "run":
        from supervisor.cli import run

        return run
    import importlib

    return importlib.import_module(f"supervisor.cli.{name}")


def _parse(verb: str, module: ModuleType, words: list[str]) -> argparse.Namespace:
    import argparse

    parser = argparse.ArgumentParser(prog=f"deskwarden {verb}", description=module.HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="on an error, show where it arose")
    module.add_arguments(parser)
    return parser.parse_args(words)


def _leave(code: int) -> None:
    """End at once: taking the interpreter apart costs 3 ms. Returns only when output could not go out."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        return
    os._exit(code)


def split_command(words: list[str]) -> tuple[list[str], list[str]]:
    """Split at the first ``--``: what follows is the agent's, untouched."""
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def guarded(args: argparse.Namespace, run: Callable[[argparse.Namespace], int]) -> int:
    """Call a verb; print what went wrong once, with the next step."""
    try:
        return run(args)
    except DeskwardenError as error:
        return _say(args, error)
    except KeyboardInterrupt:
        return 128 + _SIGINT
    except BrokenPipeError:
        sys.stdout = None  # the interpreter would flush it once more
        return 128 + _SIGPIPE
    except OSError as error:
        where = f"{error.filename!r}: " if error.filename else ""
        return _say(args, DeskwardenError(f"{where}{error.strerror or error}"))


def _say(args: argparse.Namespace, error: DeskwardenError) -> int:
    if args.verbose:
        import traceback

        traceback.print_exc()
    if args.json:
        import json

        print(json.dumps({"error": to_wire(error), "exit_code": error.exit_code}))
    else:
        print(f"deskwarden: {error.message}", file=sys.stderr)
        if error.next_step:
            print(f"  next: {error.next_step}", file=sys.stderr)
    return error.exit_code


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
            lines.append(f"  {verb:<9} {_import(name).HELP}")
    return "\n".join([*lines, "", "deskwarden VERB --help tells more. First: deskwarden run -- CMD…"])


if __name__ == "__main__":
    sys.exit(main())
