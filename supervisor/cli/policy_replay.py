"""``deskwarden policy replay``: which recorded decisions of yours another bundle would make differently."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from typing import Any, Final
from xml.etree import ElementTree as ET

from supervisor.cli import service
from supervisor.errors import UsageError
from supervisor.plain_text import escape_text
from supervisor.policy.bundle_lint import check_bundle
from supervisor.policy.bundle_source import default_directory, read_bundle
from supervisor.policy.regorus_engine import RegoError, RegorusEngine
from supervisor.policy.replay import Replayed, replay

_UNITS: Final = {"m": 60, "h": 3600, "d": 86400}
MOST_DAYS: Final = 366


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    verb.add_argument("--since", default="30d", metavar="TIME", help="how far back: 12h, 30d")
    verb.add_argument("--junit", metavar="FILE", help="write the results as JUnit XML too; a change is a failure")


def run(args: argparse.Namespace) -> int:
    """Print what would change; 1 when something would.

    Raises:
        UsageError: No such time, or a bundle that may not decide.
    """
    since_s = seconds_of(args.since)
    bundle = read_bundle(args.directory or default_directory())
    check_bundle(bundle)
    engine = RegorusEngine(bundle.modules, bundle.document)

    def evaluate(document: bytes) -> bytes:
        try:
            return engine.evaluate(document)
        except RegoError as error:
            raise ValueError(str(error)) from error

    done = list(replay(_recorded(since_s), evaluate))
    changed = [one for one in done if one.changed or (one.problem and one.new)]
    left_out = [one for one in done if one.problem and not one.new]
    if args.junit:
        _write_junit(args.junit, done)
    if args.json:
        rows = [{"request": one.request, "at_ns": str(one.at_ns), "old": one.old, "new": one.new} for one in changed]
        value = {"revision": bundle.revision, "decisions": len(done), "left_out": len(left_out), "changes": rows}
        print(json.dumps(value, indent=2))
        return 1 if changed else 0
    for one in changed:
        print(f"{one.request}\n  - {escape_text(one.old, 300)}\n  + {escape_text(one.new or one.problem, 300)}")
    print(f"{len(changed)} of {len(done)} decisions change" + (f", {len(left_out)} left out" if left_out else ""))
    return 1 if changed else 0


def seconds_of(text: str) -> int:
    """Return the seconds of ``30d``.

    Raises:
        UsageError: It is no such time.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= MOST_DAYS * 86400:
        raise UsageError(
            f"--since {text[:40]!a}: want a time such as 12h or 30d", "deskwarden policy replay --since 30d"
        )
    return seconds


def _recorded(since_s: int) -> Iterator[dict[str, Any]]:
    for message in service.stream({"verb": "decisions", "since_s": since_s}):
        if message["event"] == "result":
            return
        yield from message["entries"]


def _write_junit(path: str, done: list[Replayed]) -> None:
    failed = [one for one in done if one.changed or (one.problem and one.new)]
    suite = ET.Element("testsuite", name="deskwarden policy replay", tests=str(len(done)), failures=str(len(failed)))
    for one in done:
        case = ET.SubElement(suite, "testcase", classname="replay", name=one.request)
        if one in failed:
            ET.SubElement(case, "failure", message=escape_text(f"{one.old} -> {one.new}", 400))
        elif one.problem:
            ET.SubElement(case, "skipped", message=escape_text(one.problem, 400))
    try:
        ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "name a file that can be written") from error
