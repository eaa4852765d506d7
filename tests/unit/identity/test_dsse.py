"""Envelopes: what is signed is the bytes and their type; every other reading is refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import binary, text

from supervisor.errors import RefusedError, UsageError
from supervisor.identity.dsse import (
    Envelope,
    Signature,
    add_signature,
    envelope_bytes,
    pae,
    parse_envelope,
    verify,
)
from supervisor.identity.keys import Algorithm, new_key

TYPE = "application/vnd.example+json"
ONE, TWO = new_key(), new_key(Algorithm.P256)
KEYS = (ONE.public, TWO.public)
SIGNED = add_signature(Envelope(TYPE, b'{"a":1}'), ONE)


def test_the_encoding_is_the_standards_own_example() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(text(), binary(), text(), binary())
def test_two_documents_never_have_one_encoding(type_1: str, payload_1: bytes, type_2: str, payload_2: bytes) -> None:
    same = (type_1, payload_1) == (type_2, payload_2)
    try:
        assert (pae(type_1, payload_1) == pae(type_2, payload_2)) == same
    except UnicodeEncodeError:
        assert not (type_1 + type_2).isascii()


def test_moving_bytes_between_type_and_payload_changes_the_encoding() -> None:
    assert pae("a 1 b", b"c") != pae("a", b"1 b 1 c")


@given(binary(max_size=200))
def test_what_is_written_is_read_back_and_verified(payload: bytes) -> None:
    envelope = add_signature(add_signature(Envelope(TYPE, payload), ONE), TWO)
    received = parse_envelope(envelope_bytes(envelope))
    assert received == envelope
    assert verify(received, TYPE, KEYS) == KEYS


def test_a_key_id_is_a_hint_only() -> None:
    for hint in ("", "nonsense", TWO.public.keyid):
        told = replace(SIGNED, signatures=(replace(SIGNED.signatures[0], keyid=hint),))
        assert verify(told, TYPE, KEYS) == (ONE.public,)


def test_a_key_id_of_a_known_key_proves_nothing() -> None:
    stranger = add_signature(Envelope(TYPE, SIGNED.payload), new_key()).signatures[0]
    forged = replace(SIGNED, signatures=(replace(stranger, keyid=ONE.public.keyid),))
    with pytest.raises(RefusedError, match="not over these bytes"):
        verify(forged, TYPE, KEYS)


@pytest.mark.parametrize("payload", [b'{"a":2}', b'{"a":1} ', b'{"a": 1}', b""])
def test_a_signature_over_other_bytes_is_refused(payload: bytes) -> None:
    with pytest.raises(RefusedError, match="not over these bytes"):
        verify(replace(SIGNED, payload=payload), TYPE, KEYS)


def test_a_signature_for_another_type_is_refused_whatever_the_envelope_says() -> None:
    with pytest.raises(RefusedError, match=r"the payload is application/vnd\.example"):
        verify(SIGNED, "application/vnd.other+json", KEYS)
    with pytest.raises(RefusedError, match="not over these bytes"):
        verify(replace(SIGNED, payload_type="application/vnd.other+json"), "application/vnd.other+json", KEYS)


def test_a_bare_signature_of_the_payload_is_refused() -> None:
    bare = replace(SIGNED, signatures=(Signature(ONE.public.keyid, ONE.sign(SIGNED.payload)),))
    with pytest.raises(RefusedError):
        verify(bare, TYPE, KEYS)


def test_an_unknown_signer_beside_a_known_one_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"signature 2 .* none of the 2 known keys"):
        verify(add_signature(SIGNED, new_key()), TYPE, KEYS)


def test_no_signature_is_refused() -> None:
    with pytest.raises(RefusedError, match="nobody has signed"):
        verify(replace(SIGNED, signatures=()), TYPE, KEYS)
    with pytest.raises(RefusedError, match="none of the 0 known keys"):
        verify(SIGNED, TYPE, ())


@pytest.mark.parametrize("key", [ONE, TWO], ids=["ed25519", "p256"])
def test_one_key_counts_once_also_with_two_different_signatures(key: Any) -> None:
    message = pae(TYPE, b"x")
    twice = Envelope(TYPE, b"x", tuple(Signature(hint, key.sign(message)) for hint in ("first", "second")))
    with pytest.raises(RefusedError, match="has signed twice"):
        verify(twice, TYPE, KEYS)


def test_signing_twice_with_one_key_is_refused() -> None:
    with pytest.raises(RefusedError, match="signed it already"):
        add_signature(SIGNED, ONE)


def value() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(envelope_bytes(SIGNED))
    return parsed


def with_(**fields: Any) -> bytes:
    return json.dumps(value() | fields).encode()


def padded(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


HOSTILE = {
    "not json": b"{",
    "a list": b"[]",
    "a word": b'"x"',
    "unknown field": with_(extra=1),
    "missing field": json.dumps({"payload": "", "signatures": []}).encode(),
    "payload twice": envelope_bytes(SIGNED)[:-2] + b',"payload":""}',
    "deep": b"[" * 1000 + b"]" * 1000,
    "deep payload type": with_(payloadType=json.loads("[" * 40 + "]" * 40)),
    "infinite number": b'{"payloadType":1e400,"payload":"","signatures":[]}',
    "type is null": with_(payloadType=None),
    "type with a space": with_(payloadType="a 1 b"),
    "type with a newline": with_(payloadType=TYPE + "\n"),
    "type in capitals": with_(payloadType=TYPE.upper()),
    "payload is bytes in a list": with_(payload=[1]),
    "payload is null": with_(payload=None),
    "urlsafe base64": with_(payload="_-8="),
    "without padding": with_(payload=padded(b"a").rstrip("=")),
    "too much padding": with_(payload=padded(b"a") + "===="),
    "stray bits": with_(payload="YR=="),
    "line break": with_(payload=padded(b"abc") + "\n"),
    "space inside": with_(payload="YW Jj"),
    "padding inside": with_(payload="YQ==YQ=="),
    "not ascii": with_(payload="é"),
    "signatures no list": with_(signatures={}),
    "signatures without end": with_(signatures=value()["signatures"] * 9),
    "signature no object": with_(signatures=["x"]),
    "signature with a role": with_(signatures=[value()["signatures"][0] | {"role": "publisher"}]),
    "signature without sig": with_(signatures=[{"keyid": "x"}]),
    "long signature": with_(signatures=[{"sig": padded(b"x" * 129)}]),
    "long key id": with_(signatures=[{"keyid": "x" * 129, "sig": ""}]),
    "key id with an escape": with_(signatures=[{"keyid": "\x1b[2J", "sig": ""}]),
    "key id is a number": with_(signatures=[{"keyid": 1, "sig": ""}]),
    "byte order mark": b"\xef\xbb\xbf" + envelope_bytes(SIGNED),
    "utf-16": json.dumps(value()).encode("utf-16"),
    "large": b" " * (512 * 1024) + envelope_bytes(SIGNED),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_an_envelope_in_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="envelope") as refused:
        parse_envelope(data)
    assert len(refused.value.message) < 500
    assert "\x1b" not in refused.value.message


def test_signing_stops_at_what_is_still_read() -> None:
    envelope = Envelope(TYPE, b"x")
    for _ in range(8):
        envelope = add_signature(envelope, new_key())
    assert parse_envelope(envelope_bytes(envelope)) == envelope
    with pytest.raises(RefusedError, match="8 signatures"):
        add_signature(envelope, new_key())
