from __future__ import annotations

import pytest

from supervisor.policy.capability import Level
from supervisor.policy.secret_name import judge_secret


@pytest.mark.parametrize("name", ["prod-db", "db/PROD", "live.key", "a_production_b", "prod2"])
def test_a_production_name_makes_a_production_secret(name: str) -> None:
    level, classes, why = judge_secret(name, ())
    assert (level, classes) == (Level.RESTRICTED, ("production-secret",))
    assert why


@pytest.mark.parametrize("name", ["product-db", "delivery", "test/db", "reproduction"])
def test_a_word_that_only_holds_one_of_those_does_not(name: str) -> None:
    assert judge_secret(name, ()) == (Level.CONFIDENTIAL, (), ())


def test_what_its_owner_says_only_adds() -> None:
    level, classes, _why = judge_secret("prod-db", ("phi",))
    assert (level, classes) == (Level.RESTRICTED, ("phi", "production-secret"))
    assert judge_secret("db", ("production-secret",))[0] is Level.RESTRICTED
