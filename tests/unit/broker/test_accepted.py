"""Which manifest was the newest, for whom; and what owners said yes to."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from supervisor.broker import accepted
from supervisor.broker.accepted import Consent
from supervisor.errors import RefusedError
from supervisor.policy.manifest import Manifest, parse
from tests.unit.policy.manifests import DIGEST, payload


@pytest.fixture
def db() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.executescript(accepted.SCHEMA)
    return db


def _numbered(seq: int, prev: str = DIGEST, **fields: str) -> Manifest:
    return parse(payload(seq=seq, prev_digest=prev if seq > 1 else None, **fields))


def test_the_successor_of_the_newest_is_accepted_and_the_same_one_again(db: sqlite3.Connection) -> None:
    first = _numbered(1)
    second = _numbered(2, first.digest)
    for manifest in (first, first, second, second):
        accepted.accept(db, "", manifest)
    assert accepted.seen(db, "", "acme", "sheet") == accepted.Seen(2, second.digest)


@pytest.mark.parametrize(
    ("then", "why"),
    [
        (_numbered(1), "a step back"),
        (_numbered(2, purpose="Another one with the same number."), "another manifest with number 2"),
        (_numbered(4), "want 3"),
        (_numbered(3), "but sha256:.* was accepted"),
    ],
    ids=["downgrade", "fork", "gap", "another past"],
)
def test_what_does_not_follow_is_refused_and_not_remembered(db: sqlite3.Connection, then: Manifest, why: str) -> None:
    newest = _numbered(2)
    accepted.accept(db, "", newest)
    with pytest.raises(RefusedError, match=why):
        accepted.accept(db, "", then)
    assert accepted.seen(db, "", "acme", "sheet") == accepted.Seen(2, newest.digest)


def test_an_owner_with_keys_of_their_own_cannot_use_up_the_machines_or_anothers_numbers(
    db: sqlite3.Connection,
) -> None:
    accepted.accept(db, "1000", _numbered(9_000_000))
    accepted.accept(db, "", _numbered(1))
    accepted.accept(db, "1001", _numbered(1))


def test_a_yes_holds_for_exactly_what_was_shown(db: sqlite3.Connection) -> None:
    given = Consent(1000, b"agent\xff", b"/home/alice/work", DIGEST)
    assert accepted.keep_consent(db, given)
    assert not accepted.keep_consent(db, given)
    assert accepted.has_consent(db, given)
    for other in (
        replace(given, owner_uid=1001),
        replace(given, program=b"agent"),
        replace(given, folder=b"/home/alice"),
        replace(given, digest="sha256:" + "cd" * 32),
    ):
        assert not accepted.has_consent(db, other)
