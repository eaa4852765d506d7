"""``deskwarden VERB …``: the one place that prints errors. Verbs are modules of this package, imported when named.

A verb module has ``HELP``, ``add_arguments(parser)`` and ``run(args) -> int``. ``run``, the verb that people wait for,
also has ``read_plain``, which spares it argparse (10 ms); whatever that does not know goes the common way.
"""

from __future__ import annotations

import os
import sys

from supervisor.cli import interrupt
from supervisor.cli.late import LateError
from supervisor.errors import DeskwardenError, ServiceError, UsageError, to_wire

TYPE_CHECKING = False  # typing.TYPE_CHECKING without typing, which takes 3 ms to import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, NoReturn, TextIO

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
    "requests": "requests",
    "approve": "approve",
    "deny": "deny",
    "grants": "grants",
    "revoke": "revoke",
    "rules": "rules",
    "secret": "secret",
    "recert": "recert",
    "why": "why",
    "profile": "profile",
    "manifest": "manifest",
    "policy": "policy",
    "role": "role",
    "status": "status",
    "doctor": "doctor",
}
_LATER = {
    "the broker": "break-glass config",
    "the network door": "net",
    "telemetry and audit": "events audit replay",
    "posture and the control plane": "posture enroll unenroll quarantine",
}
_SIGPIPE = 13  # signal(7), the same on every architecture
_TELL_MORE = "the same with --verbose tells more"


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code. Called as the program, ``run`` does not return: see `_leave`."""
    words = sys.argv[1:] if argv is None else argv
    _hold_standard_descriptors()
    verb = words[0] if words else ""
    before, command = split_command(words[1:])
    asked = (verb, *before)
    if argv is None:
        interrupt.end_quietly()
    code = guarded(
        lambda: _answer(verb, before, command),
        as_json="--json" in asked,
        verbose="--verbose" in asked,
        otherwise=f"deskwarden {verb} --help" if verb in VERBS else "deskwarden --help",
    )
    if argv is None:
        interrupt.ignore()
        if verb == "run":
            _leave(code)
    return code


def _answer(verb: str, before: list[str], command: list[str]) -> int:
    """Find the verb, read its words and run it."""
    if verb in ("", "-h", "--help", "help"):
        print(_overview())
        return 0 if verb else 125
    if verb in ("-V", "--version", "version"):
        print('{"version": "0.1.0"}' if "--json" in before else "deskwarden 0.1.0")
        return 0
    if verb not in VERBS:
        raise UsageError(_unknown(verb), "deskwarden --help")
    module = _import(VERBS[verb])
    args = module.read_plain(before) if verb == "run" else None
    if args is None:
        try:
            args = _parse(verb, module, before)
        except SystemExit:  # --help: argparse has printed it
            return 0
    args.command_words = command
    code: int = module.run(args)
    return code


def _hold_standard_descriptors() -> None:
    """Open /dev/null where the caller closed 0, 1 or 2: no socket of ours may take the number, and no print fail.

    What the terminal's encoding lacks is printed as an escape, never an error.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - lives as long as the program
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _import(name: str) -> ModuleType:
    if name == "run":
        from supervisor.cli import run

        return run
    import importlib

    return importlib.import_module(f"supervisor.cli.{name}")


def _parse(verb: str, module: ModuleType, words: list[str]) -> argparse.Namespace:
    """Read the words with argparse.

    Raises:
        UsageError: What argparse says is wrong with them.
        SystemExit: Help was asked for, and printed.
    """
    import argparse

    class Parser(argparse.ArgumentParser):
        def __init__(self, **fields: Any) -> None:
            super().__init__(**fields, allow_abbrev=False)  # a flag added later must not change what a word means

        def error(self, message: str) -> NoReturn:
            next_step = _with_dashes(verb, words, message) or f"{self.prog} --help"
            raise UsageError(f"{self.prog.partition(' ')[2]}: {message}", next_step)

    parser = Parser(prog=f"deskwarden {verb}", description=module.HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="on an error, show where it arose")
    module.add_arguments(parser)
    return parser.parse_args(words)


def _with_dashes(verb: str, words: list[str], message: str) -> str:
    """Return the line that was meant when only the -- before the command is missing; nothing when that is not it."""
    what, _, rest = message.partition("unrecognized arguments: ")
    first = rest.partition(" ")[0]
    if verb not in ("run", "exec") or what or first.startswith("-") or first not in words:
        return ""
    import shlex

    at = words.index(first)
    return shlex.join(["deskwarden", verb, *words[:at], "--", *words[at:]])


def _leave(code: int) -> None:
    """End at once: taking the interpreter apart costs 3 ms."""
    try:
        sys.stderr.flush()
    except OSError:
        code = code or 125
    os._exit(code)


def split_command(words: list[str]) -> tuple[list[str], list[str]]:
    """Split at the first ``--``: what follows is the agent's, untouched."""
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def guarded(run: Callable[[], int], *, as_json: bool, verbose: bool, otherwise: str) -> int:
    """Call a verb until all it printed is out; print what went wrong once, with the next step, or *otherwise*."""
    try:
        try:
            code = run()
            sys.stdout.flush()
            return code
        except Exception as error:  # noqa: BLE001 - a bug of ours is 125, never 1, which may be the agent's own
            return _failed(error, as_json, verbose, otherwise)
    except KeyboardInterrupt:
        return 128 + interrupt.SIGINT


def _failed(error: Exception, as_json: bool, verbose: bool, otherwise: str) -> int:
    stream = sys.stdout
    if isinstance(error, LateError):
        error, stream = error.error, sys.stderr
    if isinstance(error, BrokenPipeError):
        _drop_output()
        return 128 + _SIGPIPE
    if isinstance(error, DeskwardenError):
        said = error
        said.next_step = said.next_step or otherwise
    elif isinstance(error, OSError):
        where = f"{error.filename!r}: " if error.filename else ""
        said = DeskwardenError(f"{where}{error.strerror or error}", _TELL_MORE)
    else:
        said = ServiceError(f"internal error: {type(error).__name__}: {error}", _TELL_MORE)
    try:
        if verbose:
            import traceback

            traceback.print_exception(error)
        if not as_json or not _print_value(said, stream):
            print(f"deskwarden: {said.message}\n  next: {said.next_step}", file=sys.stderr)
        sys.stdout.flush()
    except OSError:  # nobody listens any more: the exit code still tells
        _drop_output()
    return said.exit_code


def _print_value(error: DeskwardenError, stream: TextIO) -> bool:
    """Print the error as a value; returns whether that went out."""
    import json

    try:
        print(json.dumps({"error": to_wire(error), "exit_code": error.exit_code}), file=stream, flush=True)
    except OSError:
        _drop_output()
        return False
    return True


def _drop_output() -> None:
    """Send what is still to be printed nowhere: the interpreter would try once more at its end, and complain."""
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)


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
