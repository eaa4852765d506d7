"""Exactly the files that somebody trusted signed decide, for at most thirty days."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.errors import DeskwardenError
from supervisor.identity.bundle_signature import (
    PAYLOAD_TYPE,
    Statement,
    digests_of,
    parse_statement,
    verify_bundle,
)
from supervisor.identity.dsse import Envelope, add_signature, envelope_bytes
from supervisor.identity.keys import SigningKey, new_key
from supervisor.identity.trust import Role, TrustedKey

NOW = 1_800_000_000
DAY = 86400
FILES = {"a.rego": b"package deskwarden", "data.json": b"{}"}
ANN, BEA, EVE = new_key(), new_key(), new_key()
STATEMENT = Statement("sha256:" + "0" * 64, 7, NOW, NOW + 30 * DAY, digests_of(FILES))


def trusted(key: SigningKey, name: str, role: Role = Role.PUBLISHER) -> TrustedKey:
    return TrustedKey(key.public, frozenset({role}), name, NOW + 300 * DAY)


RING = (trusted(ANN, "ann"), trusted(BEA, "bea"))


def signed(*keys: SigningKey, statement: Statement = STATEMENT, kind: str = PAYLOAD_TYPE) -> bytes:
    envelope = Envelope(kind, statement.to_bytes())
    for key in keys:
        envelope = add_signature(envelope, key)
    return envelope_bytes(envelope)


def refusal(envelope: bytes, files: dict[str, bytes] = FILES, least: int = 1, ring: object = RING) -> str:
    with pytest.raises(DeskwardenError) as caught:
        verify_bundle(envelope, digests_of(files), ring, least, NOW)  # type: ignore[arg-type]
    return caught.value.message


def test_what_two_signed_holds_with_both_names() -> None:
    found = verify_bundle(signed(ANN, BEA), digests_of(FILES), RING, 2, NOW)
    assert found.signers == ("ann", "bea")
    assert found.statement == STATEMENT


def test_an_expired_one_is_still_known_so_that_it_can_deny() -> None:
    found = verify_bundle(signed(ANN), digests_of(FILES), RING, 1, NOW + 31 * DAY)
    assert found.statement.expires_s < NOW + 31 * DAY


def test_one_signature_is_not_two_and_two_keys_of_one_name_are_one() -> None:
    assert "1 of 2" in refusal(signed(ANN), least=2)
    assert "1 of 2" in refusal(signed(ANN, BEA), least=2, ring=(trusted(ANN, "ann"), trusted(BEA, "ann")))


@pytest.mark.parametrize(
    "files",
    [
        {**FILES, "a.rego": b"package deskwarden "},
        {**FILES, "extra.rego": b"package deskwarden"},
        {"a.rego": FILES["a.rego"]},
    ],
)
def test_a_file_changed_added_or_removed_voids_it(files: dict[str, bytes]) -> None:
    assert "sha256:" in refusal(signed(ANN), files)


def test_a_stranger_a_key_for_something_else_or_another_document_does_not_count() -> None:
    assert "none of the 2 known keys" in refusal(signed(EVE))
    assert "no signature as publisher" in refusal(signed(ANN), ring=(trusted(ANN, "ann", Role.OWNER),))
    assert "want application/vnd.deskwarden.policy+json" in refusal(
        signed(ANN, kind="application/vnd.deskwarden.agent-manifest+json")
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expires_s": NOW + 31 * DAY}, "at most 30 days"),
        ({"expires_s": NOW}, "at most 30 days"),
        ({"issued_s": NOW + DAY}, "in the future"),
        ({"seq": 0}, "whole number from 1"),
        ({"revision": "sha256:0"}, "digests"),
    ],
)
def test_a_statement_of_too_long_a_time_or_none_is_refused(changes: dict[str, int], said: str) -> None:
    assert said in refusal(signed(ANN, statement=replace(STATEMENT, **changes)))  # type: ignore[arg-type]


def test_a_key_past_its_end_signs_nothing() -> None:
    old = replace(trusted(ANN, "ann"), expires_s=NOW)
    assert "expired" in refusal(signed(ANN), ring=(old,))


def test_the_statement_reads_back() -> None:
    assert parse_statement(STATEMENT.to_bytes(), "x") == STATEMENT
