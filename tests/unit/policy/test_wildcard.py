from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.wildcard import matches, matches_visible


@given(st.text("ab*.", max_size=8), st.text("ab.", max_size=8))
def test_a_star_stands_for_any_run_of_characters(pattern: str, name: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None
    assert matches(pattern, name) == expected


@pytest.mark.parametrize(("pattern", "found"), [("*", False), (".*", True), ("*ssh", False), (".ssh", True)])
def test_a_star_does_not_reach_hidden_names(pattern: str, found: bool) -> None:
    assert matches_visible(pattern, ".ssh") == found


def test_a_hostile_pattern_takes_no_time() -> None:
    started = time.perf_counter()
    assert not matches("a*" * 2000 + "b", "a" * 4000)
    assert time.perf_counter() - started < 1
