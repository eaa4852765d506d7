"""Read what the guest of scripts/test-kernel said; print the result, write it down, and fail where a test failed.

`report.py --wanted "root user" [--document FILE] LOG`. Standard library only. What counts as passed is said in one
place, `Half.problem`: a guest that stopped half-way or ran no test has not passed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_CLOSING: Final = re.compile(r"=+ (?P<counts>.*\b(?:passed|failed|errors?|skipped|no tests ran)\b.*) in [\d.]+s\b.* =+")
_LISTED: Final = re.compile(r"(FAILED|ERROR|SKIPPED) (.+)")
_NOTE: Final = re.compile(r"(doctor|walk) (\d+)|end \w+ exit (\d+) after (\d+) s")
_CALLED: Final = {"root": "as root", "user": "as an ordinary user"}

_PREFACE: Final = """\
# The tests under kernel 6.1

The oldest kernel that Deskwarden supports is that of Debian 12. `scripts/test-kernel` runs the integration and attack
tests there once: in a fresh, minimal Debian 12 (systemd, cgroup v2, ext4) under qemu with software emulation, on the
checkout as it is, as root and as an ordinary user. Because emulation is slow it is for releases; CI runs the same tests
on its own kernel. Whatever is skipped is skipped for a layer that `deskwarden doctor` finds missing there: a skip for a
layer that is present is a failure.

This page is written by that script. Do not edit it; run `scripts/test-kernel`.
"""


@dataclass(slots=True)
class Half:
    """One run of the tests, by one account."""

    name: str
    doctor: list[str] = field(default_factory=list)
    doctor_exit: int | None = None
    walk_exit: int | None = None
    counts: str = ""
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    exit_code: int | None = None
    seconds: int = 0

    @property
    def problem(self) -> str:
        """Say in a few words why this half did not pass, or return "" if it did."""
        if self.exit_code is None:
            return "the guest stopped before the tests ended"
        if self.exit_code == 124:
            return "over its time"
        if self.exit_code != 0 or " passed" not in f" {self.counts}":
            return f"pytest ended with {self.exit_code}"
        return "" if self.walk_exit == 0 else "the first walk (run, diff, apply) failed"


@dataclass(frozen=True, slots=True)
class Run:
    """All that the guest said."""

    kernel: str
    halves: tuple[Half, ...]
    left_out: tuple[str, ...] = ()

    def problems(self, wanted: Iterable[str]) -> Iterator[str]:
        """Name each half of *wanted* that did not pass."""
        seen = {half.name: half for half in self.halves}
        for name in wanted:
            problem = seen[name].problem if name in seen else "not started"
            if problem:
                yield f"{_CALLED[name]}: {problem}"


def parse(lines: Iterable[str]) -> Run:
    """Read the guest's log. Nothing in it is trusted to be whole: the machine may have stopped at any line."""
    kernel, halves, left_out = "", list[Half](), list[str]()
    in_summary = False
    for line in (raw.rstrip() for raw in lines):
        if line.startswith("@@ "):
            in_summary = False
            word, _, rest = line[3:].partition(" ")
            if word == "kernel":
                kernel = rest
            elif word == "left-out":
                if rest not in left_out:  # each half says it
                    left_out.append(rest)
            elif word == "begin":
                halves.append(Half(rest))
            elif halves:
                _note(halves[-1], line[3:])
        elif halves and halves[-1].doctor_exit is None:
            halves[-1].doctor.append(line)
        elif halves:
            in_summary = in_summary or "short test summary info" in line
            _read_pytest(halves[-1], line, in_summary)
    return Run(kernel, tuple(halves), tuple(left_out))


def _note(half: Half, text: str) -> None:
    found = _NOTE.fullmatch(text)
    if found is None:
        return
    if found[1] == "doctor":
        half.doctor_exit = int(found[2])
    elif found[1] == "walk":
        half.walk_exit = int(found[2])
    else:
        half.exit_code, half.seconds = int(found[3]), int(found[4])


def _read_pytest(half: Half, line: str, in_summary: bool) -> None:
    closing = _CLOSING.fullmatch(line)
    if closing:
        half.counts = closing["counts"]
    listed = _LISTED.fullmatch(line) if in_summary else None
    if listed and listed[1] == "SKIPPED":
        half.skipped.append(listed[2])
    elif listed:
        half.failed.append(listed[2])


def render(run: Run, wanted: Sequence[str], date: str) -> str:
    """Return the page that tells what was found."""
    problems = list(run.problems(wanted))
    lines = [_PREFACE, "## Last run", "", f"{date}, Linux {run.kernel or 'not reached'}.", ""]
    lines += ["| account | result | tests | time |", "|---|---|---|---|"]
    lines += [
        f"| {_CALLED[half.name]} | {half.problem or 'passed'} | {half.counts or 'none'} | {_minutes(half.seconds)} |"
        for half in run.halves
    ]
    lines += ["", "Not passed: " + "; ".join(problems) + "." if problems else "Both accounts passed.", ""]
    if run.left_out:
        lines += ["Left out:", "", *("- `{}`: {}".format(*one.partition(" ")[::2]) for one in run.left_out), ""]
    for half in run.halves:
        lines += _section(half)
    return "\n".join(lines).rstrip() + "\n"


def _section(half: Half) -> list[str]:
    lines = [f"## In detail, {_CALLED[half.name]}", ""]
    for title, entries in (("Failed", half.failed), ("Skipped", half.skipped)):
        if entries:
            lines += [f"{title}:", "", *(f"- `{entry.replace('`', chr(39))}`" for entry in entries), ""]
    return [*lines, f"`deskwarden doctor` (exit {half.doctor_exit}):", "", *(f"    {one}" for one in half.doctor), ""]


def _minutes(seconds: int) -> str:
    return f"{seconds // 60} min {seconds % 60} s"


def main(argv: Sequence[str]) -> int:
    """Print the result, write the document if one is named, and return 0 only if all that was wanted passed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--wanted", required=True, type=str.split)
    parser.add_argument("--document", type=Path)
    parser.add_argument("log", type=Path)
    words = parser.parse_args(argv)
    run = parse(words.log.read_text(encoding="utf-8", errors="replace").splitlines())
    if words.document:
        date = dt.datetime.now(dt.UTC).date().isoformat()
        words.document.write_text(render(run, words.wanted, date), encoding="utf-8")
    for half in run.halves:
        print(f"{_CALLED[half.name]}: {half.counts or 'no result'} in {_minutes(half.seconds)}")
    problems = list(run.problems(words.wanted))
    for problem in problems:
        print(f"FAILED {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
