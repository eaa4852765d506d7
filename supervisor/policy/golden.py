"""What any Rego engine must answer before it may decide: each a case where an engine or a version of one was wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

# The rule has no value.
NOTHING: Final = object()

INPUT: Final[dict[str, Any]] = {
    "nul": "a\0/../b",
    "escapes": 'a"\\\n',
    "false": False,
    "null": None,
    "list": [3, 1, 3, 2],
    "empty": [],
    "ttl": 1200,
    "deep": {"a": {"b": 1}},
    "unicode": "ä\u202eb",
}

# Body of a rule ``r …`` → its value.
VALUES: Final[tuple[tuple[str, Any], ...]] = (
    # Numbers are numbers, whatever their width.
    ("r := min([900, 1200])", 900),
    ("r := min([9, 10])", 9),
    ("r := min([99999, 100000])", 99999),
    ("r := min({1200, 900, 5})", 5),
    ("r := min([input.ttl, 900, 3600])", 900),
    ("r := max([900, 1200])", 1200),
    ("r := max({9, 10, 100})", 100),
    ("r := sort([900, 1200, 5])", [5, 900, 1200]),
    ("r := sort(input.list)", [1, 2, 3, 3]),
    ("r := 900 < 1200", True),
    ("r := 100 > 20", True),
    ("r := [2] < [10]", True),
    ("r := [1, 2] < [1, 10]", True),
    ("r := 1 == 1.0", True),
    ("r := 9007199254740993 + 1", 9007199254740994),
    ("r := sum([1, 20, 300])", 321),
    ("r := sum([])", 0),
    ("r := min([])", NOTHING),
    ("r := 1200 - 900", 300),
    # Sets are ordered by value and hold nothing twice; types are ordered null < bool < number < text < list.
    ('r := {3, 1, "a", null, true, [1]}', [None, True, 1, 3, "a", [1]]),
    ("r := {x | some x in input.list}", [1, 2, 3]),
    ("r := [x | some x in {300, 20, 1}]", [1, 20, 300]),
    ("r := count({1, 1, 2})", 2),
    ("r := {1, 2} & {2, 3}", [2]),
    ("r := {1, 2} | {2, 3}", [1, 2, 3]),
    ("r := {1, 2} - {2}", [1]),
    ("r := null <= 3600", True),
    ('r := "99999" <= 3600', False),
    ('r := "10" < "9"', True),
    # Text is not cut and not changed.
    ('r := input.nul == "a"', False),
    ("r := count(input.nul)", 7),
    ("r := input.escapes", 'a"\\\n'),
    ("r := input.unicode", "ä\u202eb"),
    ('r := count("äö")', 2),
    ('r := startswith(input.nul, "a/")', False),
    ('r := concat(",", ["b", "a"])', "b,a"),
    ('r := sprintf("%d-%s", [3, "x"])', "3-x"),
    # What is missing is undefined, and undefined is not true.
    ("r if input.missing == 2", NOTHING),
    ("r := input.missing == input.gone", NOTHING),
    ("r if not input.missing", True),
    ('r if not input["false"]', True),
    ('r if not input["null"]', NOTHING),
    ("r := [1, 2][5]", NOTHING),
    ('r := object.get(input, ["deep", "a", "b"], 0)', 1),
    ('r := object.get(input, ["deep", "x", "b"], 0)', 0),
    ('default r := "d"\n\nr := "x" if input.missing.b.c == 1', "d"),
    ('default r := "d"\n\nr := "x" if input.deep.a.b == 1', "x"),
    ("r := 1 if input.missing\n\nelse := 2", 2),
    ("r contains 1 if input.missing", []),
    ("r contains x if some x in input.list", [1, 2, 3]),
    ("r if every x in input.empty { x == 1 }", True),
    ("r if every x in input.list { x < 3 }", NOTHING),
    ("r if some x in input.list", True),
    ("r if some x in input.empty", NOTHING),
    ("r if {\n\tsome i\n\tinput.list[i] == 2\n}", True),
    ('r := "a" in {"a": 1}', False),
    ('r := {"a": 1} == {"a": 1.0}', True),
    ('r := object.union({"a": 1, "b": 1}, {"a": 2})', {"a": 2, "b": 1}),
    # Patterns.
    ('r := glob.match("/a/*", ["/"], "/a/b/c")', False),
    ('r := glob.match("/a/*", ["/"], "/a/b")', True),
    ('r := glob.match("/a/**", ["/"], "/a/b/c")', True),
    ('r := glob.match("*.example.com", [], "a.b.example.com")', False),
    ('r := glob.match("*.example.com", null, "a.b.example.com")', True),
    ('r := regex.match("^a$", "ba")', False),
    ('r := x if x := input.deep with input as {"deep": 2}', 2),
)

# Rules that must raise.
ERRORS: Final[tuple[str, ...]] = (
    "r := no.such.function(1)",
    'r if not no.such.function("x")',
    'r if not io.jwt.verify_hs256("x", "y")',
    "r := 1 / 0",
    "r := 7 % 0",
    'r := to_number("x")',
    'r := json.unmarshal("{")',
    "r := 1\n\nr := 2",
    "r if undeclared",
)


def named_values() -> Iterator[tuple[str, tuple[str, Any]]]:
    """Yield the name of the rule in `module`, and its case."""
    for number, (rule, expected) in enumerate(VALUES):
        yield f"r{number}", (rule, expected)


def module() -> str:
    """Return one module with every rule of `VALUES` under a name of its own."""
    rules = [
        "\n".join(_renamed(line, name) for line in rule.splitlines()) for name, (rule, _expected) in named_values()
    ]
    return "\n\n".join(["package golden", "import rego.v1", *rules]) + "\n"


def _renamed(line: str, name: str) -> str:
    for head in ("r ", "default r "):
        if line.startswith(head):
            return f"{head[:-2]}{name} {line[len(head) :]}"
    return line
