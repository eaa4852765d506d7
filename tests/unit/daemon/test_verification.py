"""The whole check of a signed manifest: who may stand behind an agent, and as what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor.daemon.keyring import Keyring, combined
from supervisor.daemon.verification import verify
from supervisor.errors import DeskwardenError, RefusedError, UsageError
from supervisor.identity.dsse import Envelope, add_signature, envelope_bytes
from supervisor.identity.keys import SigningKey, new_key
from supervisor.identity.trust import Role, TrustedKey
from supervisor.policy.manifest import PAYLOAD_TYPE
from tests.unit.policy.manifests import payload

NOW = 1_769_000_000  # 2026-01-21
ALICE, ACME, AGENT, MALLORY = (new_key() for _ in range(4))


def _trusted(key: SigningKey, name: str, *roles: Role, expires_s: int = NOW + 1000) -> TrustedKey:
    return TrustedKey(key.public, frozenset(roles), name, expires_s)


OWNER = _trusted(ALICE, "alice", Role.OWNER)
PUBLISHER = _trusted(ACME, "acme", Role.PUBLISHER)


def _signed(*keys: SigningKey, kind: str = PAYLOAD_TYPE, **fields: Any) -> bytes:
    envelope = Envelope(kind, payload(**fields))
    for key in keys:
        envelope = add_signature(envelope, key)
    return envelope_bytes(envelope)


def _own(*keys: TrustedKey) -> Keyring:
    return combined(Keyring(), Keyring(own=keys))


def _managed(*keys: TrustedKey, own: tuple[TrustedKey, ...] = ()) -> Keyring:
    return combined(Keyring(managed=keys), Keyring(own=own))


def test_an_owners_signature_is_enough_for_a_user_owned_agent_and_is_the_consent() -> None:
    found = verify(_signed(ALICE), _own(OWNER), "alice", NOW)
    assert (found.signed_by, found.agent_class, found.managed, found.consented) == (
        ("owner",),
        "user-owned",
        False,
        True,
    )


def test_a_publishers_signature_is_enough_but_no_consent() -> None:
    found = verify(_signed(ACME), _own(PUBLISHER), "alice", NOW)
    assert (found.signed_by, found.managed, found.consented) == (("publisher",), False, False)


def test_each_signature_counts_in_its_role() -> None:
    fields = {"agent_key": AGENT.public.to_jwk()}
    found = verify(_signed(ALICE, AGENT, ACME, **fields), _managed(PUBLISHER, own=(OWNER,)), "alice", NOW)
    assert (found.signed_by, found.managed, found.consented) == (("publisher", "owner", "agent"), True, True)


def test_a_service_needs_a_publisher_that_the_machine_knows() -> None:
    data = _signed(ACME, class_claim="service")
    assert verify(data, _managed(PUBLISHER), "alice", NOW).agent_class == "service"
    with pytest.raises(RefusedError, match="none that this machine knows"):
        verify(data, _own(PUBLISHER), "alice", NOW)
    with pytest.raises(RefusedError, match="no signature as publisher"):
        verify(_signed(ALICE, class_claim="service"), _own(OWNER), "alice", NOW)


def test_nobody_becomes_a_system_agent_by_claiming_it() -> None:
    with pytest.raises(RefusedError, match="claims to be a system agent"):
        verify(_signed(ACME, ALICE, class_claim="system"), _managed(PUBLISHER, own=(OWNER,)), "alice", NOW)


def test_another_owners_manifest_is_refused() -> None:
    with pytest.raises(RefusedError, match="alice signed as owner, but bob starts it"):
        verify(_signed(ALICE), _own(OWNER), "bob", NOW)


@pytest.mark.parametrize(
    ("data", "ring", "why"),
    [
        (_signed(), (OWNER,), "nobody has signed"),
        (_signed(MALLORY), (OWNER,), "by none of the 1 known keys"),
        (_signed(ALICE, MALLORY), (OWNER,), "by none of the 1 known keys"),
        (_signed(ALICE), (_trusted(ALICE, "alice", Role.OWNER, expires_s=NOW),), "expired"),
        (_signed(ALICE), (_trusted(ALICE, "carol", Role.OWNER),), "names alice as owner, but carol"),
        (_signed(ACME), (_trusted(ACME, "evil", Role.PUBLISHER),), "names acme as publisher, but evil"),
        (_signed(AGENT, agent_key=AGENT.public.to_jwk()), (OWNER,), "only a key that it names itself"),
        (_signed(ALICE, kind="application/other"), (OWNER,), "the payload is application/other"),
        (_signed(ALICE, expires="2026-01-02T00:00:00Z"), (OWNER,), "expired at"),
        (_signed(ALICE, not_before="2026-03-01T00:00:00Z"), (OWNER,), "valid from"),
    ],
)
def test_a_manifest_that_does_not_hold_is_refused_by_name(data: bytes, ring: tuple[TrustedKey, ...], why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        verify(data, _own(*ring), "alice", NOW)


def test_one_changed_byte_of_the_payload_voids_every_signature() -> None:
    value = json.loads(_signed(ALICE, ACME))
    other = json.loads(_signed(ALICE, purpose="Sends the quarter's reports away."))
    value["payload"] = other["payload"]
    with pytest.raises(RefusedError, match="is not over these bytes"):
        verify(json.dumps(value).encode(), _own(OWNER, PUBLISHER), "alice", NOW)


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b'{"payload":"","payload":""}', b"\xff\xfe"])
def test_what_is_no_envelope_is_told_so(data: bytes) -> None:
    with pytest.raises(DeskwardenError):
        verify(data, _own(OWNER), "alice", NOW)


def test_a_key_twice_in_the_signed_manifest_is_refused_though_signed() -> None:
    twice = payload().replace(b'"seq": 1', b'"seq": 1, "seq": 2')
    data = envelope_bytes(add_signature(Envelope(PAYLOAD_TYPE, twice), ALICE))
    with pytest.raises(UsageError, match="stands twice"):
        verify(data, _own(OWNER), "alice", NOW)


def test_an_owner_cannot_pass_a_key_of_their_own_off_as_the_machines_publisher() -> None:
    mine = _trusted(MALLORY, "acme", Role.PUBLISHER)
    ring = _managed(PUBLISHER, own=(mine,))
    assert ring.own == ()
    with pytest.raises(RefusedError, match="the machine's keys name that one"):
        verify(_signed(MALLORY), ring, "alice", NOW)


def test_what_the_machine_says_of_a_key_holds_over_the_owners_file() -> None:
    promoted = _trusted(ACME, "alice", Role.OWNER)
    ring = _managed(PUBLISHER, own=(promoted,))
    assert verify(_signed(ACME), ring, "alice", NOW).signed_by == ("publisher",)
