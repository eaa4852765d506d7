"""``deskwarden why``: the story of one decision, from the journal: asked, by which rules, answered, given, ended."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from supervisor.cli import service
from supervisor.plain_text import escape_text

HELP = "why something was granted or refused"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words."""
    parser.add_argument("id", metavar="ID", nargs="?", default="", help="a request; alone: the last refusal")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    message, _body = service.ask({"verb": "why", "id": args.id})
    if args.json:
        print(json.dumps(message["story"], indent=2))
        return 0
    for entry in message["story"]:
        at = time.strftime("%H:%M:%S", time.localtime(int(entry["at_ns"]) / 1e9))
        for line in _lines(entry["kind"], entry["body"]):
            print(f"{at}  {line}")
            at = " " * 8
    return 0


def _lines(kind: str, body: dict[str, Any]) -> list[str]:
    if kind == "request":
        capability, resource = body["capability"], body["resource"]
        what = f"{capability['kind']}:{'+'.join(capability['operations'])} {escape_text(capability['selector'], 120)}"
        classes = f" ({', '.join(resource['classes'])})" if resource["classes"] else ""
        return [
            f"asked for {what}",
            f"  because “{escape_text(body['reason'])}”",
            f"  data {resource['level']}{classes}",
        ]
    if kind == "decision":
        lines = [f"policy {body['policy_revision'][:19]}: {body['effect']}, risk {body['risk']}"]
        lines += [f"  {reason['code']}: {escape_text(reason['text'])}" for reason in body["reasons"]]
        return [
            *lines,
            f"  rules: {', '.join(body['rules']) or 'none'}",
            *(f"  next: {one}" for one in body["next_steps"]),
        ]
    if kind == "vote":
        said = f" “{escape_text(body['justification'])}”" if body["justification"] else ""
        return [f"{escape_text(body['human'], 60)} answered {body['answer']} ({body['assurance']}){said}"]
    if kind == "grant":
        seconds = (int(body["expires_ns"]) - int(body["issued_ns"])) // 10**9
        copy = ", as a copy" if body["copy"] else ""
        return [f"granted as {body['id']} for {seconds} s{copy}"]
    words = ", ".join(f"{key} {escape_text(str(value), 100)}" for key, value in body.items() if key != "state")
    return [f"{body.get('state', kind)}" + (f": {words}" if words else "")]
