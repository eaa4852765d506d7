"""`deskwarden policy`: check, test, sign, diff, without a daemon but with its engine; replay, of what it recorded."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from supervisor.cli import policy_replay, policy_sign
from supervisor.errors import UsageError
from supervisor.plain_text import escape_text
from supervisor.policy.bundle_lint import check_bundle, rule_names
from supervisor.policy.bundle_source import MATRIX_FILE, Bundle, default_directory, read_bundle
from supervisor.policy.matrix import Scenario, read_matrix, run_matrix
from supervisor.policy.regorus_engine import RegoError, RegorusEngine, syntax_trees
from supervisor.policy.role import parse_roles

HELP = "what is allowed, asked and denied: check it, test it, compare two"


@dataclass(frozen=True, slots=True)
class Result:
    """One test or scenario; *problem* is empty when it passed."""

    group: str
    name: str
    problem: str
    took_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs."""
    verbs = parser.add_subparsers(dest="policy_verb", required=True, metavar="VERB")
    for name, (text, arguments, _) in _VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        for argument in arguments:
            if argument == "DIR" and name == "sign":
                verb.add_argument("directory", metavar="DIR", help="a bundle of yours")
            elif argument == "DIR":
                verb.add_argument("directory", metavar="DIR", nargs="?", help="a bundle; without it, the shipped one")
            else:
                verb.add_argument(argument.lower(), metavar=argument)
        if name == "sign":
            policy_sign.add_arguments(verb)
        if name == "replay":
            policy_replay.add_arguments(verb)
        if name in ("test", "diff"):
            verb.add_argument("--matrix", metavar="FILE", help=f"scenarios; without it, {MATRIX_FILE} of the bundle")
        if name == "test":
            verb.add_argument("--junit", metavar="FILE", help="write the results as JUnit XML too")


def run(args: argparse.Namespace) -> int:
    """Run the chosen sub-verb."""
    return _VERBS[args.policy_verb][2](args)


def _check(args: argparse.Namespace) -> int:
    bundle = _checked(args.directory)
    roles = parse_roles(bundle.roles)
    value = {
        "ok": True,
        "path": bundle.path,
        "revision": bundle.revision,
        "modules": sorted(bundle.modules),
        "roles": len(roles.templates) + len(roles.bindings),
    }
    if args.json:
        print(json.dumps(value, indent=2))
    else:
        print(f"{escape_text(bundle.path)}: ok, {len(bundle.modules)} modules, {value['roles']} roles")
        print(f"revision {bundle.revision}")
    return 0


def _test(args: argparse.Namespace) -> int:
    bundle = _checked(args.directory)
    results = [*_rego_tests(bundle), *_scenarios(bundle, _matrix(bundle, args.matrix))]
    if not results:
        raise UsageError(
            f"{bundle.path}: nothing to test: no test_ rule in *_test.rego and no {MATRIX_FILE}",
            "deskwarden policy test --matrix FILE",
        )
    failed = [result for result in results if result.problem]
    if args.junit:
        _write_junit(args.junit, results)
    if args.json:
        rows = [{"group": r.group, "name": r.name, "problem": r.problem} for r in failed]
        print(json.dumps({"revision": bundle.revision, "tests": len(results), "failed": rows}, indent=2))
    else:
        for result in failed:
            print(f"FAILED {result.group}: {escape_text(result.name)}: {escape_text(result.problem, 400)}")
        print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def _diff(args: argparse.Namespace) -> int:
    old, new = _checked(args.old), _checked(args.new)
    scenarios = _matrix(new, args.matrix) or _matrix(old, args.matrix)
    if not scenarios:
        raise UsageError(f"neither bundle has a {MATRIX_FILE}", "deskwarden policy diff OLD NEW --matrix FILE")
    before, after = ([done.seen for done in run_matrix(_engine(bundle), scenarios)] for bundle in (old, new))
    changes = [
        {"scenario": scenario.name, "old": was, "new": now}
        for scenario, was, now in zip(scenarios, before, after, strict=True)
        if was != now
    ]
    if args.json:
        value = {"old": old.revision, "new": new.revision, "scenarios": len(scenarios), "changes": changes}
        print(json.dumps(value, indent=2))
        return 0
    for change in changes:
        print(f"{escape_text(change['scenario'])}\n  - {change['old']}\n  + {change['new']}")
    print(f"{len(changes)} of {len(scenarios)} scenarios change")
    return 0


def _checked(directory: str | None) -> Bundle:
    bundle = read_bundle(directory or default_directory())
    check_bundle(bundle)
    parse_roles(bundle.roles, f"{bundle.path}/roles.json")
    return bundle


def _engine(bundle: Bundle) -> RegorusEngine:
    return RegorusEngine(bundle.modules, bundle.document)


def _matrix(bundle: Bundle, file: str | None) -> tuple[Scenario, ...]:
    path = Path(file) if file else Path(bundle.path) / MATRIX_FILE
    if not file and not path.exists():
        return ()
    try:
        return read_matrix(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "deskwarden policy test --help") from error


def _scenarios(bundle: Bundle, scenarios: tuple[Scenario, ...]) -> Iterator[Result]:
    begun = time.perf_counter()
    for done in run_matrix(_engine(bundle), scenarios):
        now = time.perf_counter()
        yield Result("matrix", done.scenario.name, done.problem, now - begun)
        begun = now


def _rego_tests(bundle: Bundle) -> Iterator[Result]:
    """Evaluate every rule named test_…; one that is not true has failed."""
    if not bundle.tests:
        return
    modules = {**bundle.modules, **bundle.tests}
    engine = RegorusEngine(modules, bundle.document)
    trees = syntax_trees(modules)
    for file in sorted(bundle.tests):
        for name in _test_names(trees[file]):
            begun = time.perf_counter()
            problem = ""
            try:
                answer = engine.evaluate(b"{}", f"data.{name}")
                problem = "" if answer == b"true" else f"it is {answer.decode()[:100]}, want true"
            except RegoError as error:
                problem = str(error)
            yield Result(file, name, problem, time.perf_counter() - begun)


def _test_names(tree: Mapping[str, dict[str, object]]) -> Iterator[str]:
    """Yield the full names of the tests of a module, each once."""
    package, names = rule_names(tree)
    yield from (f"{package}.{name}" for name in dict.fromkeys(names) if name.startswith("test_"))


def _write_junit(path: str, results: list[Result]) -> None:
    failed = sum(bool(result.problem) for result in results)
    suite = ET.Element("testsuite", name="deskwarden policy", tests=str(len(results)), failures=str(failed), errors="0")
    for result in results:
        case = ET.SubElement(
            suite, "testcase", classname=result.group, name=escape_text(result.name), time=f"{result.took_s:.6f}"
        )
        if result.problem:
            ET.SubElement(case, "failure", message=escape_text(result.problem, 400))
    try:
        ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "name a file that can be written") from error


_Action = Callable[[argparse.Namespace], int]
_VERBS: Final[Mapping[str, tuple[str, tuple[str, ...], _Action]]] = {
    "check": ("whether a bundle may decide: syntax, forbidden calls, roles", ("DIR",), _check),
    "test": ("run a bundle's tests and its scenario matrix; 1 when one fails", ("DIR",), _test),
    "replay": ("which recorded decisions a bundle would make differently; 1 when one", ("DIR",), policy_replay.run),
    "sign": ("say with a key that these files may decide, for at most 30 days", ("DIR",), policy_sign.run),
    "diff": ("which scenarios two bundles decide differently", ("OLD", "NEW"), _diff),
}
