"""Interleaving and the two averages."""

from __future__ import annotations

import pytest

from bench import samples


def test_candidates_take_turns_and_none_always_comes_first() -> None:
    calls: list[str] = []

    def candidate(name: str) -> float:
        calls.append(name)
        return 1.0

    samples.interleave({name: lambda name=name: candidate(name) for name in "abc"}, rounds=3, warm_up=0)
    rounds = [calls[start : start + 3] for start in range(0, 9, 3)]
    assert [sorted(one) for one in rounds] == [["a", "b", "c"]] * 3
    assert [one[0] for one in rounds] == ["a", "b", "c"]


def test_warm_up_rounds_are_run_and_not_counted() -> None:
    values = iter([100.0, 90.0, 1.0, 2.0, 3.0])
    assert samples.interleave({"a": lambda: next(values)}, rounds=3, warm_up=2) == {"a": [1.0, 2.0, 3.0]}


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        samples.interleave({"a": lambda: 1.0}, rounds=0)


def test_one_slow_sample_does_not_move_the_median() -> None:
    assert samples.medians({"a": [10.0, 11.0, 900.0]}) == {"a": 11.0}


def test_the_geometric_mean_weighs_twice_as_slow_and_twice_as_fast_alike() -> None:
    assert samples.geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert samples.geometric_mean([1.0, 1.0, 8.0]) == pytest.approx(2.0)


@pytest.mark.parametrize("ratios", [[], [1.0, 0.0], [-1.0]])
def test_a_mean_of_nothing_or_of_what_is_not_positive_is_refused(ratios: list[float]) -> None:
    with pytest.raises(ValueError, match="expected positive"):
        samples.geometric_mean(ratios)
