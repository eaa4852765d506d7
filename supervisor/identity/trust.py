"""Who is trusted to sign, as what, and until when; and whether an envelope's signers are the ones required.

A key file (one key each, by convention in ``~/.config/deskwarden/keys/``)::

    {"schema": "deskwarden.key/1", "name": "acme", "roles": ["publisher"], "expires": "2027-01-31T00:00:00Z",
     "key": "-----BEGIN PUBLIC KEY-----…"}

*name* is whom the key stands for: a publisher's name, an owner's user, an agent's name. Pure over bytes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from supervisor import strict_json
from supervisor.errors import RefusedError, UsageError
from supervisor.identity.dsse import Envelope, verify
from supervisor.identity.keys import PublicKey, parse_public
from supervisor.timestamp import format_utc, parse_utc

SCHEMA: Final = "deskwarden.key/1"
MAX_TRUST_FILE_BYTES: Final = 16 * 1024
MAX_KEYS: Final = 256

_FIELDS: Final = frozenset(("schema", "name", "roles", "expires", "key"))
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
_STEP: Final = "sign with --new-key writes such a file; correct it or remove it"


class Role(StrEnum):
    """As what a key signs."""

    PUBLISHER = "publisher"
    OWNER = "owner"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key and what it is trusted for.

    Attributes:
        name: Whom it stands for; empty when only the key itself is known.
        expires_s: Seconds since 1970, or None when it does not expire.
    """

    key: PublicKey
    roles: frozenset[Role]
    name: str = ""
    expires_s: int | None = None


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed: a trusted key, and the required role that it fills, if one."""

    trusted: TrustedKey
    role: Role | None = None


def parse_trusted_key(data: bytes, what: str) -> TrustedKey:
    """Read a key file.

    Raises:
        UsageError: It is none, by the field that is wrong.
    """
    value = strict_json.parse(data, MAX_TRUST_FILE_BYTES, what)
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        seen = ascii(sorted(value))[:200] if isinstance(value, dict) else type(value).__name__
        raise UsageError(f"{what}: want the fields {', '.join(sorted(_FIELDS))}, got {seen}", _STEP)
    for field in ("schema", "name", "expires", "key"):
        if not isinstance(value[field], str):
            raise UsageError(f"{what}: {field}: want text", _STEP)
    if value["schema"] != SCHEMA:
        raise UsageError(f"{what}: schema: {value['schema'][:40]!a}, want {SCHEMA}", _STEP)
    if not _NAME.fullmatch(value["name"]):
        raise UsageError(f"{what}: name: want letters, digits, . _ @ - (at most 128)", _STEP)
    key = parse_public(value["key"].encode(), f"{what}: key")
    return TrustedKey(key, _roles(value["roles"], what), value["name"], parse_utc(value["expires"]))


def trusted_key_bytes(trusted: TrustedKey) -> bytes:
    """Return the key file of *trusted*, which must have an end; `parse_trusted_key` is the inverse."""
    if trusted.expires_s is None:
        raise ValueError("a key that is kept has an end")
    return strict_json.canonical(
        {
            "schema": SCHEMA,
            "name": trusted.name,
            "roles": sorted(trusted.roles),
            "expires": format_utc(trusted.expires_s),
            "key": trusted.key.pem,
        }
    )


def verify_signers(
    envelope: Envelope,
    payload_type: str,
    ring: Iterable[TrustedKey],
    required: Collection[Role],
    now_s: int,
    introduced: Iterable[TrustedKey] = (),
) -> tuple[Signer, ...]:
    """Return who signed *envelope*, each filling at most one role.

    1. Every signature is by a key of *ring* or *introduced*, over these bytes, and no key signs twice.
    2. None of these keys has expired.
    3. At least one is of *ring*: a payload can't vouch for itself.
    4. Each role in *required* is filled, and no key fills two.

    Args:
        required: From policy, never from the envelope.
        introduced: Keys that the payload itself names (the agent's). What *ring* says of a key holds over them.

    Raises:
        RefusedError: One of these does not hold, by its name.
    """
    own = list(ring)
    held = {trusted.key for trusted in own}
    trusted = _by_key([*own, *(named for named in introduced if named.key not in held)])
    signers = [trusted[key] for key in verify(envelope, payload_type, trusted)]
    for signer in signers:
        if signer.expires_s is not None and now_s >= signer.expires_s:
            raise RefusedError(
                f"the key of {_called(signer)} expired at {format_utc(signer.expires_s)}", "sign with a current key"
            )
    if not any(signer in own for signer in signers):
        raise RefusedError("only a key that it names itself has signed it", "let its publisher or owner sign")
    filled = _filled(signers, sorted(required))
    return tuple(Signer(signer, filled.get(index)) for index, signer in enumerate(signers))


def _by_key(keys: Sequence[TrustedKey]) -> dict[PublicKey, TrustedKey]:
    if len(keys) > MAX_KEYS:
        raise RefusedError(f"{len(keys)} trusted keys, at most {MAX_KEYS} are tried", "remove those no longer used")
    found: dict[PublicKey, TrustedKey] = {}
    for key in keys:
        if key.key in found:
            raise RefusedError(
                f"the key {key.key.keyid} is given twice, for {_called(found[key.key])} and for {_called(key)}",
                "keep one: what one key signs counts once",
            )
        found[key.key] = key
    return found


def _filled(signers: Sequence[TrustedKey], required: Sequence[Role]) -> dict[int, Role]:
    """Give every required role to a signer of its own; at most three roles, so all ways are tried."""
    if missing := [role for role in required if not any(role in signer.roles for signer in signers)]:
        raise RefusedError(
            f"no signature as {missing[0]}", f"deskwarden manifest sign FILE --key KEY --role {missing[0]}"
        )
    for chosen in itertools.permutations(range(len(signers)), len(required)):
        if all(role in signers[index].roles for index, role in zip(chosen, required, strict=True)):
            return dict(zip(chosen, required, strict=True))
    raise RefusedError(f"one key cannot sign as two of {', '.join(required)}", "let a second key sign")


def _roles(value: Any, what: str) -> frozenset[Role]:
    known = {str(role) for role in Role}
    if not isinstance(value, list) or not value or not all(isinstance(role, str) and role in known for role in value):
        raise UsageError(f"{what}: roles: want a list of {', '.join(sorted(known))}", _STEP)
    if len(set(value)) != len(value):
        raise UsageError(f"{what}: roles: one stands twice", _STEP)
    return frozenset(Role(role) for role in value)


def _called(key: TrustedKey) -> str:
    return key.name or key.key.keyid
