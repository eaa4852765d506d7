"""Files of `deskwarden manifest`: a manifest in any of its forms; new files, and files replaced whole."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from dataclasses import dataclass
from typing import Final

from supervisor import strict_json
from supervisor.errors import RefusedError, UsageError
from supervisor.identity.dsse import MAX_ENVELOPE_BYTES, Envelope, parse_envelope
from supervisor.policy.manifest import PAYLOAD_TYPE, Manifest, parse
from supervisor.policy.manifest_source import read_source

_ENVELOPE_SUFFIX: Final = ".dsse.json"


@dataclass(frozen=True, slots=True)
class Given:
    """A manifest as given: in YAML, as JSON, or in an envelope."""

    path: str
    payload: bytes
    manifest: Manifest
    envelope: Envelope | None = None

    @property
    def envelope_path(self) -> str:
        """Where its envelope is, or belongs."""
        if self.envelope is not None:
            return self.path
        return re.sub(r"\.(ya?ml|json)$", "", self.path) + _ENVELOPE_SUFFIX


def read_manifest_file(path: str) -> Given:
    """Read a manifest in any of its forms; the signatures are not verified.

    Raises:
        UsageError: It is none of them.
        RefusedError: An envelope of something else.
    """
    data = read_file(path, MAX_ENVELOPE_BYTES)
    if not data.lstrip().startswith(b"{"):
        payload = read_source(data, path, os.path.expanduser("~"))
        return Given(path, payload, parse(payload))
    value = strict_json.parse(data, MAX_ENVELOPE_BYTES, path)
    if "payloadType" not in value:
        return Given(path, data, parse(data))
    envelope = parse_envelope(data, path)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise RefusedError(f"{path}: holds {envelope.payload_type}, want {PAYLOAD_TYPE}", "give a manifest's envelope")
    return Given(path, envelope.payload, parse(envelope.payload), envelope)


def read_file(path: str, limit_bytes: int) -> bytes:
    """Read a regular file of at most *limit_bytes*."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", "deskwarden manifest init NAME writes one to start from"
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"{path}: is no regular file", "give a file")
    with os.fdopen(fd, "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise UsageError(f"{path}: more than {limit_bytes} bytes, no more are read", "give the right file")
    return data


def create_file(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a new file; never over another."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise RefusedError(f"{path} exists already", f"deskwarden manifest check {path}") from error
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}", "check the rights of the directory") from error
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def replace_file(path: str, data: bytes) -> None:
    """Write *path* whole or not at all: a signature there is not lost to a full disk."""
    temporary = f"{path}.{secrets.token_hex(4)}"
    try:
        create_file(temporary, data, 0o644)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
