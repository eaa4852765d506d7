"""What stands behind an agent: its manifest and who signed it; or, for what an owner just runs, the owner's consent."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor import strict_json
from supervisor.plain_text import escape_text
from supervisor.policy.capability import Capability
from supervisor.policy.facts import AgentClass
from supervisor.policy.manifest import Entry, Manifest, covering, parse
from supervisor.policy.profile_manifest import agent_name, identity
from supervisor.timestamp import format_utc

# As long as policy gives at most; the consent is given anew with each run.
CONSENT_S = 8 * 3600


@dataclass(frozen=True, slots=True)
class Standing:
    """A manifest and the roles of its verified signatures: ``publisher``, ``owner``, ``agent``.

    Attributes:
        agent_class: What the agent is, by what was verified; never above what the manifest claims.
        managed: Whether the machine's own keys know the publisher, not only the owner's.
        consented: Whether the owner agreed to this manifest: by signature, or on the card.
    """

    manifest: Manifest
    signed_by: tuple[str, ...]
    agent_class: AgentClass = "user-owned"
    managed: bool = False
    consented: bool = True

    def entry_for(self, capability: Capability) -> Entry | None:
        """Return the manifest's entry that covers *capability*, or None."""
        return covering(self.manifest, capability)


def describe(standing: Standing) -> list[str]:
    """Return in words what stands behind an agent, for a dry run and for the card."""
    manifest = standing.manifest
    signed = f"signed by {', '.join(standing.signed_by)}" if standing.signed_by else "not signed"
    lines = [f"agent: {manifest.name} {manifest.version}, {standing.agent_class}, {signed}, {manifest.digest}"]
    lines += [f"program: {escape_text(one.path)} with SHA-256 {one.sha256}" for one in manifest.binaries]
    if manifest.roles:
        lines.append(f"roles: {', '.join(manifest.roles)}")
    for entry in manifest.entries:
        what = f"{' and '.join(entry.capability.operations)} {escape_text(entry.capability.selector)}"
        lines.append(f"may ask for: {entry.capability.kind} {what}, data up to {entry.label_max.word}")
    return lines if manifest.entries else [*lines, "may ask for: nothing beforehand; each request is a question"]


def consent(name: str, owner: str, now_s: int) -> Standing:
    """Return what a run without a manifest stands on: it declares nothing, so each request is a question."""
    document = {
        "schema": "deskwarden.manifest/1",
        "name": agent_name(name),
        "version": "0.0.0",
        "class_claim": "user-owned",
        "publisher": identity(owner),
        "owner": {"user": identity(owner)},
        "capabilities": [],
        "duration_max_s": CONSENT_S,
        "purpose": "started by its owner, without a manifest",
        "not_before": format_utc(now_s),
        "expires": format_utc(now_s + CONSENT_S),
        "seq": 1,
    }
    return Standing(parse(strict_json.canonical(document)), ())
