"""The one rule for overlapping scopes, as a table: deny wins, then the most specific."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis.strategies import lists, sampled_from, tuples

from supervisor.policy.capability import Capability, Kind
from supervisor.policy.scope import Scope, resolve, specificity
from supervisor.policy.selector import capability_covers


def file(selector: str, *operations: str) -> Capability:
    return Capability(Kind.FILE, selector, operations or ("read",))


# Scopes, as +allow or -deny with their operations; what is wanted; whether it is allowed; the scopes that govern.
TABLE = [
    ("nothing", [], "/w/a r", False, []),
    ("one allow", ["+/w/** r"], "/w/a r", True, ["+/w/** r"]),
    ("deny inside an allow", ["+/w/** r", "-/w/.env r"], "/w/.env r", False, ["-/w/.env r"]),
    ("a deny elsewhere", ["+/w/** r", "-/w/.env r"], "/w/a r", True, ["+/w/** r"]),
    ("a specific allow does not beat a deny", ["-/w/** r", "+/w/a r"], "/w/a r", False, ["-/w/** r"]),
    ("a deny of a part denies the whole", ["+/w/** r", "-/w/a/x r"], "/w/a/** r", False, ["-/w/a/x r"]),
    ("a deny of another operation", ["+/w/** rw", "-/w/** w"], "/w/a r", True, ["+/w/** rw"]),
    ("a deny of one operation of two", ["+/w/** rw", "-/w/** w"], "/w/a rw", False, ["-/w/** w"]),
    ("the nearer directory", ["+/w/** r", "+/w/a/** r", "+/** r"], "/w/a/b r", True, ["+/w/a/** r"]),
    ("a name before a star", ["+/w/a/* r", "+/w/a/b r"], "/w/a/b r", True, ["+/w/a/b r"]),
    ("a star before a tree", ["+/w/a/** r", "+/w/a/* r"], "/w/a/b r", True, ["+/w/a/* r"]),
    ("more fixed letters", ["+/w/*.csv r", "+/w/q*.csv r"], "/w/q1.csv r", True, ["+/w/q*.csv r"]),
    ("fewer stars", ["+/w/*a*b r", "+/w/*ab r"], "/w/xab r", True, ["+/w/*ab r"]),
    ("fewer operations", ["+/w/a rw", "+/w/a r"], "/w/a r", True, ["+/w/a r"]),
    ("equals govern together", ["+/w/a* r", "+/w/*b r"], "/w/ab r", True, ["+/w/a* r", "+/w/*b r"]),
    ("two halves are no whole", ["+/w/a/** r", "+/w/b/** r"], "/w/*/x r", False, []),
    ("read of one and write of another", ["+/w/a r", "+/w/a w"], "/w/a rw", False, []),
    ("the most specific deny tells why", ["-/** r", "-/w/a r"], "/w/a r", False, ["-/w/a r"]),
]


def of(word: str) -> Scope:
    selector, letters = word[1:].split()
    return Scope(capability(selector, letters), word[0] == "+", word)


def capability(selector: str, letters: str) -> Capability:
    return file(selector, *({"r": "read", "w": "write"}[letter] for letter in letters))


@pytest.mark.parametrize(("scopes", "wanted", "allowed", "by"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_rule(scopes: list[str], wanted: str, allowed: bool, by: list[str]) -> None:
    for order in itertools.permutations(scopes):
        ruling = resolve(map(of, order), capability(*wanted.split()))
        assert ruling.allowed is allowed
        assert {scope.name for scope in ruling.by} == set(by)


segments = sampled_from(["a", "b", "ab", ".a", "*", "a*", "*b", "a*b", "*a*"])
capabilities = tuples(
    lists(segments, min_size=1, max_size=2), sampled_from(["", "/**"]), sampled_from([("read",), ("read", "write")])
).map(lambda parts: file("/" + "/".join(parts[0]) + parts[1], *parts[2]))


@given(lists(capabilities, min_size=2, max_size=12, unique=True))
def test_a_real_part_is_always_more_specific(drawn: list[Capability]) -> None:
    for wide, narrow in itertools.permutations(drawn, 2):
        assert not capability_covers(wide, narrow) or specificity(narrow) > specificity(wide)


@given(lists(tuples(capabilities, sampled_from([True, False])), max_size=6), capabilities)
def test_a_further_deny_never_allows_and_a_further_allow_never_lifts_a_deny(
    drawn: list[tuple[Capability, bool]], wanted: Capability
) -> None:
    scopes = [Scope(one, allow) for one, allow in drawn]
    before = resolve(scopes, wanted)
    if not before.allowed:
        assert not resolve([*scopes, Scope(wanted, allow=False)], wanted).allowed
    if not before.allowed and before.by:
        assert not resolve([*scopes, Scope(wanted)], wanted).allowed
