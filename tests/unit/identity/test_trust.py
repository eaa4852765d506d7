"""Trusted keys, and which roles an envelope's signers fill."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor.errors import RefusedError, UsageError
from supervisor.identity.dsse import Envelope, add_signature
from supervisor.identity.keys import SigningKey, new_key
from supervisor.identity.trust import (
    Role,
    TrustedKey,
    parse_trusted_key,
    trusted_key_bytes,
    verify_signers,
)

TYPE = "application/vnd.example+json"
NOW = 1_000_000
PUBLISHER, OWNER, AGENT = Role.PUBLISHER, Role.OWNER, Role.AGENT


def trusted(key: SigningKey, *roles: Role, name: str = "acme", expires_s: int | None = NOW + 1) -> TrustedKey:
    return TrustedKey(key.public, frozenset(roles), name, expires_s)


def signed(*keys: SigningKey) -> Envelope:
    envelope = Envelope(TYPE, b"{}")
    for key in keys:
        envelope = add_signature(envelope, key)
    return envelope


A, B, C = new_key(), new_key(), new_key()


def roles_of(envelope: Envelope, ring: list[TrustedKey], *required: Role, **more: Any) -> list[Role | None]:
    return [signer.role for signer in verify_signers(envelope, TYPE, ring, required, NOW, **more)]


def test_each_required_role_is_filled_by_a_key_of_its_own() -> None:
    ring = [trusted(A, PUBLISHER), trusted(B, OWNER)]
    assert roles_of(signed(B, A), ring, PUBLISHER, OWNER) == [OWNER, PUBLISHER]


def test_a_further_signature_of_a_known_key_fills_nothing() -> None:
    ring = [trusted(A, PUBLISHER), trusted(B, OWNER)]
    assert roles_of(signed(B, A), ring, OWNER) == [OWNER, None]


def test_one_key_signing_for_two_roles_is_refused() -> None:
    with pytest.raises(RefusedError, match="one key cannot sign as two of owner, publisher"):
        roles_of(signed(A), [trusted(A, PUBLISHER, OWNER)], PUBLISHER, OWNER)


def test_the_roles_are_given_so_that_all_are_filled_if_they_can_be() -> None:
    ring = [trusted(A, PUBLISHER, OWNER), trusted(B, PUBLISHER)]
    assert roles_of(signed(A, B), ring, PUBLISHER, OWNER) == [OWNER, PUBLISHER]
    three = [trusted(A, PUBLISHER, OWNER, AGENT), trusted(B, PUBLISHER, OWNER), trusted(C, OWNER)]
    assert roles_of(signed(A, B, C), three, PUBLISHER, OWNER, AGENT) == [AGENT, PUBLISHER, OWNER]


def test_a_role_that_nobody_filled_is_named() -> None:
    with pytest.raises(RefusedError, match="no signature as owner") as refused:
        roles_of(signed(A), [trusted(A, PUBLISHER)], PUBLISHER, OWNER)
    assert "sign FILE --key KEY --role owner" in refused.value.next_step


def test_one_key_under_two_names_is_refused() -> None:
    ring = [trusted(A, PUBLISHER, name="acme"), trusted(A, OWNER, name="alice")]
    with pytest.raises(RefusedError, match="given twice, for acme and for alice"):
        roles_of(signed(A), ring, PUBLISHER)


@pytest.mark.parametrize(("expires_s", "refused"), [(NOW - 1, True), (NOW, True), (NOW + 1, False), (None, False)])
def test_an_expired_key_is_refused_to_the_second(expires_s: int | None, refused: bool) -> None:
    ring = [trusted(A, PUBLISHER, expires_s=expires_s)]
    if not refused:
        assert roles_of(signed(A), ring, PUBLISHER) == [PUBLISHER]
        return
    with pytest.raises(RefusedError, match="the key of acme expired at 1970-01-12T13:46:"):
        roles_of(signed(A), ring, PUBLISHER)


def test_an_expired_key_is_refused_also_where_its_role_is_not_required() -> None:
    ring = [trusted(A, PUBLISHER), trusted(B, OWNER, name="alice", expires_s=NOW)]
    with pytest.raises(RefusedError, match="alice expired"):
        roles_of(signed(A, B), ring, PUBLISHER)


def test_a_payload_cannot_vouch_for_itself() -> None:
    named = [trusted(C, AGENT, name="sheet")]
    with pytest.raises(RefusedError, match="only a key that it names itself"):
        roles_of(signed(C), [trusted(A, PUBLISHER)], AGENT, introduced=named)
    assert roles_of(signed(A, C), [trusted(A, PUBLISHER)], PUBLISHER, AGENT, introduced=named) == [PUBLISHER, AGENT]


def test_a_payload_cannot_give_a_known_key_another_role() -> None:
    named = [trusted(A, AGENT, OWNER, name="sheet")]
    with pytest.raises(RefusedError, match="no signature as agent"):
        roles_of(signed(A), [trusted(A, PUBLISHER)], PUBLISHER, AGENT, introduced=named)


def test_more_keys_than_are_tried_are_refused() -> None:
    ring = [trusted(A, PUBLISHER)] * 257
    with pytest.raises(RefusedError, match="257 trusted keys"):
        roles_of(signed(A), ring, PUBLISHER)


KEPT = trusted(A, PUBLISHER, OWNER, expires_s=1_800_000_000)


def test_a_key_file_is_read_back() -> None:
    assert parse_trusted_key(trusted_key_bytes(KEPT), "key") == KEPT


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(trusted_key_bytes(KEPT)) | fields).encode()


HOSTILE = {
    "not json": b"x",
    "list": b"[]",
    "unknown field": changed(extra=1),
    "twice": trusted_key_bytes(KEPT)[:-1] + b',"roles":["agent"]}',
    "another schema": changed(schema="deskwarden.key/2"),
    "no role": changed(roles=[]),
    "unknown role": changed(roles=["root"]),
    "role twice": changed(roles=["owner", "owner"]),
    "role no text": changed(roles=[["owner"]]),
    "roles as text": changed(roles="owner"),
    "name with an escape": changed(name="a\x1b[2J"),
    "name with a newline": changed(name="acme\n"),
    "name with a bidi override": changed(name="a\u202eemca"),
    "name is null": changed(name=None),
    "expires as a number": changed(expires=1),
    "expires with an offset": changed(expires="2027-01-31T00:00:00+01:00"),
    "expires without seconds": changed(expires="2027-01-31T00:00Z"),
    "expires on no day": changed(expires="2027-02-30T00:00:00Z"),
    "expires infinite": b'{"expires":1e400}',
    "no key": changed(key="x"),
    "large": changed(key="x" * 20000),
    "deep": b"[" * 1000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_key_file_in_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError) as refused:
        parse_trusted_key(data, "key")
    assert "\x1b" not in refused.value.message
