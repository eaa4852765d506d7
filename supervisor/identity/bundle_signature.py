"""Signed policies: who says that exactly these files decide, as which number, and until when.

The envelope (`dsse`) lies beside the files, as `.signatures.json`. Its payload names the digest of every file, a
*seq* that only grows (an older policy cannot come back) and an end at most 30 days away (a machine that is cut off from
its policy's authors notices). Pure over bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supervisor import strict_json
from supervisor.errors import RefusedError, UsageError
from supervisor.identity.dsse import parse_envelope
from supervisor.identity.trust import Role, TrustedKey, verify_signers
from supervisor.timestamp import format_utc, parse_utc

PAYLOAD_TYPE: Final = "application/vnd.deskwarden.policy+json"
SCHEMA: Final = "deskwarden.policy/1"
LONGEST_S: Final = 30 * 86400
MAX_STATEMENT_BYTES: Final = 64 << 10
# Clocks of an author and of a machine differ.
_SKEW_S: Final = 300

_FIELDS: Final = frozenset(("schema", "revision", "seq", "issued", "expires", "files"))
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_NEXT: Final = "sign it again: deskwarden policy sign DIR --key FILE"


@dataclass(frozen=True, slots=True)
class Statement:
    """What is signed.

    Attributes:
        revision: Of the rules, as every decision names it.
        files: Name → digest, of every file of the bundle.
    """

    revision: str
    seq: int
    issued_s: int
    expires_s: int
    files: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """Return the payload; `parse_statement` is the inverse."""
        value = {"schema": SCHEMA, "revision": self.revision, "seq": self.seq, "files": dict(self.files)}
        return strict_json.canonical(
            value | {"issued": format_utc(self.issued_s), "expires": format_utc(self.expires_s)}
        )


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement that holds, and the names of those who signed it."""

    statement: Statement
    signers: tuple[str, ...]


def digests_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return name → digest."""
    return {name: strict_json.digest_of(data) for name, data in files.items()}


def parse_statement(data: bytes, what: str) -> Statement:
    """Read a payload.

    Raises:
        UsageError: A field is missing, or is not what it must be.
    """
    value = strict_json.parse(data, MAX_STATEMENT_BYTES, what)
    if not isinstance(value, dict) or value.keys() != _FIELDS or value["schema"] != SCHEMA:
        raise UsageError(f"{what}: want schema {SCHEMA} and the fields {', '.join(sorted(_FIELDS))}", _NEXT)
    files = value["files"]
    if not isinstance(files, dict) or not all(map(_is_digest, (value["revision"], *files.values()))):
        raise UsageError(f"{what}: want revision and files as sha256 digests", _NEXT)
    if type(value["seq"]) is not int or value["seq"] < 1:
        raise UsageError(f"{what}: seq {value['seq']!r:.40}, want a whole number from 1", _NEXT)
    if not all(isinstance(value[name], str) for name in ("issued", "expires")):
        raise UsageError(f"{what}: want issued and expires as times", _NEXT)
    return Statement(value["revision"], value["seq"], parse_utc(value["issued"]), parse_utc(value["expires"]), files)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def verify_bundle(
    envelope: bytes, digests: Mapping[str, str], ring: Iterable[TrustedKey], least: int, now_s: int
) -> Signed:
    """Return the statement over exactly these files. One that has expired is returned too: the caller restricts.

    1. It is signed by keys of *ring* alone, none of them expired, of at least *least* different names.
    2. It names every file with its digest, and no other.
    3. It was issued, not in the future, and lasts at most 30 days.

    Raises:
        RefusedError: One of these does not hold, by its name.
        UsageError: It is no such envelope.
    """
    parsed = parse_envelope(envelope, "policy signature")
    signers = verify_signers(parsed, PAYLOAD_TYPE, ring, {Role.PUBLISHER}, now_s)
    names = sorted({signer.trusted.name for signer in signers if Role.PUBLISHER in signer.trusted.roles})
    if len(names) < least:
        raise RefusedError(f"signed by {', '.join(names)}: {len(names)} of {least} who have to", _NEXT)
    statement = parse_statement(parsed.payload, "policy signature")
    for name in sorted(digests.keys() | statement.files.keys()):
        seen, wanted = digests.get(name, "missing"), statement.files.get(name, "not signed")
        if seen != wanted:
            raise RefusedError(f"{name} is {seen[:19]}, signed is {wanted[:19]}", _NEXT)
    if statement.issued_s > now_s + _SKEW_S:
        raise RefusedError(f"it was issued in the future, at {format_utc(statement.issued_s)}", "set the clock")
    if not 0 < statement.expires_s - statement.issued_s <= LONGEST_S:
        raise RefusedError(f"it lasts until {format_utc(statement.expires_s)}, want at most 30 days", _NEXT)
    return Signed(statement, tuple(names))
