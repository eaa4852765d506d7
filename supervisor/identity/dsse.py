"""Signed documents: the Dead Simple Signing Envelope, protocol and JSON envelope version 1 (secure-systems-lab/dsse).

What is signed is the payload's bytes and its type (`pae`), never a re-encoding of them. Stricter than the standard
where it leaves a choice: padded standard base64 in its one spelling, no further fields. A ``keyid`` is a hint only.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from supervisor import strict_json
from supervisor.errors import RefusedError, UsageError
from supervisor.identity.keys import PublicKey, SigningKey

MAX_ENVELOPE_BYTES: Final = 512 * 1024
MAX_SIGNATURES: Final = 8
MAX_SIGNATURE_BYTES: Final = 128  # P-256 in DER has at most 72

_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9.+/-]{0,127}")
_FIELDS: Final = frozenset(("payloadType", "payload", "signatures"))
_SIGNATURE_FIELDS: Final = frozenset(("keyid", "sig"))


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature as received; *keyid* is what it says of itself, and may be empty or wrong."""

    keyid: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with signatures; nothing is verified yet."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...] = ()


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: the pre-authentication encoding."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def parse_envelope(data: bytes, what: str = "envelope") -> Envelope:
    """Read an envelope strictly.

    Raises:
        UsageError: It is none, or spelled in another way than the one.
    """
    value = strict_json.parse(data, MAX_ENVELOPE_BYTES, what)
    _check_fields(value, _FIELDS, what)
    payload_type, signatures = value["payloadType"], value["signatures"]
    if not isinstance(payload_type, str) or not _TYPE.fullmatch(payload_type):
        raise UsageError(f"{what}: payloadType: want a media type")
    if not isinstance(signatures, list) or len(signatures) > MAX_SIGNATURES:
        raise UsageError(f"{what}: signatures: want a list of at most {MAX_SIGNATURES}")
    payload = _decoded(value["payload"], f"{what}: payload")
    return Envelope(payload_type, payload, tuple(_signature(one, f"{what}: signatures") for one in signatures))


def envelope_bytes(envelope: Envelope) -> bytes:
    """Return the envelope as a JSON file; `parse_envelope` is the inverse."""
    signatures = [{"keyid": one.keyid, "sig": _encoded(one.value)} for one in envelope.signatures]
    value = {"payload": _encoded(envelope.payload), "payloadType": envelope.payload_type, "signatures": signatures}
    return strict_json.canonical(value) + b"\n"


def add_signature(envelope: Envelope, key: SigningKey) -> Envelope:
    """Return *envelope* with one signature more.

    Raises:
        RefusedError: It holds one by this key.
    """
    message = pae(envelope.payload_type, envelope.payload)
    if any(key.public.verified(one.value, message) for one in envelope.signatures):
        raise RefusedError(f"the key {key.public.keyid} has signed it already", "let the other party sign")
    if len(envelope.signatures) >= MAX_SIGNATURES:
        raise RefusedError(f"it has {MAX_SIGNATURES} signatures, more are not read", "begin with a new envelope")
    signature = Signature(key.public.keyid, key.sign(message))
    return replace(envelope, signatures=(*envelope.signatures, signature))


def verify(envelope: Envelope, payload_type: str, keys: Iterable[PublicKey]) -> tuple[PublicKey, ...]:
    """Return the keys that signed, in the order of the signatures: one for each, all different.

    Args:
        payload_type: What the caller is about to read it as; a signature for another type says nothing.

    Raises:
        RefusedError: No signature at all, one by none of *keys* or over other bytes, two by one key, another type.
    """
    if envelope.payload_type != payload_type:
        raise RefusedError(f"the payload is {envelope.payload_type}, want {payload_type}", "give the right file")
    if not envelope.signatures:
        raise RefusedError("nobody has signed it", "deskwarden manifest sign FILE --key KEY --role ROLE")
    known = list(keys)
    message = pae(envelope.payload_type, envelope.payload)
    signers: list[PublicKey] = []
    for number, signature in enumerate(envelope.signatures, 1):
        signer = _signer(signature, message, known)
        if signer is None:
            raise RefusedError(_no_signer(number, signature, known), "deskwarden manifest verify FILE --trust KEYS")
        if signer in signers:
            raise RefusedError(f"signature {number}: the key {signer.keyid} has signed twice", "remove one of the two")
        signers.append(signer)
    return tuple(signers)


def _signer(signature: Signature, message: bytes, keys: Sequence[PublicKey]) -> PublicKey | None:
    """Find who signed: the key that the hint names first, then every other."""
    hinted_first = sorted(keys, key=lambda key: key.keyid != signature.keyid)
    return next((key for key in hinted_first if key.verified(signature.value, message)), None)


def _no_signer(number: int, signature: Signature, keys: Sequence[PublicKey]) -> str:
    shown = signature.keyid or "no key id"
    if any(key.keyid == signature.keyid for key in keys):
        return f"signature {number} ({shown}) is not over these bytes, or not by that key"
    return f"signature {number} ({shown}) is by none of the {len(keys)} known keys"


def _signature(value: Any, what: str) -> Signature:
    _check_fields(value, _SIGNATURE_FIELDS, what, optional="keyid")
    keyid = value.get("keyid", "")
    if not isinstance(keyid, str) or len(keyid) > 128 or not (keyid.isascii() and keyid.isprintable()):
        raise UsageError(f"{what}: keyid: want at most 128 printable ASCII characters")
    raw = _decoded(value["sig"], f"{what}: sig")
    if len(raw) > MAX_SIGNATURE_BYTES:
        raise UsageError(f"{what}: sig: {len(raw)} bytes, at most {MAX_SIGNATURE_BYTES} are read")
    return Signature(keyid, raw)


def _check_fields(value: Any, fields: frozenset[str], what: str, optional: str = "") -> None:
    if not isinstance(value, dict) or not fields - {optional} <= value.keys() <= fields:
        seen = ascii(sorted(value))[:200] if isinstance(value, dict) else type(value).__name__
        raise UsageError(f"{what}: want the fields {', '.join(sorted(fields))}, got {seen}")


def _decoded(text: Any, what: str) -> bytes:
    """Decode padded standard base64 (RFC 4648, section 4) in the one spelling that encodes to the same text."""
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError) as error:
        raise UsageError(f"{what}: is not base64: {error}") from error
    if not isinstance(text, str) or _encoded(raw) != text:
        raise UsageError(f"{what}: want standard base64 with padding and no stray bits")
    return raw


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
