"""``deskwarden requests``: what agents ask for and nobody has answered; one of them whole; or all as they come."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from supervisor.cli import service
from supervisor.cli.ps import duration
from supervisor.plain_text import escape_text

HELP = "what agents ask for, and waits for an answer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words."""
    parser.add_argument("id", metavar="ID", nargs="?", help="show this one whole")
    parser.add_argument("-w", "--watch", action="store_true", help="go on: print each as it comes")


def run(args: argparse.Namespace) -> int:
    """Print them."""
    if args.watch:
        return _watch(args.json)
    message, _body = service.ask({"verb": "requests", "id": args.id or ""})
    requests = message["requests"]
    if args.json:
        print(json.dumps(requests, indent=2))
        return 0
    if args.id:
        print_card(requests[0])
        return 0
    if not requests:
        print("no request waits for you   what is in force: deskwarden grants")
    for request in requests:
        print(line_of(request))
    return 0


def print_card(request: dict[str, Any]) -> None:
    """Print a request as its approvers are to see it; what the agent says is marked as its words."""
    print(f"── request {request['id']}: {request['state']}")
    for line in request.get("card", []):
        marked = f"“{line['text']}”   (the agent's words)" if line["agents_words"] else line["text"]
        print(f"   {line['label']:<11} {marked}")
    for vote in request["votes"]:
        print(f"   {'answered':<11} {escape_text(vote['human'], 60)}: {vote['answer']} ({vote['assurance']})")
    if request["state"] == "waiting":
        print(f"   {'waits for':<11} {'; '.join(request['waits_for'])}, {_left(request)} more")
        print(f"   yes: deskwarden approve {request['id']}   no: deskwarden deny {request['id']}")
    for reason in request["reasons"] if request["state"] != "waiting" else []:
        print(f"   {'because':<11} {escape_text(reason['text'], 200)}")


def line_of(request: dict[str, Any]) -> str:
    """Return a request as one line."""
    what = f"{request['kind']}:{'+'.join(request['operations'])}"
    target, agent = escape_text(request["target"], 60), escape_text(request["agent"].rsplit("/", 1)[-1], 24)
    risk, waits = request.get("risk", "?"), "; ".join(request["waits_for"])
    who = f"{request['id']}  {agent} in {request['session_name']}"
    return f"{who}  {what}  {target}  risk {risk}  waits for {waits}, {_left(request)}"


def _left(request: dict[str, Any]) -> str:
    return duration(max(0.0, request["lapses_at_ns"] / 1e9 - time.time()))


def _watch(as_json: bool) -> int:
    seen: set[str] = set()
    for message in service.stream({"verb": "requests", "watch": True}):
        fresh = [one for one in message["requests"] if one["id"] not in seen]
        seen = {one["id"] for one in message["requests"]}
        for request in fresh:
            if as_json:
                print(json.dumps(request), flush=True)
            else:
                print_card(request)
    return 0
