"""Imports go down only; the programs that run as root or as the owner are standard library only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The rooms of the house. Modules that lie directly in `supervisor` are floor 0.
FLOORS = {
    "linux": 1,
    "policy": 2,
    "identity": 2,
    "broker": 3,
    "network": 3,
    "sandbox": 3,
    "workspace": 3,
    "telemetry": 3,
    "posture": 3,
    "audit": 3,
    "session": 4,
    "agent": 5,
    "daemon": 5,
    "cli": 5,
}
GROUND = "ground"

# Whole rooms, and the programs whose every import is held to it.
STDLIB_ONLY_ROOMS = ("linux", "workspace")
STDLIB_ONLY_PROGRAMS = (
    "supervisor.errors",
    "supervisor.sandbox.launcher",
    "supervisor.workspace.hand",
    "supervisor.cli.terminal",
)

Graph = Mapping[str, frozenset[str]]


def modules_below(root: Path) -> dict[str, Path]:
    """Return the modules of the package `supervisor` below *root*, by dotted name."""
    found = {}
    for path in sorted((root / "supervisor").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def read_graph(root: Path) -> Graph:
    """Return what each module imports, anywhere in its text: at the top, in a function, for types only."""
    modules = modules_below(root)
    return {name: frozenset(_imports(name, path, modules)) for name, path in modules.items()}


def _imports(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in modules else base
        elif isinstance(node, ast.Call) and _is_import_call(node):
            yield from (argument.value for argument in node.args[:1] if _is_text(argument))


def _is_import_call(node: ast.Call) -> bool:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return called in {"import_module", "__import__"}


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def room_of(module: str) -> str:
    """Return the room a module of ours lies in; modules directly in `supervisor` share the ground floor."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else GROUND


def floor_of(room: str) -> int:
    return 0 if room == GROUND else FLOORS[room]


def wrong_directions(graph: Graph) -> list[str]:
    """Return each import that goes up or sideways between rooms."""
    return [
        f"{module} (floor {floor_of(room_of(module))}) imports {target} (floor {floor_of(room_of(target))})"
        for module, targets in sorted(graph.items())
        for target in sorted(targets)
        if target.split(".")[0] == "supervisor"
        and room_of(target) != room_of(module)
        and floor_of(room_of(target)) >= floor_of(room_of(module))
    ]


def reached(graph: Graph, start: str) -> set[str]:
    """Return the modules of ours that importing *start* executes, packages above them included."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in seen or module not in graph:
            continue
        seen.add(module)
        waiting.extend(graph[module])
        waiting.extend(module.rpartition(".")[0] for _ in range(module.count(".")))
    return seen


def foreign_imports(graph: Graph, modules: set[str]) -> list[str]:
    """Return each import by *modules* of something that is neither ours nor of the standard library."""
    return [
        f"{module} imports {target}"
        for module in sorted(modules)
        for target in sorted(graph[module])
        if target.split(".")[0] not in {"supervisor", *sys.stdlib_module_names}
    ]


@pytest.fixture(scope="module")
def house() -> Graph:
    graph = read_graph(ROOT)
    assert "supervisor.linux.libc" in graph
    return graph


def test_every_room_has_a_floor() -> None:
    rooms = {path.parent.name for path in (ROOT / "supervisor").glob("*/__init__.py")}
    # Generated code, and the upstream server, which is a composition root of its own.
    assert rooms - {"_proto", "controlplane"} <= FLOORS.keys()


def test_imports_go_down_only(house: Graph) -> None:
    assert wrong_directions(house) == []


@pytest.mark.parametrize("room", STDLIB_ONLY_ROOMS)
def test_room_imports_the_standard_library_only(house: Graph, room: str) -> None:
    modules = {module for module in house if room_of(module) == room}
    assert modules
    assert foreign_imports(house, set().union(*(reached(house, module) for module in modules))) == []


@pytest.mark.parametrize("program", STDLIB_ONLY_PROGRAMS)
def test_program_and_all_it_imports_is_standard_library_only(house: Graph, program: str) -> None:
    assert program in house
    assert foreign_imports(house, reached(house, program)) == []


def test_what_runs_in_the_sandbox_brings_nothing_of_the_daemon(house: Graph) -> None:
    modules = {module for module in house if room_of(module) == "agent"}
    ours = {name for module in modules for name in house[module] if name.split(".")[0] == "supervisor"} - modules
    assert {name for name in ours if not name.startswith(("supervisor._proto.", "supervisor.agent"))} == {
        "supervisor.errors"
    }


def small_house(root: Path, files: Mapping[str, str]) -> Graph:
    for name, text in files.items():
        path = root / "supervisor" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for package in path.relative_to(root).parents[:-1]:
            (root / package / "__init__.py").touch()
    return read_graph(root)


@pytest.mark.parametrize(
    ("importer", "text", "caught"),
    [
        ("sandbox/plan.py", "from supervisor.workspace.diff import render", True),
        ("sandbox/plan.py", "from supervisor.workspace import diff", True),
        ("sandbox/plan.py", "import supervisor.workspace.diff", True),
        ("sandbox/plan.py", "from ..workspace import diff", True),
        ("sandbox/plan.py", "from ..workspace.diff import render", True),
        ("sandbox/plan.py", "def late():\n    from supervisor.workspace import diff", True),
        ("sandbox/plan.py", "import importlib\nimportlib.import_module('supervisor.workspace.diff')", True),
        ("linux/mount.py", "from supervisor.sandbox import plan", True),
        ("errors.py", "from supervisor.linux import mount", True),
        ("cli/run.py", "from supervisor.daemon import main", True),
        ("cli/run.py", "from supervisor.workspace import diff", False),
        ("sandbox/plan.py", "from supervisor.linux import mount\nfrom supervisor import errors", False),
        ("sandbox/plan.py", "from . import launcher\nfrom .launcher import main", False),
        ("clock.py", "from supervisor import errors", False),
    ],
)
def test_an_import_in_the_wrong_direction_is_caught(tmp_path: Path, importer: str, text: str, caught: bool) -> None:
    others = ("sandbox/plan.py", "sandbox/launcher.py", "workspace/diff.py", "linux/mount.py", "daemon/main.py")
    graph = small_house(tmp_path, {**dict.fromkeys((*others, "errors.py"), ""), importer: text})
    assert bool(wrong_directions(graph)) == caught


@pytest.mark.parametrize(
    "files",
    [
        {"sandbox/launcher.py": "import yaml"},
        {"sandbox/launcher.py": "def late():\n    import yaml"},
        {"sandbox/launcher.py": "from supervisor.sandbox import plan", "sandbox/plan.py": "from yaml import safe_load"},
        {"sandbox/launcher.py": "import os", "sandbox/__init__.py": "import yaml"},
        {"sandbox/launcher.py": "from supervisor.linux.mount import x", "linux/__init__.py": "import yaml"},
    ],
    ids=["direct", "late", "through-another", "own-package", "other-package"],
)
def test_a_foreign_import_of_the_launcher_is_caught(tmp_path: Path, files: dict[str, str]) -> None:
    graph = small_house(tmp_path, {"linux/mount.py": "", **files})
    assert len(foreign_imports(graph, reached(graph, "supervisor.sandbox.launcher"))) == 1
