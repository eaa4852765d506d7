"""``deskwarden approve``: say yes to exactly what is shown, once by default, and no wider than that."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from supervisor.broker.card import Card, Line
from supervisor.broker.statement import Statement
from supervisor.broker.vote import PAYLOAD_TYPE, Answer, Narrowing
from supervisor.cli import service
from supervisor.cli.requests import print_card
from supervisor.cli.run import parse_duration
from supervisor.clock import now_ns
from supervisor.errors import RefusedError
from supervisor.identity.dsse import Envelope, add_signature, envelope_bytes
from supervisor.identity.keys import read_private

HELP = "say yes to a request"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("id", metavar="ID")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="this time (default)")
    how.add_argument("--session", action="store_true", help="as often as this session asks")
    how.add_argument("--always", action="store_true", help="90 days, for this agent, folder and target")
    parser.add_argument("--for", dest="lasts", metavar="TIME", help="for less time than asked")
    parser.add_argument("--read-only", action="store_true", help="to look, not to change")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why; it is recorded")
    parser.add_argument("--key", metavar="FILE", help="sign the answer with this private key")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask again on this terminal")


def run(args: argparse.Namespace) -> int:
    """Show the request, ask once more where a person sits, and answer."""
    answer = "always" if args.always else "session" if args.session else "once"
    return vote(args, answer, read_only=args.read_only, for_s=parse_duration(args.lasts) if args.lasts else 0)


def vote(args: argparse.Namespace, answer: str, *, read_only: bool = False, for_s: int = 0) -> int:
    """Answer one request with what it is now, and print what came of it; shared with ``deny``.

    Raises:
        RefusedError: The person at the terminal thought better of it.
    """
    message, _body = service.ask({"verb": "requests", "id": args.id}, start=False)
    request = message["requests"][0]
    if not args.json:
        print_card(request)
    if sys.stdin.isatty() and sys.stdout.isatty() and not args.yes and request["state"] == "waiting":
        _confirm(answer, request)
    if args.key:
        message, _body = service.ask(signed(args.key, request, answer, args.reason, Narrowing(read_only, for_s)), False)
    else:
        fields = {key: request.get(key, "") for key in ("id", "request_digest", "shown_digest")}
        narrowing = {"read_only": read_only, "for_s": for_s}
        message, _body = service.ask(
            {"verb": "answer", "answer": answer, "reason": args.reason, **narrowing, **fields}, start=False
        )
    if args.json:
        print(json.dumps(message["request"] | {"rule": message["rule"]}, indent=2))
        return 0
    _print_outcome(message)
    return 0


def signed(path: str, request: dict[str, Any], answer: str, reason: str, narrowing: Narrowing) -> dict[str, Any]:
    """Return the message that carries a signed answer to *request*.

    What was shown is digested here, from what was printed: a signature is for that, whatever a service says it was.

    Raises:
        DeskwardenError: The key cannot be used, or the request cannot be answered.
    """
    if "card" not in request:
        raise RefusedError(f"request {request['id']} is {request['state']}", "deskwarden requests")
    key = read_private(path)
    shown = Card(tuple(Line(line["label"], line["text"], line["agents_words"]) for line in request["card"]))
    statement = Statement(
        request["id"],
        request["request_digest"],
        shown.shown_digest,
        Answer(answer),
        narrowing,
        reason,
        now_ns() // 10**9,
    )
    envelope = add_signature(Envelope(PAYLOAD_TYPE, statement.to_bytes()), key)
    return {"verb": "answer", "envelope": envelope_bytes(envelope).decode(), "key": key.public.pem}


def _confirm(answer: str, request: dict[str, Any]) -> None:
    words = {"once": "once", "session": "for this session", "always": "always, for 90 days"}
    question = f"allow {words[answer]}?" if answer in words else f"{answer}?"
    if answer == "always":
        print("   will be kept as a rule; to undo it: deskwarden rules list, deskwarden rules rm ID")
    if input(f"   {question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise RefusedError("nothing was answered", f"deskwarden requests {request['id']}")


def _print_outcome(message: dict[str, Any]) -> None:
    request = message["request"]
    state = request["state"]
    if state == "waiting":
        print(f"counted; it still waits for {'; '.join(request['waits_for'])}")
    elif state == "active":
        print("granted   what is in force: deskwarden grants   take it back: deskwarden revoke")
    else:
        print(f"{state}: {'; '.join(reason['text'] for reason in request['reasons'])}")
    if message["rule"]:
        print(f"kept: {message['rule']['sentence']}   undo: deskwarden rules rm {message['rule']['id']}")
