"""``deskwarden show``: everything about one session, with what is really enforced in it."""

from __future__ import annotations

import argparse
import json
import time

from supervisor.cli import service
from supervisor.cli.ps import duration
from supervisor.plain_text import escape_text

HELP = "show a session whole, with its enforcement report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("session", metavar="SESSION", nargs="?", default="last")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    message, _body = service.ask({"verb": "show", "session": args.session})
    session = message["session"]
    if args.json:
        print(json.dumps(session, indent=2))
        return 0
    report = session["report"]
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session["started_ns"] / 1e9))
    state = session["state"] + (f", exit {session['exit_code']}" if session["exit_code"] is not None else "")
    lines = [
        ("session", f"{session['id']} ({session['name']})"),
        ("state", state + (f": {session['reason']}" if session["reason"] else "")),
        ("command", escape_text(" ".join(session["argv"]), 300)),
        ("workspace", f"{escape_text(session['workspace'], 200)} ({session['mode']})"),
        ("profile", session["profile"]),
        ("started", f"{started}, {duration(session['lasted_s'])}"),
        ("agent", f"uid {report['agent_uid']}, {report['agent_uid_kind']}; service {report['service']}"),
        ("network", report["network"]),
        ("kill by", report["kill"]),
        ("limits by", report["limits"]),
        ("quota", report.get("quota", "")),
        ("landlock", f"ABI {report['landlock_abi']}"),
        ("not active", ", ".join(report["missing_preferred"]) or "nothing that the profile prefers"),
    ]
    lines += [("finding", escape_text(finding, 300)) for finding in report["findings"]]
    for name, value in lines:
        print(f"{name:<11} {value}")
    return 0
