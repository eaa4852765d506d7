"""``deskwarden-agent``: what an agent types in its sandbox to see, ask for and give back what it may use.

Exit codes: 0 granted or done, 126 denied, 124 not decided yet (as timeout(1)), 125 something failed. With ``--json``
one value on stdout, an error too. gRPC is imported only when the broker is asked: it takes 60 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NoReturn

from supervisor.errors import DeskwardenError, ServiceError, UsageError

if TYPE_CHECKING:
    from supervisor.agent.client import AgentClient
    from supervisor.agent.values import Grant, State

UNDECIDED: Final = 124
FAILED: Final = 125
DENIED: Final = 126
# Without --wait: policy answers in milliseconds, and people are not waited for.
_ANSWER_S: Final = 30.0
_SOCKET: Final = "/run/deskwarden/agent.sock"
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TYPES: Final = "file:read, file:write, exec:run, secret:use, net:connect, agent.call:spawn"


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    at = words.index("--") if "--" in words else len(words)
    as_json = "--json" in words[:at]
    try:
        args = _parser().parse_args(words[:at])
        _take_command(args, words[at + 1 :])
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as error:  # --help: argparse has printed it
        return FAILED if error.code else 0
    except DeskwardenError as error:
        return _failed(error, as_json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
        return 141


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="deskwarden-agent", description=__doc__.partition("\n")[0])
    parser.add_argument("--socket", default=os.environ.get("DESKWARDEN_AGENT_SOCKET", _SOCKET), help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=_Parser)
    _verb(verbs, _have, "have", "what this session has, and what it may ask for")
    request = _verb(verbs, _request, "request", "ask for one thing")
    request.add_argument("type", metavar="TYPE", help=_TYPES)
    request.add_argument(
        "target", metavar="TARGET", help="path or pattern ('~/…' in quotes), program, secret, host:port"
    )
    request.add_argument("--reason", required=True, help="what it is for; people read it")
    request.add_argument("--for", dest="duration_s", type=seconds, default=0, metavar="20m", help="how long")
    request.add_argument("--uses", type=int, default=0, metavar="N", help="how often")
    request.add_argument(
        "--outcome", default="", metavar="TEXT", help="what will be different; helps where risk is high"
    )
    request.add_argument("--rollback", default="", metavar="TEXT", help="how to undo it; helps where the risk is high")
    request.add_argument("--wait", action="store_true", help="wait for people")
    request.add_argument("--timeout", type=seconds, metavar="5m", help="wait no longer; exit code 124 then")
    wait = _verb(verbs, _wait, "wait", "wait for a request made before")
    wait.add_argument("id", metavar="REQUEST")
    wait.add_argument("--timeout", type=seconds, metavar="5m", help="no longer; exit code 124 then")
    _verb(verbs, _cancel, "cancel", "withdraw a request").add_argument("id", metavar="REQUEST")
    _verb(verbs, _release, "release", "give a grant back").add_argument("id", metavar="GRANT")
    use = _verb(verbs, _use, "use", "write a secret's value into a pipe: deskwarden-agent use GRANT | …")
    use.add_argument("id", metavar="GRANT")
    why = _verb(verbs, _why, "why", "explain a decision; alone: the last refusal")
    why.add_argument("id", nargs="?", default="", metavar="ID")
    spawn = _verb(verbs, _spawn, "spawn", "start another agent with a part of what you have: … AGENT -- CMD")
    spawn.add_argument("agent", metavar="AGENT")
    spawn.set_defaults(command=[])
    spawn.add_argument("--reason", required=True, help="what it is for; people read it")
    spawn.add_argument("--with", dest="grants", action="append", default=[], metavar="GRANT", help="give it this too")
    spawn.add_argument("--for", dest="duration_s", type=seconds, default=0, metavar="20m", help="how long")
    _verb(verbs, _mcp, "mcp", "serve the same as MCP tools on stdin and stdout")
    return parser


class _Parser(argparse.ArgumentParser):
    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"{self.prog} --help")


def _take_command(args: argparse.Namespace, command: list[str]) -> None:
    """Keep what follows ``--``, untouched, for the one verb that runs something."""
    if command and not hasattr(args, "command"):
        raise UsageError(f"no command is taken here: {command[0]!r}", "deskwarden-agent --help")
    if command:
        args.command = command


def _verb(verbs: Any, run: Callable[[argparse.Namespace], int], name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def seconds(text: str) -> int:
    """Return the seconds of ``90``, ``90s``, ``20m``, ``8h`` or ``1d``.

    Raises:
        ArgumentTypeError: It is none of them.
    """
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}, want a duration such as 90s, 20m or 8h")
    return int(found[1]) * _UNITS[found[2]]


def _broker(args: argparse.Namespace) -> AgentClient:
    from supervisor.agent.client import AgentClient

    return AgentClient(args.socket)


def _have(args: argparse.Namespace) -> int:
    with _broker(args) as broker:
        access = broker.describe()
    if args.json:
        return _print_json(asdict(access))
    lines = [f"session {access.session}, working in {access.workspace}, network {access.network}"]
    lines += [f"  {_grant_line(one)}" for one in access.grants]
    lines += [f"  {one.id}  {one.phase}" for one in access.open_requests]
    lines += [f"  may ask for {type_} {target}" for type_, target in access.askable]
    if not access.is_attended:
        lines.append("nobody is there to answer: what policy does not allow by itself is denied")
    return _print_lines(lines)


def _request(args: argparse.Namespace) -> int:
    from supervisor.agent.values import Ask

    ask = Ask(args.type, args.target, args.reason, args.duration_s, args.uses, args.outcome, args.rollback)
    with _broker(args) as broker:
        waits = args.wait or args.timeout is not None
        return _answer(args, broker.request(ask, args.timeout if waits else _ANSWER_S), waits)


def _wait(args: argparse.Namespace) -> int:
    with _broker(args) as broker:
        return _answer(args, broker.follow(args.id, args.timeout), waits=True)


def _answer(args: argparse.Namespace, states: Iterable[State], waits: bool) -> int:
    """Follow a request until it is decided, or people are asked and nobody wants to wait for them."""
    state = None
    try:
        for state in states:
            if state.is_final or (not waits and state.waiting_for):
                break
            if waits and state.waiting_for and not args.json:
                print(f"{state.id}: waiting for {', '.join(state.waiting_for)}", file=sys.stderr, flush=True)
    except ServiceError as error:  # the request is still there: a daemon that restarted knows it
        if state is not None:
            error.next_step = f"deskwarden-agent wait {state.id}"
        raise
    if state is None:
        name = getattr(args, "id", "")
        code, step = (UNDECIDED, f"deskwarden-agent wait {name}") if name else (FAILED, "deskwarden-agent have")
        return _failed(ServiceError("the broker did not answer in time", step), args.json) and code
    if args.json:
        _print_json(asdict(state))
    elif state.grant:
        _print_lines([f"granted {_grant_line(state.grant)}"])
    elif state.is_final:
        _say_denied(state.id, state.phase, [one.text for one in state.reasons], state.next_steps)
    else:
        who = ", ".join(state.waiting_for) or "a decision"
        print(f"{state.id}: waiting for {who}\n  next: deskwarden-agent wait {state.id}", file=sys.stderr)
    return 0 if state.grant else DENIED if state.is_final else UNDECIDED


def _cancel(args: argparse.Namespace) -> int:
    with _broker(args) as broker:
        broker.cancel(args.id)
    return _done(args, {"cancelled": args.id})


def _release(args: argparse.Namespace) -> int:
    with _broker(args) as broker:
        broker.release(args.id)
    return _done(args, {"released": args.id})


def _use(args: argparse.Namespace) -> int:
    """Write a secret where it does not stay: into a pipe or a socket, never a file or a terminal."""
    mode = os.fstat(1).st_mode
    if args.json or not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        raise UsageError("a secret is written into a pipe only", f"deskwarden-agent use {args.id} | COMMAND")
    with _broker(args) as broker:
        use = broker.use_secret(args.id)
    if use.added_for_hosts:
        hosts = ", ".join(use.added_for_hosts)
        raise UsageError(f"this secret is added on the way to {hosts}; you never see it", "send the request without it")
    sys.stdout.buffer.write(use.value)
    return 0


def _why(args: argparse.Namespace) -> int:
    with _broker(args) as broker:
        why = broker.why(args.id)
    if args.json:
        return _print_json(asdict(why))
    lines = [f"{why.id}: {why.type} {why.target}: {why.phase}", *(f"  {one.code}: {one.text}" for one in why.reasons)]
    lines += [f"  rule {rule} of policy {why.policy_revision}" for rule in why.rules]
    return _print_lines([*lines, *(f"  next: {step}" for step in why.next_steps)])


def _spawn(args: argparse.Namespace) -> int:
    with _broker(args) as broker:
        child = broker.start_child(
            args.agent, args.command, reason=args.reason, grants=args.grants, duration_s=args.duration_s
        )
    if args.json:
        return _print_json(asdict(child))
    return _print_lines([f"started {args.agent} as session {child.session}  {until(child.expires_ns)}"])


def _mcp(args: argparse.Namespace) -> int:
    from supervisor.agent.mcp_server import serve

    serve(args.socket)
    return 0


def until(expires_ns: int) -> str:
    """Return a moment as people read it: UTC, to the second."""
    from datetime import UTC, datetime

    return f"until {datetime.fromtimestamp(expires_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC" if expires_ns else ""


def _grant_line(grant: Grant) -> str:
    where = f"  at {' '.join(grant.paths)}" if grant.paths else ""
    return f"{grant.id}  {grant.type} {grant.target}  {until(grant.expires_ns)}{where}"


def _print_lines(lines: list[str]) -> int:
    print("\n".join(lines))
    return 0


def _print_json(value: dict[str, Any]) -> int:
    print(json.dumps(value))
    return 0


def _done(args: argparse.Namespace, value: dict[str, str]) -> int:
    return _print_json(value) if args.json else _print_lines([f"{word} {name}" for word, name in value.items()])


def _say_denied(name: str, phase: str, texts: list[str], next_steps: Iterable[str]) -> None:
    lines = [f"deskwarden-agent: {name}: {phase}: {'; '.join(texts) or 'no reason was given'}"]
    print("\n".join([*lines, *(f"  next: {step}" for step in next_steps)]), file=sys.stderr)


def _failed(error: DeskwardenError, as_json: bool) -> int:
    """Print what went wrong, with every next step."""
    steps = list(getattr(error, "next_steps", ())) or [error.next_step or "deskwarden-agent --help"]
    code = str(getattr(error, "reason_code", "failed"))
    if as_json:
        _print_json({"error": {"reason_code": code, "message": error.message, "next_steps": steps}})
    else:
        print(
            "\n".join([f"deskwarden-agent: {error.message}", *(f"  next: {step}" for step in steps)]), file=sys.stderr
        )
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
