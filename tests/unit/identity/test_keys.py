"""Key files and key ids; openssl is the outside view."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from supervisor.errors import RefusedError, UsageError
from supervisor.identity.keys import (
    SMALL_ORDER,
    Algorithm,
    from_jwk,
    new_key,
    parse_public,
    read_private,
    write_private,
)

# RFC 8037, appendix A.2, and the public key of RFC 8032, section 7.1, test 1.
RFC_8037_X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
RFC_8032_PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
RFC_8032_SIGNATURE_OF_NOTHING = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
    "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)


def openssl(*words: str, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *words], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_key_file_is_read_back_and_is_the_owners_alone(tmp_path: Path, algorithm: Algorithm) -> None:
    path, key = tmp_path / "key", new_key(algorithm)
    old = os.umask(0)
    try:
        write_private(str(path), key)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_private(str(path)).public == key.public


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_key_id_is_what_openssl_and_sha256_print(algorithm: Algorithm) -> None:
    key = new_key(algorithm).public
    der = openssl("pkey", "-pubin", "-outform", "DER", data=key.pem.encode())
    assert key.keyid == "sha256:" + openssl("dgst", "-sha256", "-r", data=der).split()[0].decode()
    assert parse_public(key.pem.encode(), "k") == key


def test_a_signature_by_openssl_is_verified_and_one_over_other_bytes_is_not(tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes(b"message")
    openssl("genpkey", "-algorithm", "ed25519", "-out", str(tmp_path / "key"))
    signed = openssl("pkeyutl", "-sign", "-rawin", "-inkey", str(tmp_path / "key"), "-in", str(tmp_path / "message"))
    key = read_private(str(tmp_path / "key")).public
    assert key.verified(signed, b"message")
    assert not key.verified(signed, b"massage")


def test_a_p256_signature_is_verified_by_openssl(tmp_path: Path) -> None:
    key = new_key(Algorithm.P256)
    (tmp_path / "key.pem").write_text(key.public.pem)
    (tmp_path / "signature").write_bytes(key.sign(b"message"))
    names = ("-verify", str(tmp_path / "key.pem"), "-signature", str(tmp_path / "signature"))
    assert b"Verified OK" in openssl("dgst", "-sha256", *names, data=b"message")


def test_published_vectors() -> None:
    key = from_jwk({"kty": "OKP", "crv": "Ed25519", "x": RFC_8037_X}, "k")
    assert key.spki.hex().endswith(RFC_8032_PUBLIC)
    assert key.verified(RFC_8032_SIGNATURE_OF_NOTHING, b"")


@pytest.mark.parametrize("algorithm", Algorithm)
def test_an_agents_key_is_read_back_from_its_jwk(algorithm: Algorithm) -> None:
    key = new_key(algorithm).public
    assert from_jwk(key.to_jwk(), "agent_key") == key


def test_a_coordinate_with_leading_zeros_is_legal() -> None:
    keys = iter(lambda: new_key(Algorithm.P256).public, None)
    key = next(key for key in keys if re.match("A[A-D]", key.to_jwk()["x"]))  # the first byte is 0
    assert from_jwk(key.to_jwk(), "agent_key") == key


JWK = new_key(Algorithm.P256).public.to_jwk()


@pytest.mark.parametrize(
    "value",
    [
        JWK | {"d": "AAAA"},
        JWK | {"crv": "P-384"},
        JWK | {"x": JWK["y"], "y": JWK["x"]},
        JWK | {"x": JWK["x"] + "="},
        JWK | {"x": JWK["x"][:-1]},
        JWK | {"x": JWK["x"] + "AA"},
        JWK | {"x": "+" * 43},
        JWK | {"x": "é" * 43},
        {"kty": "OKP", "crv": "Ed448", "x": RFC_8037_X},
        {"kty": "OKP", "crv": "Ed25519", "x": RFC_8037_X[:-1] + "p"},  # the same bytes, another last letter
        {"kty": "OKP", "crv": "Ed25519"},
        {"kty": "oct", "crv": "", "k": "AAAA"},
        {},
    ],
)
def test_another_kind_of_jwk_is_refused(value: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="agent_key"):
        from_jwk(value, "agent_key")


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("point", sorted(SMALL_ORDER), ids=lambda point: point.hex()[:8])
def test_a_public_key_that_verifies_what_nobody_signed_is_refused(point: bytes, sign: int) -> None:
    raw = point[:31] + bytes((point[31] | sign,))
    signature_by_nobody = b"\x01" + bytes(63)  # the neutral point, and the scalar 0
    with contextlib.suppress(ValueError):  # the library may refuse the spelling, which is as good
        handle = ed25519.Ed25519PublicKey.from_public_bytes(raw)
        assert any(_accepts(handle, signature_by_nobody, bytes((number,))) for number in range(64)) or sign
    text = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    with pytest.raises(UsageError, match="agent_key"):
        from_jwk({"kty": "OKP", "crv": "Ed25519", "x": text}, "agent_key")


def _accepts(handle: ed25519.Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        handle.verify(signature, message)
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_private(str(path), new_key())
    path.chmod(mode)
    with pytest.raises(RefusedError, match=f"mode {mode:04o}, want 0600"):
        read_private(str(path))


def test_a_key_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        with pytest.raises(RefusedError, match="belongs to uid 0"):
            read_private("/etc/hostname")
        return
    path = tmp_path / "key"
    write_private(str(path), new_key())
    os.chown(path, 65534, 65534)
    with pytest.raises(RefusedError, match="belongs to uid 65534, want 0"):
        read_private(str(path))


def pem(key: object, encryption: serialization.KeySerializationEncryption) -> bytes:
    written: bytes = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    return written


PLAIN = serialization.NoEncryption()
OTHER_KEYS = {
    "rsa": pem(rsa.generate_private_key(65537, 2048), PLAIN),
    "p384": pem(ec.generate_private_key(ec.SECP384R1()), PLAIN),
    "ed448": pem(ed448.Ed448PrivateKey.generate(), PLAIN),
    "passphrase": pem(ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"word")),
    "public": new_key().public.pem.encode(),
    "empty": b"",
    "large": b"-" * 9000,
}


@pytest.mark.parametrize("data", OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_another_kind_of_key_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(UsageError, match=str(path)) as refused:
        read_private(str(path))
    assert refused.value.next_step


def test_a_fifo_is_refused_and_never_waited_for_and_so_is_a_directory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    for path in (tmp_path / "key", tmp_path):
        with pytest.raises(UsageError, match="no regular file"):
            read_private(str(path))


def test_a_new_key_overwrites_nothing_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="exists already"):
        write_private(str(tmp_path / "link"), new_key())
    assert not (tmp_path / "elsewhere").exists()


def test_a_private_key_shows_no_secret_in_a_trace() -> None:
    key = new_key()
    assert repr(key) == f"SigningKey({key.public.keyid})"


@pytest.mark.parametrize("data", [b"", b"x", OTHER_KEYS["rsa"], b"-" * 9000])
def test_another_kind_of_public_key_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError):
        parse_public(data, "k")
