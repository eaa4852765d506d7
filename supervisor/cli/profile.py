"""`deskwarden profile`: list, show, check, init, schema; works without a daemon."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from supervisor.errors import DeskwardenError, RefusedError, UsageError
from supervisor.sandbox.profile_source import (
    Origin,
    ProfileFile,
    Resolved,
    find_profiles,
    parse_profile,
    read_profile_file,
    resolve,
    schema,
    user_directory,
)
from supervisor.sandbox.seccomp_filter import compile_filter

HELP = "sandbox profiles: what an agent may see and use"

_LIST_ENTRY: Final = re.compile(r"^(?P<key>[a-z_.]+)\[(?P<entry>.*)\]$", re.DOTALL)
_TEMPLATE: Final = """\
# A profile of your own. Check it:  deskwarden profile check {path}
# Use it:                           deskwarden run -p {name} -- COMMAND
# Every field, with its default:    deskwarden profile schema
name: {name}
description: My own rules, on top of coding.
extends: coding

# A list adds to the parent's. A leading - takes an entry of the parent's away, for example "-/opt".
# files:
#   home_read: [.local/share/mytool]    # below your home, read-only; never what holds credentials
#   read: [/srv/reference-data]         # absolute, read-only
#   ask: [Music]                        # exists, but locked

# environment:
#   pass: [MYTOOL_*]
#   set:
#     MYTOOL_MODE: batch

# limits:
#   memory: 8GiB
#   staged: 16GiB
#   wall_time: 8h                       # or none

# asks:                                 # what its agents may ask for: you are shown it once a folder, and say yes
#   capabilities:
#     reports:
#       kind: file
#       selector: ~/reports/**
#       ops: [read]
#       justification: It sums up the reports.

# requires: [cgroup-limits]             # refuse to start without; names as in `deskwarden doctor`
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs."""
    verbs = parser.add_subparsers(dest="profile_verb", required=True, metavar="VERB")
    for name, (text, argument, _) in _VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        if argument:
            verb.add_argument("target", metavar=argument)


def run(args: argparse.Namespace) -> int:
    """Run the chosen sub-verb."""
    _, _, action = _VERBS[args.profile_verb]
    return action(args)


def _list(args: argparse.Namespace) -> int:
    rows = [_row(file) for file in find_profiles(user_directory())]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['origin']:<8}  {row['problem'] or row['description']}")
    return 0


def _row(file: ProfileFile) -> dict[str, str]:
    row = {"name": file.name, "origin": str(file.origin), "path": file.path, "description": "", "problem": ""}
    try:
        row["description"] = str(parse_profile(file).value["description"])
    except DeskwardenError as error:
        row["problem"] = error.message
    return row


def _show(args: argparse.Namespace) -> int:
    resolved = resolve(args.target, find_profiles(user_directory()))
    if args.json:
        print(json.dumps(as_json(resolved), indent=2))
    else:
        print("\n".join(describe(resolved)))
    return 0


def as_json(resolved: Resolved) -> dict[str, object]:
    """Return the effective profile and the origin of each value as a JSON-able value."""
    return {"profile": _plain(dataclasses.asdict(resolved.profile)), "origins": dict(resolved.origins)}


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def describe(resolved: Resolved) -> list[str]:
    """Return the effective profile as lines: field, value, and in brackets the profile that said it."""
    profile = resolved.profile
    lines = [f"{profile.name}: {profile.description}", f"from {' → '.join(profile.lineage)}", ""]
    lists: dict[tuple[str, str], list[str]] = {}
    for key, origin in resolved.origins.items():
        if match := _LIST_ENTRY.match(key):
            lists.setdefault((match["key"], origin), []).append(match["entry"])
    rows = [(key, " ".join(entries), origin) for (key, origin), entries in lists.items()]
    rows += [
        (key, value, resolved.origins[key])
        for key, value in _scalars(resolved)
        if key in resolved.origins and not _LIST_ENTRY.match(key)
    ]
    width = max(len(key) for key, _, _ in rows)
    return lines + [f"{key:<{width}}  {value}  ({origin})" for key, value, origin in sorted(rows)]


def _scalars(resolved: Resolved) -> list[tuple[str, str]]:
    profile, limits = resolved.profile, resolved.profile.limits
    rows = [
        ("workspace.default_mode", profile.workspace.default_mode),
        ("network.mode", profile.network),
        ("seccomp.user_namespaces", str(profile.seccomp.user_namespaces).lower()),
        ("limits.pids", str(limits.pids)),
        ("limits.open_files", str(limits.open_files)),
        ("limits.wall_time", "none" if limits.wall_time_s is None else f"{limits.wall_time_s}s"),
    ]
    sizes = ("memory", "file_size", "staged", "tmp")
    rows += [(f"limits.{name}", _size(getattr(limits, f"{name}_bytes"))) for name in sizes]
    asks = profile.asks
    for one in asks.capabilities:
        place = f"asks.capabilities.{one.id}"
        fields = (("kind", one.kind), ("selector", one.selector), ("label_max", one.label_max))
        rows += [(f"{place}.{name}", value) for name, value in (*fields, ("justification", one.justification))]
    rows.append(("asks.duration_max", f"{asks.duration_max_s}s"))
    rows += [(f"environment.set.{name}", value) for name, value in profile.environment.fixed]
    return rows


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "none"
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def _check(args: argparse.Namespace) -> int:
    file = read_profile_file(args.target, Origin.USER)
    if file.problem:
        raise UsageError(f"{args.target}: {file.problem}", "deskwarden profile check FILE")
    others = [other for other in find_profiles(user_directory()) if not _same_file(other.path, args.target)]
    resolved = resolve(file.name, [*others, file])
    compile_filter(resolved.profile.seccomp, platform.machine())
    if args.json:
        print(json.dumps({"ok": True, **as_json(resolved)}, indent=2))
    else:
        print(f"{args.target}: ok ({' → '.join(resolved.profile.lineage)})")
    return 0


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _init(args: argparse.Namespace) -> int:
    name, directory = args.target, user_directory()
    pattern = schema()["properties"]["name"]["pattern"]
    if not re.fullmatch(pattern, name):
        raise UsageError(f"{name!r} is no profile name: small letters, digits and -, a letter first", "choose another")
    path = directory / f"{name}.yaml"
    if taken := next((file for file in find_profiles(directory) if file.name == name), None):
        raise RefusedError(f"the profile {name} exists already: {taken.path}", f"deskwarden profile show {name}")
    _create(path, _TEMPLATE.format(name=name, path=path))
    print(
        json.dumps({"path": str(path)}) if args.json else f"{path}\nNext: edit it, then deskwarden profile check {path}"
    )
    return 0


def _create(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise RefusedError(f"{path} exists already", f"deskwarden profile check {path}") from error
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}", "check the rights of the directory") from error
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)


def _schema(args: argparse.Namespace) -> int:
    del args
    print(json.dumps(schema(), indent=2))
    return 0


_Action = Callable[[argparse.Namespace], int]
_VERBS: Final[Mapping[str, tuple[str, str, _Action]]] = {
    "list": ("the profiles there are", "", _list),
    "show": ("an effective profile, and where each value comes from", "NAME", _show),
    "check": ("check a file, with line and column", "FILE", _check),
    "init": ("write a commented file to start from", "NAME", _init),
    "schema": ("the JSON Schema of a profile file", "", _schema),
}
