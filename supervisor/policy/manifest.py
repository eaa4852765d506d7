"""The agent manifest: what an agent is, who answers for it, and the most it may ever ask for. Pure.

`parse` reads the payload of a verified envelope. The field names are the published schema's (``manifest.schema.json``);
the digest is of the bytes as received. Who signed is `identity`'s matter; `check_signers` holds it against what the
manifest says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from supervisor import strict_json
from supervisor.errors import RefusedError, UsageError
from supervisor.policy.capability import Capability, Kind, Level
from supervisor.policy.manifest_schema import SCHEMA_STEP, place, problems
from supervisor.policy.selector import capability_covers
from supervisor.timestamp import format_utc, parse_utc

PAYLOAD_TYPE: Final = "application/vnd.deskwarden.agent-manifest+json"
MAX_MANIFEST_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Owner:
    """Who answers for the agent on this machine."""

    user: str
    team: str = ""


@dataclass(frozen=True, slots=True)
class Binary:
    """A program of the agent's, known by its content."""

    path: str
    sha256: str
    fsverity: str = ""
    sigstore_bundle_ref: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the agent's; *sha256* is of the model's own manifest of files."""

    name: str
    sha256: str
    model_signature_ref: str = ""
    predicate_type: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One capability that may be asked for.

    Attributes:
        id: As written; ``egress[0]`` and ``calls[0]`` are those lists' entries.
        label_max: The most sensitive data that it may be given.
    """

    id: str
    capability: Capability
    label_max: Level
    justification: str


@dataclass(frozen=True, slots=True)
class Egress:
    """A host that may be reached."""

    host: str
    port: int
    proto: str = "tcp"
    sni_pin: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """An agent that may be started, and how many levels may lie below."""

    agent: str
    max_depth: int
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Rollback:
    """How what it did is taken back."""

    kind: str = "none"
    ref: str = ""


@dataclass(frozen=True, slots=True)
class Attestation:
    """A statement about the agent that lies elsewhere."""

    predicate_type: str
    ref: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read. *purpose* and each *justification* are untrusted text.

    Attributes:
        agent_key: A JSON Web Key by member, empty when it has none.
        not_before: Seconds since 1970; *expires* is the first second that is too late.
        prev_digest: Empty for the first.
        digest: ``sha256:…`` of the bytes as received.
    """

    schema: str
    name: str
    version: str
    class_claim: str
    publisher: str
    owner: Owner
    agent_key: tuple[tuple[str, str], ...]
    binaries: tuple[Binary, ...]
    models: tuple[Model, ...]
    capabilities: tuple[Entry, ...]
    roles: tuple[str, ...]
    duration_max_s: int
    egress: tuple[Egress, ...]
    calls: tuple[Call, ...]
    data_labels: tuple[str, ...]
    rollback: Rollback
    purpose: str
    attestations: tuple[Attestation, ...]
    not_before: int
    expires: int
    prev_digest: str
    seq: int
    digest: str

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that may be asked for: the capabilities, then hosts and agents, these for public data."""
        hosts = (
            Entry(f"egress[{index}]", Capability(Kind.NETWORK, f"{to.host}:{to.port}", ("connect",)), Level.PUBLIC, "")
            for index, to in enumerate(self.egress)
        )
        agents = (
            Entry(f"calls[{index}]", Capability(Kind.AGENT, call.agent, ("spawn",)), Level.PUBLIC, "")
            for index, call in enumerate(self.calls)
        )
        return (*self.capabilities, *hosts, *agents)


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest manifest that was accepted for one publisher and name."""

    seq: int
    digest: str


def parse(payload: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        UsageError: It is no strict JSON, does not fit the schema, or holds a selector that is not canonical, by its
            place.
    """
    value = strict_json.parse(payload, MAX_MANIFEST_BYTES, "manifest")
    for where, text in problems(value):
        raise UsageError(f"manifest: {place(where)}: {text}", SCHEMA_STEP)
    return _built(value, strict_json.digest_of(payload))


def covering(manifest: Manifest, capability: Capability) -> Entry | None:
    """Return the entry that *capability* is a part of; with several, the one that allows the most sensitive data.

    The parts of two entries are not put together.
    """
    found = [entry for entry in manifest.entries if capability_covers(entry.capability, capability)]
    return max(found, key=lambda entry: entry.label_max, default=None)


def check_time(manifest: Manifest, now_s: int) -> None:
    """Refuse a manifest that is not valid at *now_s*.

    Raises:
        RefusedError: Too early or too late.
    """
    if now_s < manifest.not_before:
        raise RefusedError(
            f"the manifest of {manifest.name} is valid from {format_utc(manifest.not_before)}, "
            f"now is {format_utc(now_s)}",
            "wait, or check the clock",
        )
    if now_s >= manifest.expires:
        raise RefusedError(
            f"the manifest of {manifest.name} expired at {format_utc(manifest.expires)}, now is {format_utc(now_s)}",
            f"ask {manifest.publisher} for number {manifest.seq + 1}",
        )


def check_sequence(new: Manifest, highest_seen: Seen | None) -> None:
    """Refuse a step back, a second manifest with one number, and a gap.

    The first manifest of a publisher and name that a machine meets may have any number; the same one may come again.

    Raises:
        RefusedError: Not the one seen, nor its successor.
    """
    if highest_seen is None or (new.seq, new.digest) == (highest_seen.seq, highest_seen.digest):
        return
    seen, name = highest_seen.seq, new.name
    if new.seq < seen:
        raise RefusedError(
            f"{name}: number {new.seq}, but number {seen} was accepted: a step back", "use the newer one"
        )
    if new.seq == seen:
        raise RefusedError(
            f"{name}: another manifest with number {seen} was accepted ({highest_seen.digest}, this is {new.digest})",
            f"let {new.publisher} sign the change as number {seen + 1}",
        )
    if new.seq > seen + 1:
        raise RefusedError(
            f"{name}: number {new.seq}, but {seen} was the last accepted, want {seen + 1}",
            "hand over those between, in order",
        )
    if new.prev_digest != highest_seen.digest:
        raise RefusedError(
            f"{name}: number {new.seq} follows {new.prev_digest}, but {highest_seen.digest} was accepted",
            f"ask {new.publisher} which of the two is theirs",
        )


def check_signers(manifest: Manifest, signed_as: Mapping[str, str]) -> None:
    """Refuse signatures by others than the manifest names: a trusted publisher may sign for itself only.

    Args:
        signed_as: Role (``publisher``, ``owner``, ``agent``) → name of the key that filled it.

    Raises:
        RefusedError: Another name.
    """
    named = {"publisher": manifest.publisher, "owner": manifest.owner.user, "agent": manifest.name}
    for role, name in signed_as.items():
        if name != named[role]:
            raise RefusedError(
                f"it names {named[role]} as {role}, but {name} signed as that", f"let {named[role]} sign"
            )


def _built(value: Mapping[str, Any], digest: str) -> Manifest:
    simple = {name: value[name] for name in ("schema", "name", "version", "class_claim", "publisher", "purpose")}
    return Manifest(
        **simple,
        owner=Owner(**value["owner"]),
        agent_key=tuple(sorted(value.get("agent_key", {}).items())),
        binaries=tuple(Binary(**one) for one in value.get("binaries", ())),
        models=tuple(Model(**_snake(one)) for one in value.get("models", ())),
        capabilities=tuple(_entry(one) for one in value["capabilities"]),
        roles=tuple(value.get("roles", ())),
        duration_max_s=value["duration_max_s"],
        egress=tuple(Egress(**one) for one in value.get("egress", ())),
        calls=tuple(Call(**one) for one in value.get("calls", ())),
        data_labels=tuple(value.get("data_labels", ())),
        rollback=Rollback(**value.get("rollback", {})),
        attestations=tuple(Attestation(**_snake(one)) for one in value.get("attestations", ())),
        not_before=parse_utc(value["not_before"]),
        expires=parse_utc(value["expires"]),
        prev_digest=value.get("prev_digest", ""),
        seq=value["seq"],
        digest=digest,
    )


def _snake(value: Mapping[str, str]) -> dict[str, str]:
    """Return *value* with in-toto's ``predicateType`` under the name of our attribute."""
    return {"predicate_type" if name == "predicateType" else name: text for name, text in value.items()}


def _entry(value: Mapping[str, Any]) -> Entry:
    capability = Capability(Kind(value["kind"]), value["selector"], tuple(sorted(value["ops"])))
    return Entry(value["id"], capability, Level.of(value.get("label_max", "internal")), value["justification"])
