"""The keys that secrets are sealed with: one data key per owner, itself sealed. Where it is kept is a `Keys`.

`FileKeys` is what works on every machine: files of the daemon's account, bound to this installation by its machine-id.
It protects a stolen copy of the secrets alone (a backup of the database, a leaked page), other accounts, and every
sandbox. It does not protect from root, from whoever holds the whole disk unencrypted, or, rootless, from anything that
runs as the owner outside a sandbox: the daemon opens the files without a passphrase, so can they.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from supervisor.errors import ServiceError

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # NIST SP 800-38D, 8.2
_MACHINE_ID: Final = "/etc/machine-id"


class Keys(Protocol):
    """Keeps the data key of each owner; made when it is first asked for."""

    kind: str

    def key_of(self, owner_uid: int) -> bytearray:
        """Return the key, the caller's to overwrite.

        Raises:
            ServiceError: It cannot be had.
        """


class FileKeys:
    """Implements `Keys` with files (0600) in a directory (0700) of the daemon's.

    Args:
        directory: Made when it is not there.
        machine_id: The file that names this installation.
    """

    kind = "file"

    def __init__(self, directory: str, machine_id: str = _MACHINE_ID) -> None:
        self._directory = directory
        self._machine_id = machine_id

    def key_of(self, owner_uid: int) -> bytearray:
        """Return the owner's data key; see `Keys`."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._directory, 0o700)
        machine = AESGCM(self._machine_key())
        about = f"deskwarden data key of {owner_uid}".encode()
        path = f"{self._directory}/{owner_uid}.key"
        sealed = _read(path)
        if sealed is None:
            nonce = os.urandom(_NONCE_BYTES)
            _create(path, nonce + machine.encrypt(nonce, AESGCM.generate_key(8 * _KEY_BYTES), about))
            sealed = _read(path) or b""
        try:
            return bytearray(machine.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about))
        except (InvalidTag, ValueError):
            raise ServiceError(
                f"{path}: was not sealed on this machine, or was changed",
                "move it and the secrets away, and set them again: deskwarden secret set NAME",
            ) from None

    def _machine_key(self) -> bytes:
        path = f"{self._directory}/machine.key"
        own = _read(path)
        if own is None:
            _create(path, os.urandom(_KEY_BYTES))
            own = _read(path)
        if own is None or len(own) != _KEY_BYTES:
            raise ServiceError(f"{path}: {len(own or b'')} bytes, want {_KEY_BYTES}", "restore it from a backup")
        return HKDF(SHA256(), _KEY_BYTES, _read(self._machine_id), b"deskwarden machine key").derive(own)


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        return file.read(4096)


def _create(path: str, data: bytes) -> None:
    """Write a new file whole or not at all; one that came first stays."""
    made = f"{path}.{os.urandom(4).hex()}"
    fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(made, path)
    finally:
        os.unlink(made)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
