"""The judge tells policy who the owner is by the name under which the owner's votes count."""

from __future__ import annotations

import asyncio
import json

from supervisor.broker.doors import Circumstances
from supervisor.broker.people import Directory, Person
from supervisor.daemon.judge import Judge
from supervisor.policy.capability import Level
from supervisor.policy.request import CapabilityRequest, Resource
from supervisor.policy.standing import consent
from tests.broker_house import OWNER, capability, party


class Listener:
    """An engine that remembers what it was asked, and has no answer."""

    revision = "test"

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def evaluate(self, document: bytes) -> bytes:
        self.seen.append(document)
        return b"{}"


def test_an_account_of_the_directory_is_its_person_whatever_the_account_is_called() -> None:
    people = Directory((Person("olaf", {"finance": "lead"}, (OWNER,)),))
    engine = Listener()
    judge = Judge(engine, lambda: (), lambda uid: people.of_uid(uid).human)
    judge.open_session("s1", consent("sheet", "o", 0))
    wanted = capability()
    request = CapabilityRequest(
        id="r1",
        session="s1",
        agent=party().agent,
        owner_uid=OWNER,
        manifest_digest="sha256:m",
        capability=wanted,
        resource=Resource(wanted.selector, Level.INTERNAL),
        duration_s=60,
        uses=0,
        purpose="sums",
        reason="to sum it up",
        expected_outcome="",
        rollback="",
        chain=(),
        created_ns=0,
    )
    asyncio.run(judge.judge(request, party(), Circumstances("none", 0, 0, parent_covers=True)))
    assert json.loads(engine.seen[0])["owner"]["name"] == "olaf"
