"""Signing keys: Ed25519 and ECDSA over P-256 with SHA-256, and nothing else.

A key's id is ``sha256:`` and the SHA-256 of its SubjectPublicKeyInfo in DER, as
``openssl pkey -pubin -in KEY -outform DER | sha256sum`` prints it.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256

from supervisor import strict_json
from supervisor.errors import RefusedError, UsageError

MAX_KEY_FILE_BYTES: Final = 8 * 1024
# Ed25519 points of small order, without the sign bit, also in the spellings above the prime: with one as public key,
# a signature that nobody made verifies over any message (RFC 8032 lets it; "Taming the many EdDSAs", table 1).
SMALL_ORDER: Final = frozenset(
    map(
        bytes.fromhex,
        (
            "00" * 32,
            "01" + "00" * 31,
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "ec" + "ff" * 30 + "7f",
            "ed" + "ff" * 30 + "7f",
            "ee" + "ff" * 30 + "7f",
        ),
    )
)

_PrivateHandle = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
_NEW_STEP: Final = "deskwarden manifest sign FILE --key KEY --role ROLE --new-key makes one"
_WANTED: Final = "want Ed25519 or P-256"


class Algorithm(StrEnum):
    """What a key signs with."""

    ED25519 = "ed25519"
    P256 = "p256"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key. *spki* is its SubjectPublicKeyInfo in DER, in the one form that this module writes."""

    algorithm: Algorithm
    spki: bytes

    @property
    def keyid(self) -> str:
        """``sha256:…`` of *spki*."""
        return strict_json.digest_of(self.spki)

    @property
    def pem(self) -> str:
        """The key as a PEM file (RFC 7468)."""
        handle = serialization.load_der_public_key(self.spki)
        return handle.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()

    def verified(self, signature: bytes, message: bytes) -> bool:
        """Return whether *signature* over *message* is this key's; anything malformed is not."""
        handle = serialization.load_der_public_key(self.spki)
        try:
            if isinstance(handle, ed25519.Ed25519PublicKey):
                handle.verify(signature, message)
            elif isinstance(handle, ec.EllipticCurvePublicKey):
                handle.verify(signature, message, ec.ECDSA(SHA256()))
            else:
                return False
        except InvalidSignature:
            return False
        return True

    def to_jwk(self) -> dict[str, str]:
        """Return the key as a manifest's ``agent_key`` (RFC 7517, RFC 8037)."""
        handle = serialization.load_der_public_key(self.spki)
        if isinstance(handle, ec.EllipticCurvePublicKey):
            numbers = handle.public_numbers()
            x, y = (_base64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
            return {"kty": "EC", "crv": "P-256", "x": x, "y": y}
        raw = handle.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(raw)}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with its public half. Never shown: its repr holds the public half only."""

    public: PublicKey
    _handle: _PrivateHandle

    def __repr__(self) -> str:
        return f"SigningKey({self.public.keyid})"

    def sign(self, message: bytes) -> bytes:
        """Return the signature: 64 bytes for Ed25519, DER for P-256."""
        if isinstance(self._handle, ed25519.Ed25519PrivateKey):
            return self._handle.sign(message)
        return self._handle.sign(message, ec.ECDSA(SHA256()))


def new_key(algorithm: Algorithm = Algorithm.ED25519) -> SigningKey:
    """Return a new key; nothing is written."""
    if algorithm is Algorithm.ED25519:
        return _signing_key(ed25519.Ed25519PrivateKey.generate(), "a new key")
    return _signing_key(ec.generate_private_key(ec.SECP256R1()), "a new key")


def write_private(path: str, key: SigningKey) -> None:
    """Write *key* as a new PEM file (PKCS#8, without a passphrase) that only its owner may read.

    Raises:
        RefusedError: The file exists or can't be made.
    """
    pem = key._handle.private_bytes(  # noqa: SLF001 - the one place that lets it out
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except FileExistsError as error:
        raise RefusedError(f"{path} exists already", "leave --new-key out to use it, or name another file") from error
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}", "check the rights of the directory") from error
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, 0o600)  # whatever the umask or a default ACL made of it
        file.write(pem)


def read_private(path: str) -> SigningKey:
    """Read a private key file.

    Raises:
        RefusedError: Someone else may read it or owns it.
        UsageError: There is none, it has a passphrase, or it is of another kind.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not hold us
    try:
        fd = os.open(path, flags)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", _NEW_STEP) from error
    try:
        _check_private(path, os.fstat(fd))
        data = os.read(fd, MAX_KEY_FILE_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > MAX_KEY_FILE_BYTES:
        raise UsageError(f"{path}: more than {MAX_KEY_FILE_BYTES} bytes, no private key", _NEW_STEP)
    try:
        return _signing_key(serialization.load_pem_private_key(data, None), path)
    except TypeError as error:
        raise UsageError(f"{path}: the key has a passphrase, which is not supported", _NEW_STEP) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: is no private key in PEM", _NEW_STEP) from error


def parse_public(pem: bytes, what: str) -> PublicKey:
    """Read one public key in PEM.

    Raises:
        UsageError: It is none, or of another kind.
    """
    if len(pem) > MAX_KEY_FILE_BYTES:
        raise UsageError(f"{what}: {len(pem)} bytes, a public key has at most {MAX_KEY_FILE_BYTES}")
    try:
        return _public_key(serialization.load_pem_public_key(pem), what)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{what}: is no public key in PEM", "write it with: openssl pkey -in KEY -pubout") from error


def from_jwk(value: Mapping[str, str], what: str) -> PublicKey:
    """Read a manifest's ``agent_key``.

    Raises:
        UsageError: Another kind of key, a coordinate of another length, or no point of the curve.
    """
    members = set(value)
    try:
        if (value["kty"], value["crv"]) == ("OKP", "Ed25519") and members == {"kty", "crv", "x"}:
            return _public_key(ed25519.Ed25519PublicKey.from_public_bytes(_coordinate(value["x"])), what)
        if (value["kty"], value["crv"]) == ("EC", "P-256") and members == {"kty", "crv", "x", "y"}:
            point = b"\x04" + _coordinate(value["x"]) + _coordinate(value["y"])
            return _public_key(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point), what)
    except (ValueError, KeyError) as error:
        raise UsageError(f"{what}: is no key: {error}", _WANTED) from error
    raise UsageError(f"{what}: {value['kty'][:20]!a} {value['crv'][:20]!a}, {_WANTED}", "deskwarden manifest schema")


def _signing_key(handle: object, what: str) -> SigningKey:
    if isinstance(handle, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        return SigningKey(_public_key(handle.public_key(), what), handle)
    raise UsageError(f"{what}: a key of another kind, {_WANTED}", _NEW_STEP)


def _public_key(handle: object, what: str) -> PublicKey:
    if isinstance(handle, ed25519.Ed25519PublicKey):
        algorithm = Algorithm.ED25519
        raw = handle.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        if raw[:31] + bytes((raw[31] & 0x7F,)) in SMALL_ORDER:
            raise UsageError(f"{what}: a point of small order, whose signatures prove nothing", _NEW_STEP)
    elif isinstance(handle, ec.EllipticCurvePublicKey) and isinstance(handle.curve, ec.SECP256R1):
        algorithm = Algorithm.P256
    else:
        raise UsageError(f"{what}: a key of another kind, {_WANTED}", _NEW_STEP)
    spki = handle.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(algorithm, spki)


def _check_private(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path}: is no regular file", _NEW_STEP)
    if found.st_uid != os.geteuid():
        raise RefusedError(f"{path}: belongs to uid {found.st_uid}, want {os.geteuid()}", "use a key of your own")
    if found.st_mode & 0o077:
        seen = stat.S_IMODE(found.st_mode)
        raise RefusedError(f"{path}: others may use this key (mode {seen:04o}, want 0600)", f"chmod 600 {path}")


def _coordinate(text: str) -> bytes:
    """Decode base64url without padding to exactly 32 bytes, in the one spelling (RFC 7515, appendix C)."""
    try:
        raw = base64.urlsafe_b64decode(f"{text}=")
    except binascii.Error as error:
        raise ValueError("a coordinate is not base64url") from error
    if len(raw) != 32 or _base64url(raw) != text:
        raise ValueError("a coordinate is not 32 bytes in base64url")
    return raw


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
