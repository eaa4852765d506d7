"""``deskwarden secret``: what your agents may be lent use by use. The value is read from a pipe or typed unseen."""

from __future__ import annotations

import argparse
import base64
import getpass
import json
import subprocess
import sys
import time
from typing import Any

from supervisor.cli import service
from supervisor.cli.ps import duration
from supervisor.errors import RefusedError, UsageError

HELP = "secrets that agents can ask for: set, list, rm"
# The same bound as the daemon's; here it spares reading a whole file by mistake.
_MAX_BYTES = 64 << 10
_COMMAND_S = 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words."""
    parser.add_argument("do", metavar="set|list|rm", choices=("set", "list", "rm"))
    parser.add_argument("name", metavar="NAME", nargs="?", default="")
    parser.add_argument(
        "--from-command", metavar="CMD", default="", help="a shell command that prints it, run at each use"
    )
    parser.add_argument(
        "--host", metavar="H", action="append", default=[], help="add it on the way to H only; repeatable"
    )
    parser.add_argument("--class", dest="classes", metavar="C", action="append", default=[], help="a data class")
    parser.add_argument("--keep-newline", action="store_true", help="do not remove one newline at its end")


def run(args: argparse.Namespace) -> int:
    """Set, list or remove.

    Raises:
        UsageError: A name is missing, or is one too many.
    """
    if (args.do == "list") == bool(args.name):
        raise UsageError(
            f"secret {args.do}: {'takes no name' if args.name else 'which one?'}", "deskwarden secret --help"
        )
    if args.do == "list":
        return _list(args)
    request: dict[str, Any] = {"verb": "secret", "do": args.do, "name": args.name}
    if args.do == "set":
        request |= {"hosts": args.host, "classes": args.classes, **_value(args)}
    message, _body = service.ask(request)
    if args.json:
        print(json.dumps({key: message[key] for key in ("name", "revoked")}))
        return 0
    taken = f", {message['revoked']} of its grants taken back" if message["revoked"] else ""
    print(f"{args.name}: {'set' if args.do == 'set' else 'removed'}{taken}")
    return 0


def _value(args: argparse.Namespace) -> dict[str, str]:
    if args.from_command:
        _try_out(args.from_command)
        return {"command": args.from_command}
    if sys.stdin.isatty():
        data = getpass.getpass(f"{args.name}: ").encode()
    else:
        data = sys.stdin.buffer.read(_MAX_BYTES + 2)
        if not args.keep_newline:
            data = data.removesuffix(b"\n")
    if not 0 < len(data) <= _MAX_BYTES:
        size = f"more than {_MAX_BYTES}" if data else "0"
        raise UsageError(
            f"a secret of {size} bytes: want 1 to {_MAX_BYTES}", "printf %s VALUE | deskwarden secret set NAME"
        )
    return {"value": base64.b64encode(data).decode()}


def _try_out(command: str) -> None:
    """Run it once, as its owner: better to fail here than at the first use. What it prints is dropped."""
    try:
        done = subprocess.run(  # noqa: S602 - the owner's own command, in the owner's own shell
            command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise RefusedError(f"the command ran longer than {_COMMAND_S} s", "give one that asks nothing") from None
    if done.returncode or not done.stdout.strip():
        what = f"failed with {done.returncode}" if done.returncode else "printed nothing"
        raise RefusedError(f"the command {what}", "give one that prints the secret")


def _list(args: argparse.Namespace) -> int:
    message, _body = service.ask({"verb": "secret", "do": "list"})
    if args.json:
        print(json.dumps(message["secrets"], indent=2))
        return 0
    if not message["secrets"]:
        print("no secrets   set one: deskwarden secret set NAME")
    for one in message["secrets"]:
        print(_line(one))
    return 0


def _line(one: dict[str, Any]) -> str:
    now = time.time()
    used = f"used {duration(now - one['used_ns'] / 1e9)} ago" if one["used_ns"] else "never used"
    what = [one["level"], *one["classes"], *(f"only for {host}" for host in one["hosts"])]
    what += ["from a command"] if one["source"] == "command" else []
    return f"{one['name']}  set {duration(now - one['created_ns'] / 1e9)} ago, {used}  ({', '.join(what)})"
