"""Requests from a client become values, strictly; a wrong field is an error with a name, never a guess."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.daemon.verbs import parse_run
from supervisor.errors import UsageError


def _request(**fields: Any) -> dict[str, Any]:
    return {"argv": ["sh"], "workspace": "/w", "environment": {"A": "b"}} | fields


def test_a_plain_request_is_a_value() -> None:
    request = parse_run(_request(reads=["/a/../b"], umask=0o7777))
    assert request.argv == ("sh",)
    assert request.reads == ("/b",)
    assert request.umask == 0o777
    assert request.profile == "coding"


@pytest.mark.parametrize(
    "fields",
    [
        {"argv": []},
        {"argv": "sh"},
        {"argv": ["sh", 5]},
        {"argv": ["a\0b"]},
        {"argv": [""]},
        {"workspace": "relative"},
        {"workspace": ""},
        {"environment": ["A=b"]},
        {"reads": ["relative"]},
        {"reads": "/a"},
        {"overrides": []},
    ],
)
def test_a_wrong_field_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        parse_run(_request(**fields))
