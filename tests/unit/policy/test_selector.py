"""Selectors: one spelling, and covering and overlapping as a brute-force matcher finds them."""

from __future__ import annotations

import functools
import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis.strategies import lists, sampled_from, tuples

from supervisor.errors import UsageError
from supervisor.policy.capability import Capability, Kind
from supervisor.policy.selector import (
    capabilities_overlap,
    capability_covers,
    covers,
    matches,
    overlaps,
    parse_selector,
)

LETTERS = "ab.c"  # c stands in no pattern: the letter that only a star can take


def words(letters: str, longest: int) -> list[str]:
    every = ("".join(word) for size in range(1, longest + 1) for word in itertools.product(letters, repeat=size))
    return [word for word in every if word not in (".", "..") and "**" not in word]


NAMES = words(LETTERS, 4)
SHORT_NAMES = words(LETTERS, 2)
# Deep enough to tell a tree from its root; names long enough for two patterns of two letters.
PATHS = [
    *(f"/{one}" for one in SHORT_NAMES),
    *(f"/{one}/{two}" for one, two in itertools.product(SHORT_NAMES, repeat=2)),
    *(f"/{one}/{two}/c" for one, two in itertools.product(SHORT_NAMES, repeat=2)),
]


def slow_match(pattern: str, name: str) -> bool:
    """The definition, letter by letter: a star takes any run."""
    if not pattern:
        return not name
    if pattern[0] != "*":
        return bool(name) and pattern[0] == name[0] and slow_match(pattern[1:], name[1:])
    return any(slow_match(pattern[1:], name[cut:]) for cut in range(len(name) + 1))


@functools.cache
def matched_names(pattern: str) -> frozenset[str]:
    """The names that fit, a leading dot never by a star."""
    fits = {name for name in NAMES if slow_match(pattern, name)}
    return frozenset(name for name in fits if not (pattern[0] == "*" and name[0] == "."))


@functools.cache
def matched_paths(selector: str) -> frozenset[str]:
    patterns = selector[1:].split("/")
    tree = patterns[-1] == "**"
    patterns = patterns[:-1] if tree else patterns
    return frozenset(
        path
        for path in PATHS
        if (len(names := path[1:].split("/")) == len(patterns) or (tree and len(names) > len(patterns)))
        and all(name in matched_names(pattern) for pattern, name in zip(patterns, names, strict=False))
    )


segments = sampled_from(words("ab.*", 2))
selectors = tuples(lists(segments, min_size=1, max_size=2), sampled_from(["", "/**"])).map(
    lambda parts: "/" + "/".join(parts[0]) + parts[1]
)


def test_on_every_pair_of_patterns_covering_and_overlapping_are_what_trying_every_name_says() -> None:
    patterns = words("ab.*", 3)
    for one, other in itertools.product(patterns, repeat=2):
        ones, others = matched_names(one), matched_names(other)
        assert covers(f"/{one}", f"/{other}") == (others <= ones), (one, other)
        assert overlaps(f"/{one}", f"/{other}") == (not ones.isdisjoint(others)), (one, other)


def test_on_every_pair_of_small_paths_and_trees_too() -> None:
    names = ["a", "b", "*", ".a", "a*"]
    paths = [f"/{one}" for one in names] + [f"/{one}/{two}" for one, two in itertools.product(names, repeat=2)]
    for one, other in itertools.product([*paths, *(f"{path}/**" for path in paths)], repeat=2):
        ones, others = matched_paths(one), matched_paths(other)
        assert covers(one, other) == (others <= ones), (one, other)
        assert overlaps(one, other) == (not ones.isdisjoint(others)), (one, other)


@given(selectors, sampled_from(PATHS))
def test_matching_is_what_the_definition_says(selector: str, path: str) -> None:
    assert matches(selector, path) == (path in matched_paths(selector))


@given(selectors, selectors)
def test_covering_is_what_trying_every_path_says(wide: str, narrow: str) -> None:
    assert covers(wide, narrow) == (matched_paths(narrow) <= matched_paths(wide))


@given(selectors, selectors)
def test_overlapping_is_what_trying_every_path_says(one: str, other: str) -> None:
    assert overlaps(one, other) == (not matched_paths(one).isdisjoint(matched_paths(other)))


@pytest.mark.parametrize(
    ("selector", "path", "expected"),
    [
        ("/a/*", "/a/x", True),
        ("/a/*", "/a/.ssh", False),
        ("/a/*", "/a/x/y", False),
        ("/a/*", "/a", False),
        ("/a/.*", "/a/.ssh", True),
        ("/a/**", "/a", True),
        ("/a/**", "/a/.ssh/id", True),
        ("/a/**", "/ab", False),
        ("/**", "/", True),
        ("/**", "/.x", True),
        ("/a/*.xlsx", "/a/.xlsx", False),
        ("/a/q*-*.csv", "/a/q1-2.csv", True),
        ("/a/*b*b", "/a/b", False),
        ("/a/*b*b", "/a/bb", True),
        ("/a/a*a", "/a/a", False),
        ("/a/[id].tsx", "/a/[id].tsx", True),
        ("/a/[id].tsx", "/a/i.tsx", False),
        ("/a/?", "/a/b", False),
        ("/a/B", "/a/b", False),
        ("/a/x*", "/a/x*y", True),
        ("/a/*", "/a/$HOME", True),
    ],
)
def test_matching_table(selector: str, path: str, expected: bool) -> None:
    assert matches(selector, path) is expected


HOSTILE_PATHS = {
    "empty": "",
    "NUL": "/a\0/b",
    "newline": "/a\n",
    "escape": "/a\x1b[2J",
    "C1 control": "/a\x85b",
    "bidi override": "/a/\u202egpj.sh",
    "bidi isolate": "/a/\u2066x",
    "zero width": "/a/\u200bx",
    "byte order mark": "/a/\ufeffx",
    "line separator": "/a/\u2028x",
    "private use": "/a/\ue000",
    "unassigned": "/a/\u0378",
    "surrogate": "/a/\udcff",
    "decomposed": "/a/cafe\u0301",
    "singleton twin": "/a/\u212b",
    "parent": "/a/../etc/passwd",
    "parent at the end": "/a/..",
    "here": "/a/./b",
    "double slash": "/a//b",
    "leading double slash": "//a",
    "trailing slash": "/a/",
    "relative": "a/b",
    "long name": "/" + "a" * 256,
    "long": "/a" * 2048,
}
HOSTILE_SELECTORS = HOSTILE_PATHS | {
    "root": "/",
    "home": "~/x",
    "other home": "~root/x",
    "home inside": "/a/~/x",
    "variable": "/home/$USER/x",
    "braced variable": "/a/${HOME}",
    "stars inside": "/a/**/b",
    "stars with letters": "/a/x**",
    "three stars": "/a/***",
    "tree and slash": "/a/**/",
    "parent below a tree": "/a/../**",
}


@pytest.mark.parametrize("selector", HOSTILE_SELECTORS.values(), ids=HOSTILE_SELECTORS)
@pytest.mark.parametrize("kind", [Kind.FILE, Kind.EXEC])
def test_a_selector_in_no_canonical_spelling_is_refused(kind: Kind, selector: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_selector(kind, selector)
    assert refused.value.next_step
    assert refused.value.message.isascii()
    assert len(refused.value.message) < 1000


@pytest.mark.parametrize("path", HOSTILE_PATHS.values(), ids=HOSTILE_PATHS)
def test_a_path_in_no_canonical_spelling_is_an_error_and_no_answer(path: str) -> None:
    with pytest.raises(UsageError):
        matches("/**", path)


def test_twins_of_a_name_are_never_two_selectors() -> None:
    composed = "/a/caf\u00e9"
    assert matches(composed, composed)
    for form in ("NFD", "NFKD"):
        with pytest.raises(UsageError, match="NFC"):
            parse_selector(Kind.FILE, unicodedata.normalize(form, composed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "selector",
    [
        "example.com",
        "example.com:0",
        "example.com:65536",
        "example.com:0443",
        "example.com:https",
        "example.com:*",
        "Example.com:443",
        "example.com.:443",
        "-a.example.com:443",
        "ex_ample.com:443",
        "exämple.com:443",
        "evil.com\0.example.com:443",
        "user@example.com:443",
        "example.com%00:443",
        "*:443",
        "*.com:443",
        "*.*.example.com:443",
        "a.*.com:443",
        "a*.example.com:443",
        "0x7f.1:80",
        "127.1:80",
        "2130706433:80",
        "0177.0.0.1:80",
        "0xA9FEA9FE:80",
        "0xa9fea9fe:80",
        "1.2.3.4.5:80",
        "*.2.3.4:80",
        "::1:80",
        "[::ffff:169.254.169.254]:80",
        "[::ffff:a9fe:a9fe]:80",
        "[::169.254.169.254]:80",
        "[::a9fe:a9fe]:80",
        "[::]:80",
        "0.0.0.0:80",
        "[fe80::1%eth0]:80",
        "[0:0:0:0:0:0:0:1]:80",
        "[2001:DB8::1]:80",
        "[example.com]:80",
        "[]:80",
        ":80",
        "http://example.com:80",
        "a" * 64 + ".com:1",
        "a." * 127 + "com:1",
    ],
)
def test_a_host_in_another_spelling_is_refused(selector: str) -> None:
    with pytest.raises(UsageError):
        parse_selector(Kind.NETWORK, selector)


@pytest.mark.parametrize(
    ("kind", "wide", "narrow", "expected"),
    [
        (Kind.NETWORK, "*.example.com:443", "api.example.com:443", True),
        (Kind.NETWORK, "*.example.com:443", "a.b.example.com:443", False),
        (Kind.NETWORK, "*.example.com:443", "example.com:443", False),
        (Kind.NETWORK, "*.example.com:443", "*.example.com:443", True),
        (Kind.NETWORK, "*.example.com:443", "api.example.com:80", False),
        (Kind.NETWORK, "*.example.com:443", "api.notexample.com:443", False),
        (Kind.NETWORK, "api.example.com:443", "*.example.com:443", False),
        (Kind.NETWORK, "[2001:db8::1]:443", "[2001:db8::1]:443", True),
        (Kind.NETWORK, "[::1]:80", "[::1]:80", True),
        (Kind.NETWORK, "10.0.0.1:5432", "10.0.0.2:5432", False),
        (Kind.NETWORK, "localhost:5432", "localhost:5432", True),
        (Kind.SECRET, "prod/*", "prod/db", True),
        (Kind.SECRET, "prod/*", "prod/db/password", False),
        (Kind.SECRET, "prod/**", "prod/db/password", True),
        (Kind.SECRET, "prod/db", "prod/*", False),
        (Kind.AGENT, "sheet", "sheet", True),
        (Kind.AGENT, "sheet", "sheets", False),
        (Kind.AGENT, "sheet", "spiffe://local/agent/user-owned/sheet", False),
        (Kind.EXEC, "/usr/bin/*", "/usr/bin/git", True),
    ],
)
def test_covering_table(kind: Kind, wide: str, narrow: str, expected: bool) -> None:
    assert covers(wide, narrow, kind) is expected


@pytest.mark.parametrize(
    ("kind", "selector"),
    [
        (Kind.SECRET, ""),
        (Kind.SECRET, "/prod"),
        (Kind.SECRET, "prod/"),
        (Kind.SECRET, "../prod"),
        (Kind.SECRET, "prod//db"),
        (Kind.SECRET, "**"),
        (Kind.SECRET, "a b"),
        (Kind.SECRET, "a\n"),
        (Kind.AGENT, ""),
        (Kind.AGENT, "*"),
        (Kind.AGENT, "Sheet"),
        (Kind.AGENT, "sheet\n"),
        (Kind.AGENT, "spiffe://local/agent/root/sheet"),
        (Kind.AGENT, "spiffe://local/agent/user-owned/*"),
    ],
)
def test_a_name_in_another_spelling_is_refused(kind: Kind, selector: str) -> None:
    with pytest.raises(UsageError):
        parse_selector(kind, selector)


def test_a_capability_covers_only_its_own_kind_operations_and_names() -> None:
    wide = Capability(Kind.FILE, "/a/**", ("read",))
    assert capability_covers(wide, Capability(Kind.FILE, "/a/b", ("read",)))
    assert not capability_covers(wide, Capability(Kind.FILE, "/a/b", ("read", "write")))
    assert not capability_covers(wide, Capability(Kind.EXEC, "/a/b", ("run",)))
    assert not capability_covers(wide, Capability(Kind.EXEC, "/a/b", ("read",)))
    assert not capability_covers(wide, Capability(Kind.FILE, "/b", ("read",)))


def test_capabilities_overlap_only_with_an_operation_in_both() -> None:
    read, write = (Capability(Kind.FILE, "/a/**", (operation,)) for operation in ("read", "write"))
    assert not capabilities_overlap(read, write)
    assert capabilities_overlap(read, Capability(Kind.FILE, "/*/x", ("read", "write")))


def test_only_what_can_match_more_than_one_name_is_a_pattern() -> None:
    assert parse_selector(Kind.FILE, "/a/**").is_pattern
    assert parse_selector(Kind.NETWORK, "*.example.com:443").is_pattern
    assert not parse_selector(Kind.FILE, "/a/b?").is_pattern
