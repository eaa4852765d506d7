"""The watch goes on whatever one look brings. The service is a fake: no real hand gives a wrong answer on demand."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from supervisor.session import quota
from supervisor.session.session import Session


class _Service:
    """`quota.Watched`: answers what the test says, or raises it; a kill takes a session off the living."""

    def __init__(self, answers: dict[str, int | Exception]) -> None:
        self.answers = answers
        self.reasons: dict[str, str] = {}
        limits = SimpleNamespace(staged_bytes=32 << 20)
        self._living = {
            key: SimpleNamespace(record=SimpleNamespace(id=key, owner_uid=1000), profile=SimpleNamespace(limits=limits))
            for key in answers
        }

    def living(self) -> list[Session]:
        return cast("list[Any]", list(self._living.values()))

    async def staged_bytes(self, session: Session) -> int:
        answer = self.answers[session.record.id]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def kill(self, session: Session, reason: str) -> None:
        self.reasons[session.record.id] = reason
        del self._living[session.record.id]


def test_a_wrong_answer_is_a_miss_and_the_others_are_still_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "DEADLINE_S", 0.0)
    service = _Service({"wrong": KeyError("ok"), "large": 33 << 20, "small": 1 << 20})

    async def look() -> None:
        watch = quota.Quota(service)
        for free in (100 << 20, 60 << 20, *[60 << 20] * 10):
            watch.look_around(free)
            await asyncio.sleep(0.001)

    asyncio.run(look())
    assert service.reasons == {
        "wrong": "its staged files could not be measured 3 times in a row: 'ok'",
        "large": "its staged files reached 33 MiB; the profile allows 32 MiB",
    }
