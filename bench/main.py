"""``scripts/bench [NAME…|all] [--json]``: run benchmarks, print a row a figure."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from types import ModuleType
from typing import Final

from bench.options import Options
from bench.process import FailedError
from bench.row import Row, table
from bench.tools import MissingError

NAMES: Final = ("launch", "cli", "work", "idle", "decide", "ask")


def main(argv: list[str] | None = None) -> int:
    """Run what was named; returns 0 when every figure was had, met or not, 1 otherwise, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} or all")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--rounds", type=int, metavar="N", help="samples instead of each benchmark's own number")
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in (*NAMES, "all")]
    if unknown:
        _say(f"bench: unknown: {', '.join(unknown)}; known: {', '.join(NAMES)}, all")
        return 2
    if args.list or not args.names:
        for name in NAMES:
            _print(f"{name:<8} {_module(name).HELP}")
        return 0
    names = NAMES if "all" in args.names else tuple(dict.fromkeys(args.names))
    if not args.json:
        _print(_machine())
    failed = [name for name in names if not _run(name, Options(args.rounds), as_json=args.json)]
    return 1 if failed else 0


def _run(name: str, options: Options, *, as_json: bool) -> bool:
    rows: list[Row] = []
    try:
        for row in _module(name).measure(options):
            rows.append(row)
            if as_json:
                _print(json.dumps(row.to_json()))
    except (MissingError, FailedError) as error:
        _say(f"bench {name}: {error}")
        return False
    finally:
        if rows and not as_json:
            _print("\n" + "\n".join(table(rows)))
    return True


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"bench.{name}")


def _machine() -> str:
    with open("/proc/meminfo", encoding="ascii") as file:
        total_kb = int(file.readline().split()[1])
    who = "root, system mode" if os.geteuid() == 0 else "an ordinary user, rootless"
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {round(total_kb / 1048576)} GB, Linux {'.'.join(platform.release().split('.')[:2])}, "
        f"Python {platform.python_version()}, as {who}, load {load:.1f}; medians of interleaved samples"
    )


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
