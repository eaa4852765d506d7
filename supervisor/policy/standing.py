"""What stands behind an agent: its manifest and who signed it; or, for what an owner just runs, the owner's consent."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor import strict_json
from supervisor.policy.capability import Capability
from supervisor.policy.manifest import Entry, Manifest, covering, parse
from supervisor.timestamp import format_utc

# As long as policy gives at most; the consent is given anew with each run.
CONSENT_S = 8 * 3600


@dataclass(frozen=True, slots=True)
class Standing:
    """A manifest and the roles of its verified signatures: ``publisher``, ``owner``, ``agent``."""

    manifest: Manifest
    signed_by: tuple[str, ...]

    def entry_for(self, capability: Capability) -> Entry | None:
        """Return the manifest's entry that covers *capability*, or None."""
        return covering(self.manifest, capability)


def consent(name: str, owner: str, now_s: int) -> Standing:
    """Return what a run without a manifest stands on: it declares nothing, so each request is a question."""
    document = {
        "schema": "deskwarden.manifest/1",
        "name": name,
        "version": "0.0.0",
        "class_claim": "user-owned",
        "publisher": owner,
        "owner": {"user": owner},
        "capabilities": [],
        "duration_max_s": CONSENT_S,
        "purpose": "started by its owner, without a manifest",
        "not_before": format_utc(now_s),
        "expires": format_utc(now_s + CONSENT_S),
        "seq": 1,
    }
    return Standing(parse(strict_json.canonical(document)), ())
