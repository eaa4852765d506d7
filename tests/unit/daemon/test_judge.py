"""The judge tells policy who the owner is by name, and decides by one policy at a time, as long as it is valid."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial

import pytest

from supervisor.broker.doors import Circumstances
from supervisor.broker.people import Directory, Person
from supervisor.daemon.active_policy import Active
from supervisor.daemon.judge import Judge
from supervisor.daemon.policy_source import Found
from supervisor.errors import ServiceError
from supervisor.policy.bundle_source import default_directory, read_bundle
from supervisor.policy.capability import Level
from supervisor.policy.decision import Decision, Effect
from supervisor.policy.request import CapabilityRequest, Resource
from supervisor.policy.role import parse_roles
from supervisor.policy.standing import consent
from tests.broker_house import OWNER, capability, party
from tests.unit.policy.test_decide import ALLOW


class Listener:
    """An engine that remembers what it was asked; *meanwhile* happens while it thinks."""

    revision = "test"

    def __init__(self, answer: bytes = b"{}") -> None:
        self.seen: list[bytes] = []
        self.answer = answer
        self.meanwhile: Callable[[], None] = lambda: None

    async def evaluate(self, document: bytes) -> bytes:
        self.seen.append(document)
        self.meanwhile()
        return self.answer


REQUEST = CapabilityRequest(
    id="r1",
    session="s1",
    agent=party().agent,
    owner_uid=OWNER,
    manifest_digest="sha256:m",
    capability=capability(),
    resource=Resource(capability().selector, Level.INTERNAL),
    duration_s=60,
    uses=0,
    purpose="sums",
    reason="to sum it up",
    expected_outcome="",
    rollback="",
    chain=(),
    created_ns=0,
)


def asked(judge: Judge) -> Decision:
    judge.open_session("s1", consent("sheet", "o", 0))
    return asyncio.run(judge.judge(REQUEST, party(), Circumstances("none", 0, 0, parent_covers=True)))


def policy(expires_s: int = 0) -> Active:
    bundle = read_bundle(default_directory())
    return Active(Found(bundle, "packaged", expires_s=expires_s), parse_roles(bundle.roles), 0)


def test_an_account_of_the_directory_is_its_person_whatever_the_account_is_called() -> None:
    people = Directory((Person("olaf", {"finance": "lead"}, (OWNER,)),))
    engine = Listener()
    asked(Judge(engine, lambda: None, lambda uid: people.of_uid(uid).human))
    assert json.loads(engine.seen[0])["owner"]["name"] == "olaf"


def test_a_policy_that_is_replaced_while_it_decides_decides_again_with_its_own_roles() -> None:
    policies = [policy(), policy()]
    now = [policies[0]]
    engine = Listener()
    engine.meanwhile = lambda: now.__setitem__(0, policies[1])
    asked(Judge(engine, lambda: now[0], str))
    assert len(engine.seen) == 2


def test_attack_a_policy_that_never_rests_gives_nothing() -> None:
    now = [policy()]
    engine = Listener()
    engine.meanwhile = lambda: now.__setitem__(0, policy())
    with pytest.raises(ServiceError):
        asked(Judge(engine, lambda: now[0], str))


def test_a_policy_past_its_end_allows_nothing_by_itself() -> None:
    for expires_s, effect in ((0, Effect.ALLOW), (2**40, Effect.ALLOW), (1, Effect.ESCALATE)):
        active = policy(expires_s)
        judge = Judge(Listener(json.dumps(ALLOW).encode()), partial(lambda one: one, active), str)
        assert asked(judge).effect is effect
