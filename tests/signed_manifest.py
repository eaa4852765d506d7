"""Manifests signed with real keys by `deskwarden manifest sign --new-key`, trusted by the owner of a service."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from supervisor import strict_json
from tests.service import Service


def owner_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def document(**fields: Any) -> dict[str, Any]:
    """Return a manifest's document; None leaves a field out."""
    value: dict[str, Any] = {
        "schema": "deskwarden.manifest/1",
        "name": "sheet",
        "version": "1.0.0",
        "class_claim": "user-owned",
        "publisher": "acme",
        "owner": {"user": owner_name()},
        "purpose": "Sums up the quarter's reports.",
        "capabilities": [],
        "duration_max_s": 600,
        "not_before": "2020-01-01T00:00:00Z",
        "expires": "2099-01-01T00:00:00Z",
        "seq": 1,
    }
    return {name: field for name, field in (value | fields).items() if field is not None}


def sha256(path: str | os.PathLike[str]) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def digest(**fields: Any) -> str:
    """Return the digest of what `Signer.sign` signs for these fields."""
    return strict_json.digest_of(strict_json.canonical(document(**fields)))


class Signer:
    """Makes keys and envelopes in a folder of its own."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.folder = folder
        self._count = 0

    def sign(self, signs_as: Iterable[str] = ("owner",), keys: str = "", **fields: Any) -> str:
        """Return the path of an envelope signed in each role of *signs_as*; *keys* tells sets of keys apart."""
        self._count += 1
        source = self.folder / f"m{self._count}.yaml"
        source.write_text(yaml.safe_dump(document(**fields)), encoding="utf-8")
        for role in signs_as:
            key = self.key(role, keys)
            new = [] if os.path.exists(key) else ["--new-key"]
            said = self.service.run("manifest", "sign", str(source), "--key", key, "--role", role, *new)
            assert said.returncode == 0, said
        return str(self.folder / f"m{self._count}.dsse.json")

    def key(self, role: str, keys: str = "") -> str:
        return str(self.folder / f"{keys}{role}.key")

    def trust(self, role: str, keys: str = "") -> Path:
        """Have the owner trust that key; returns the file."""
        directory = Path(self.service.home) / ".config/deskwarden/keys"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = directory / f"test-{os.getpid()}-{self.folder.parent.name}-{keys}{role}.json"
        shutil.copy(f"{self.key(role, keys)}.trust.json", place)
        return place
