"""Rows: ratio, goal and what is printed."""

from __future__ import annotations

import json

import pytest

from bench.row import Goal, Row, table


@pytest.mark.parametrize(("value", "met"), [(11.9, True), (12.0, True), (12.1, False)])
def test_a_ratio_goal_is_an_upper_bound_that_may_be_reached(value: float, met: bool) -> None:
    row = Row("launch", value, "ms", 9, "bubblewrap", 10.0, Goal(1.2))
    assert row.met is met


def test_a_goal_with_a_unit_is_for_the_value_whatever_the_other_has() -> None:
    row = Row("idle.session", 1.5, "MB PSS", 200, "another", 0.5, Goal(2, "MB PSS"))
    assert (row.met, row.ratio) == (True, 3.0)


def test_a_ratio_goal_without_a_counterpart_is_neither_met_nor_missed() -> None:
    assert Row("cli", 40.0, "ms", 9, goal=Goal(0.12)).met is None


def test_the_json_line_has_the_agreed_fields() -> None:
    value = json.loads(json.dumps(Row("cli", 50.0, "ms", 30, "firejail", 40.0, Goal(1.5)).to_json()))
    expected = {"name": "cli", "value": 50.0, "unit": "ms", "against": "firejail", "ratio": 1.25, "goal": "≤ 1.5×"}
    assert {name: value[name] for name in expected} == expected
    assert value["met"] is True
    assert value["n"] == 30


def test_a_row_without_a_goal_says_so_in_json() -> None:
    value = Row("launch.floor", 6.0, "ms", 9).to_json()
    assert (value["goal"], value["met"], value["ratio"]) == (None, None, None)


def test_a_missed_goal_is_seen_at_a_glance_in_the_table() -> None:
    head, rule, line = table([Row("launch", 13.0, "ms", 60, "bwrap", 6.5, Goal(1.2))])
    assert line.split("|")[6].strip() == "NO"
    assert "2.00×" in line
    assert len({len(head), len(rule), len(line)}) == 1
