"""Where the policy comes from: the managed directory when root has put one there, else what comes with the product.

Below ``policies/managed/`` of the configuration, all of it root's own::

    policy/           the bundle, with .signatures.json when it is signed
    policy-keys/*.json  keys that may sign it (role publisher); one is enough to require a signature
    policy.json       {"require_signature": true, "least_signatures": 2}
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from supervisor import strict_json
from supervisor.errors import DeskwardenError, RefusedError, UsageError
from supervisor.identity.bundle_signature import digests_of, verify_bundle
from supervisor.identity.trust import MAX_KEYS, TrustedKey, parse_trusted_key
from supervisor.policy.bundle_source import SIGNATURES_FILE, Bundle, parse_bundle, read_files, read_own_file

PACKAGED: Final = "packaged"
MAX_SETTINGS_BYTES: Final = 16 << 10
_SETTINGS: Final = "policy.json"
# How the kernel shows root, and everybody else who is not mapped, in a user namespace (proc_sys_kernel(5)).
OVERFLOW_UID: Final = 65534


@dataclass(frozen=True, slots=True)
class Found:
    """A bundle and its standing.

    Attributes:
        source: Its directory, or ``packaged``.
        seq: Of its signature; 0 without one. *expires_s*: its end, 0 without.
    """

    bundle: Bundle
    source: str
    seq: int = 0
    expires_s: int = 0
    signers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """What a managed bundle needs before it may decide."""

    keys: tuple[TrustedKey, ...]
    least: int


class PolicySource:
    """Finds the policy that holds now.

    Args:
        managed: ``policies/managed`` of the configuration.
        packaged: Read while the files of the product could still be.
        owner: Root's uid, as this process sees it.
    """

    def __init__(self, managed: str, packaged: Bundle, owner: int) -> None:
        self.managed = managed
        self.directory = f"{managed}/policy"
        self._packaged = packaged
        self._owner = owner

    def find(self, now_s: int) -> Found:
        """Return it; blocks.

        Raises:
            DeskwardenError: What is managed is broken, not root's alone, or not signed as it must be.
        """
        if not os.path.lexists(self.directory):
            return Found(self._packaged, PACKAGED)
        files = read_files(self.directory, self._owner)
        envelope = files.pop(SIGNATURES_FILE, None)
        demand = self._demand()
        bundle = parse_bundle(self.directory, files)
        if demand is None:
            return Found(bundle, self.directory)
        if envelope is None:
            raise RefusedError(f"{self.directory}: nobody has signed it", "deskwarden policy sign DIR --key FILE")
        try:
            signed = verify_bundle(envelope, digests_of(files), demand.keys, demand.least, now_s)
        except DeskwardenError as error:
            raise RefusedError(f"{self.directory}: {error.message}", error.next_step) from error
        statement = signed.statement
        if statement.revision != bundle.revision:
            raise RefusedError(f"{self.directory}: signed is revision {statement.revision}, these files are another")
        return Found(bundle, self.directory, statement.seq, statement.expires_s, signed.signers)

    def _demand(self) -> Demand | None:
        """Return who has to have signed; None when nobody has to."""
        keys = [
            parse_trusted_key(data, path) for path, data in self._own_files(f"{self.managed}/policy-keys", MAX_KEYS)
        ]
        settings = self._settings()
        required = settings.get("require_signature", bool(keys))
        least = settings.get("least_signatures", 1)
        if type(required) is not bool or type(least) is not int or not 1 <= least <= MAX_KEYS:
            raise UsageError(
                f"{self.managed}/{_SETTINGS}: want require_signature true or false, least_signatures from 1"
            )
        return Demand(tuple(keys), least) if required or keys else None

    def _settings(self) -> dict[str, Any]:
        path = f"{self.managed}/{_SETTINGS}"
        if not os.path.lexists(path):
            return {}
        data = read_own_file(self.managed, _SETTINGS, MAX_SETTINGS_BYTES, self._owner)
        value = strict_json.parse(data, MAX_SETTINGS_BYTES, path)
        if not isinstance(value, dict) or not value.keys() <= {"require_signature", "least_signatures"}:
            raise UsageError(f"{path}: want require_signature and least_signatures, nothing else", "correct it")
        return value

    def _own_files(self, directory: str, most: int) -> Iterator[tuple[str, bytes]]:
        try:
            names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"{directory}: {error.strerror}") from error
        if len(names) > most:
            raise UsageError(f"{directory}: {len(names)} files, at most {most} are read")
        for name in names:
            yield f"{directory}/{name}", read_own_file(directory, name, MAX_SETTINGS_BYTES, self._owner)


def root_as_seen() -> int:
    """Return by which uid files of the machine's root show to this process (user_namespaces(7))."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        spans = [tuple(map(int, line.split())) for line in file]
    return next((inside for inside, outside, _count in spans if outside == 0), OVERFLOW_UID)
