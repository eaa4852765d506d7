"""``deskwarden run``: start an agent in a sandbox. Imports nothing slow: this is the verb that people wait for."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

from supervisor.cli import service, window
from supervisor.errors import DeskwardenError, RefusedError, UsageError

TYPE_CHECKING = False  # typing.TYPE_CHECKING without typing, which takes 3 ms to import
if TYPE_CHECKING:
    import argparse
    from typing import Any

HELP = "run an agent or any command in a sandbox"

# As `identity.dsse` reads; importing that takes longer than all the rest here.
_MAX_ENVELOPE_BYTES = 512 * 1024
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Agents that are of no use without their model's API: until the network door exists, say so instead of a time-out.
_NEED_NETWORK = {
    "codex": "OpenAI",
    "claude": "Anthropic",
    "gemini": "Google",
    "cursor-agent": "Cursor",
    "amp": "Sourcegraph",
}


# What `read_plain` knows of the flags below: where their word goes. The test compares both readers.
_ONE = {
    "-C": "workspace",
    "--mode": "mode",
    "-p": "profile",
    "--profile": "profile",
    "--name": "name",
    "--for": "lasts",
    "--memory": "memory",
    "--manifest": "manifest",
}
_MANY = {"-r": "read", "--read": "read", "-w": "write", "--write": "write", "--read-file": "read_file", "--env": "env"}
_SWITCHES = {
    "-n": "dry_run",
    "--dry-run": "dry_run",
    "-d": "detach",
    "--detach": "detach",
    "-v": "loud",
    "--json": "json",
    "--verbose": "verbose",
}
_MODES = ("live", "staged", "direct")


def read_plain(words: list[str]) -> argparse.Namespace | None:
    """Read the flags in their plain form, as argparse would; None when it takes argparse to read or refuse them."""
    values: dict[str, Any] = {
        **dict.fromkeys((*_ONE.values(), "net", "ask", "reason", "pids")),
        **{name: [] for name in (*_MANY.values(), "write_file", "allow_domain", "publish")},
        **dict.fromkeys((*_SWITCHES.values(), "auto"), False),
        "profile": "coding",
    }
    left = iter(words)
    for word in left:
        if word in _SWITCHES:
            values[_SWITCHES[word]] = True
            continue
        value = next(left, "-")
        if value.startswith("-") or (word == "--mode" and value not in _MODES):
            return None
        if word in _ONE:
            values[_ONE[word]] = value
        elif word in _MANY:
            values[_MANY[word]].append(value)
        else:
            return None
    return SimpleNamespace(**values)  # type: ignore[return-value]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of CLI.md."""
    from argparse import SUPPRESS

    parser.usage = "deskwarden run [flags] -- CMD…"
    parser.epilog = (
        "Exit codes: the command's own; 125 Deskwarden failed, 126 refused or not executable, 127 not found, 128+N by "
        "signal N. When the terminal goes away (SIGHUP) the command is told; what does not end gets SIGTERM and 10 s, "
        "then it is killed, and its staged changes are kept. With nohup, or -d, it goes on. With --json stdout stays "
        "the command's own and the value is the last line of stderr; a command that never started leaves it on stdout."
    )
    parser.add_argument("-C", dest="workspace", metavar="DIR", help="the workspace (default: the current directory)")
    parser.add_argument("--mode", choices=_MODES, help="how changes reach the real folder")
    parser.add_argument("-p", "--profile", default="coding", help="a sandbox profile (deskwarden profile list)")
    parser.add_argument("-n", "--dry-run", action="store_true", help="print the plan in words, start nothing")
    parser.add_argument("--name", help="a name for the session")
    parser.add_argument("-d", "--detach", action="store_true", help="start it and return")
    parser.add_argument("-v", dest="loud", action="store_true", help="say what is set up")
    files = parser.add_argument_group("files")
    files.add_argument(
        "-r", "--read", action="append", default=[], metavar="P", help="show one more directory, read-only"
    )
    files.add_argument(
        "-w", "--write", action="append", default=[], metavar="P", help="one more directory, staged for writing"
    )
    files.add_argument("--read-file", action="append", default=[], metavar="P", help="show one more file, read-only")
    files.add_argument("--write-file", action="append", default=[], metavar="P", help=SUPPRESS)
    network = parser.add_argument_group("network")
    network.add_argument("--net", choices=("off", "profile", "open"), help="off; the others come with the network door")
    network.add_argument("--allow-domain", action="append", default=[], metavar="H[:port]", help=SUPPRESS)
    network.add_argument("--publish", action="append", default=[], metavar="PORT", help=SUPPRESS)
    asking = parser.add_argument_group("asking")
    asking.add_argument(
        "--manifest", metavar="FILE", help="what stands behind the agent: a signed manifest (.dsse.json)"
    )
    asking.add_argument("--ask", choices=("prompt", "never"), help=SUPPRESS)
    asking.add_argument("--auto", action="store_true", help=SUPPRESS)
    more = parser.add_argument_group("more")
    more.add_argument("--env", action="append", default=[], metavar="K[=V]", help="pass or set a variable")
    more.add_argument("--for", dest="lasts", metavar="20m", help="end it after this time")
    more.add_argument("--reason", help=SUPPRESS)
    more.add_argument("--memory", metavar="SIZE", help="lower the profile's memory limit, e.g. 2g")
    more.add_argument("--pids", type=int, metavar="N", help="lower the profile's limit of processes")


def run(args: argparse.Namespace) -> int:
    """Start the session and stay with it; returns the agent's exit code."""
    _refuse_what_comes_later(args)
    request = build_request(args)
    if args.dry_run:
        message, _body = service.ask(request | {"verb": "plan"})
        if args.json:
            import json

            print(json.dumps(message["plan"], indent=2))
        else:
            print("\n".join(message["plan"]))
        return 0
    interactive = window.is_interactive() and not args.detach
    if interactive:
        request["terminal"] = list(window.window_size())
        request["can_ask"] = True
    message = _converse(request, interactive, args.json)
    if message["event"] == "consent":  # nothing was started yet
        from supervisor.cli.consent import agreed

        message = _converse(request | {"agreed": agreed(message)}, interactive, args.json)
    return finish(message, args.json, args.loud)


def _converse(request: dict[str, Any], interactive: bool, as_json: bool) -> dict[str, Any]:
    """Start the session and carry its input and output; returns the last message."""
    with service.begin(request) as sock:
        # Imported while the daemon works on it.
        from supervisor.cli import card, conversation  # noqa: F401 (the card is for `finish`)

        return conversation.Conversation(sock, interactive, lambda message: None if as_json else greet(message)).carry()


def greet(message: dict[str, Any]) -> None:
    """Show the card of a first run: what the agent sees and does not, once for each agent and folder."""
    if "note" in message:
        sys.stderr.write(f"deskwarden: {message['note']}" + ("\r\n" if os.isatty(2) else "\n"))
    if "first_run" in message:
        from supervisor.cli.card import first_run_card

        # On a raw terminal a line needs its carriage return.
        sys.stderr.write(
            "".join(f"{line}\r\n" if os.isatty(2) else f"{line}\n" for line in first_run_card(message["first_run"]))
        )
        sys.stderr.flush()


def finish(message: dict[str, Any], as_json: bool, loud: bool) -> int:
    """Print what a run leaves: the card, or where the session went; returns the exit code."""
    import json

    if message["event"] == "result":
        if as_json:
            print(json.dumps(message))
        elif message.get("detached"):
            print(f"\nleft running: {message['name']}   back: deskwarden attach {message['id']}", file=sys.stderr)
        else:
            print(message["id"])
        return 0
    if as_json:
        print(json.dumps(message), file=sys.stderr)
    else:
        from supervisor.cli.card import exit_card

        for line in exit_card(message, loud):
            print(line, file=sys.stderr)
    return int(message["code"])


def build_request(args: argparse.Namespace) -> dict[str, Any]:
    """Turn the words typed into a ``run`` request.

    Raises:
        UsageError: No command, or a value that is none.
    """
    if not args.command_words:
        raise UsageError(
            "no command to run", "deskwarden run [flags] -- CMD…   e.g. deskwarden run -- python3 agent.py"
        )
    _refuse_empty(args)
    limits = {}
    if args.memory:
        limits["memory_bytes"] = parse_size(args.memory)
    if args.pids is not None:
        limits["pids"] = args.pids
    try:
        workspace = os.path.realpath(args.workspace or ".")
    except FileNotFoundError:
        raise UsageError(
            "the current directory does not exist any more", "cd to another, or name one: -C DIR"
        ) from None
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "verb": "run",
        "argv": args.command_words,
        "workspace": workspace,
        "environment": dict(os.environ),
        "profile": args.profile,
        "mode": args.mode or "",
        "name": args.name or "",
        "reads": [os.path.abspath(path) for path in args.read + args.read_file],
        "writes": [os.path.abspath(path) for path in args.write + args.write_file],
        "overrides": parse_environment(args.env),
        "limits": limits,
        "detach": args.detach,
        "for_s": parse_duration(args.lasts) if args.lasts else None,
        "umask": umask,
        **_standing(args),
    }


def _standing(args: argparse.Namespace) -> dict[str, Any]:
    """Return what is said of the agent's standing: a signed manifest, as its file has it."""
    if not args.manifest:
        return {}
    try:
        fd = os.open(args.manifest, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            data = file.read(_MAX_ENVELOPE_BYTES + 1)
        return {"manifest": data.decode()}
    except OSError as error:
        raise UsageError(f"{args.manifest}: {error.strerror}", "deskwarden manifest sign makes one") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{args.manifest}: is no envelope", "deskwarden manifest sign makes one") from error


def _refuse_empty(args: argparse.Namespace) -> None:
    """A flag with an empty word is a script's variable that is not set: what was meant is not what would be done."""
    for flag, name in (_ONE | _MANY).items():
        value = getattr(args, name)
        if value == "" or (isinstance(value, list) and "" in value):
            raise UsageError(f"{flag} is empty", "give it a value, or leave it out")


def parse_environment(items: list[str]) -> dict[str, str | None]:
    """Return ``--env K=V`` and ``--env K`` as names and values; None takes the caller's."""
    result: dict[str, str | None] = {}
    for item in items:
        name, equals, value = item.partition("=")
        result[name] = value if equals else None
    return result


def parse_size(text: str) -> int:
    """Return a size in bytes: ``512m``, ``2g``, ``1GiB``.

    Raises:
        UsageError: It is no size.
    """
    import re

    match = re.fullmatch(r"(\d+)\s*([kmgt]?)(?:i?b)?", text.lower())
    if match is None:
        raise UsageError(f"{text!r} is no size", "write 512m, 2g or 1GiB")
    return int(match[1]) * _UNITS[match[2]]


def parse_duration(text: str) -> int:
    """Return a duration in seconds: ``90s``, ``20m``, ``2h``.

    Raises:
        UsageError: It is no duration.
    """
    import re

    match = re.fullmatch(r"(\d+)([smhd])", text.lower())
    if match is None or int(match[1]) == 0:
        raise UsageError(f"--for {text!r} is no duration", "write 90s, 20m or 2h")
    return int(match[1]) * _SECONDS[match[2]]


def _refuse_what_comes_later(args: argparse.Namespace) -> None:
    """Flags of later rooms are refused by name, never ignored."""
    later = "the network door comes with a later version; today the network is closed"
    if args.net in ("profile", "open") or args.allow_domain or args.publish:
        raise RefusedError(later, "run without network flags, or try: scripts/demo")
    if args.ask or args.reason or args.auto:
        raise RefusedError(
            "--ask, --auto and --reason come with the broker; today everything is fixed at launch",
            "say what it may see with -r, -w and -p",
        )
    command = os.path.basename(args.command_words[0]) if args.command_words else ""
    if command in _NEED_NETWORK and not args.dry_run:
        raise DeskwardenError(
            f"{command} needs the network (its model is {_NEED_NETWORK[command]}'s) and your sign-in; "
            "this version has neither yet",
            "see it work with an agent that needs no network: scripts/demo",
        )
