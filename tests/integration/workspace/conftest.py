"""Fixtures: `bench` is one workspace per kind, `make_bench` makes more of the same kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.integration.workspace.bench import KINDS, Bench

MakeBench = Callable[..., Bench]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name.startswith("system") and os.geteuid() != 0:
        pytest.skip("a system-mode overlay is mounted by root; this run is an ordinary user's")
    return name


@pytest.fixture
def make_bench(kind: str) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(setup: str = "", lower_size: str = "", kind: str = kind) -> Bench:
        made.append(Bench(kind, setup, lower_size))
        return made[-1]

    yield make
    for one in made:
        one.close()
