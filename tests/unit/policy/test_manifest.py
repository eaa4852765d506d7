"""Manifests: what is read, what is refused and by which name, and what follows what."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis.strategies import booleans, dictionaries, integers, lists, none, recursive, sampled_from, text

from supervisor import strict_json
from supervisor.errors import RefusedError, UsageError
from supervisor.policy.capability import Capability, Kind, Level
from supervisor.policy.manifest import (
    Seen,
    check_sequence,
    check_signers,
    check_time,
    covering,
    parse,
)
from supervisor.policy.manifest_schema import schema
from supervisor.timestamp import parse_utc
from tests.unit.policy.manifests import BASE, DIGEST, capability, document, payload


def test_a_manifest_is_read_whole() -> None:
    manifest = parse(
        payload(
            agent_key={"kty": "OKP", "crv": "Ed25519", "x": "A" * 43},
            binaries=[{"path": "/usr/bin/sheet", "sha256": "0" * 64, "fsverity": DIGEST}],
            models=[{"name": "m", "sha256": "1" * 64, "predicateType": "https://model_signing/signature/v1.0"}],
            roles=["agent-viewer", "agent-editor:team-finance:low-trust"],
            egress=[{"host": "*.example.com", "port": 443}],
            calls=[{"agent": "helper", "max_depth": 1}],
            data_labels=["payment-card"],
            rollback={"kind": "workspace"},
            attestations=[{"predicateType": "https://slsa.dev/provenance/v1", "ref": "https://a.example/p"}],
            seq=2,
            prev_digest=DIGEST,
        )
    )
    assert manifest.owner.team == "finance"
    assert manifest.capabilities[0].capability == Capability(Kind.FILE, "/home/alice/finance/**", ("read", "write"))
    assert manifest.capabilities[0].label_max is Level.CONFIDENTIAL
    assert manifest.models[0].predicate_type == "https://model_signing/signature/v1.0"
    assert manifest.attestations[0].predicate_type == "https://slsa.dev/provenance/v1"
    assert dict(manifest.agent_key)["crv"] == "Ed25519"
    assert [entry.id for entry in manifest.entries] == ["reports", "egress[0]", "calls[0]"]
    assert manifest.expires == parse_utc("2026-04-01T00:00:00Z")


def test_the_digest_is_of_the_bytes_as_received() -> None:
    spaced = json.dumps(document(), indent=2).encode()
    assert parse(spaced).digest == strict_json.digest_of(spaced)
    assert parse(spaced).digest != parse(payload()).digest


def test_the_published_schema_is_a_schema_and_closed_everywhere() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())

    def open_objects(value: Any, where: str) -> list[str]:
        if isinstance(value, list):
            return [found for index, item in enumerate(value) for found in open_objects(item, f"{where}[{index}]")]
        if not isinstance(value, dict):
            return []
        found = [name for key, item in value.items() for name in open_objects(item, f"{where}.{key}")]
        is_open = value.get("type") == "object" and value.get("additionalProperties") is not False
        return [where, *found] if is_open else found

    assert open_objects(schema(), "") == []


def raw(field: str, text: str) -> bytes:
    """Return a manifest in which *field* is written as *text*."""
    return payload(**{field: "MARK"}).replace(b'"MARK"', text.encode())


HOSTILE = {
    "not json": (b"{", "Expecting"),
    "a list": (b"[]", "want type"),
    "a key twice": (payload()[:-1] + b',"seq":2}', "'seq' stands twice"),
    "a key twice inside": (raw("owner", '{"user":"alice","user":"root"}'), "'user' stands twice"),
    "a key twice by escapes": (raw("owner", '{"user":"alice","\\u0075ser":"root"}'), "'user' stands twice"),
    "nested 1000 deep": (raw("purpose", "[" * 1000 + "]" * 1000), "nested"),
    "nested 100000 deep": (raw("purpose", "[" * 100_000 + "]" * 100_000), "nested"),
    "infinite number": (raw("seq", "1e400"), "whole number"),
    "infinity": (raw("duration_max_s", "Infinity"), "whole number"),
    "not a number": (raw("duration_max_s", "NaN"), "whole number"),
    "fraction": (raw("duration_max_s", "1200.0"), "whole number"),
    "number beyond 2**53": (raw("seq", str(2**53)), "whole number"),
    "number of 10000 digits": (raw("seq", "1" * 10_000), "whole number"),
    "number as text": (payload(duration_max_s="99999"), "duration_max_s: '99999': want type"),
    "number as truth": (payload(seq=True), "seq: True: want type"),
    "null": (raw("duration_max_s", "null"), "duration_max_s: None"),
    "zero seconds": (payload(duration_max_s=0), "want minimum 1"),
    "a month and more": (payload(duration_max_s=2592001), "want maximum 2592000"),
    "unknown field": (payload(admin=True), "admin: unknown field; known are: agent_key"),
    "unknown field with an escape": (payload(**{"\x1b[2J": 1}), r"\\x1b\[2J: unknown field"),
    "unknown field inside": (
        payload(owner={"user": "alice", "uid": 0}),
        "owner.uid: unknown field; known are: team, user",
    ),
    "unknown field of a capability": (
        payload(capabilities=[capability(allow=True)]),
        r"capabilities\[0\].allow: unknown field",
    ),
    "missing field": (payload(expires=None), "missing: expires"),
    "another schema": (payload(schema="deskwarden.manifest/2"), "schema: 'deskwarden.manifest/2'"),
    "name with a newline": (payload(name="sheet\n"), "name: "),
    "name with a path": (payload(name="../sheet"), "name: "),
    "name in other letters": (payload(name="sh\u0435et"), "name: "),
    "publisher with a newline": (payload(publisher="acme\n"), "publisher: "),
    "version with a newline": (payload(version="1.0.0\n"), "version: "),
    "version of two": (payload(version="1.0"), "version: "),
    "digest with a newline": (payload(seq=2, prev_digest=DIGEST + "\n"), "prev_digest: "),
    "another class": (payload(class_claim="root"), "class_claim: "),
    "another kind": (payload(capabilities=[capability(kind="clipboard")]), r"capabilities\[0\].kind: 'clipboard'"),
    "another level": (payload(capabilities=[capability(label_max="secret")]), "label_max"),
    "operation of another kind": (payload(capabilities=[capability(ops=["run"])]), "run is no operation on file"),
    "no operation": (payload(capabilities=[capability(ops=[])]), "ops"),
    "operation twice": (payload(capabilities=[capability(ops=["read", "read"])]), "ops"),
    "one id twice": (payload(capabilities=[capability(), capability()]), "the id reports stands twice"),
    "without a reason": (payload(capabilities=[capability(justification="")]), "justification"),
    "role of another form": (payload(roles=["root"]), r"roles\[0\]"),
    "NUL": (payload(capabilities=[capability(selector="/a\0/b")]), r"capabilities\[0\].selector: .*U\+0000"),
    "parent": (payload(capabilities=[capability(selector="/a/../etc/**")]), "the name .."),
    "bidi": (payload(capabilities=[capability(selector="/a/\u202ex")]), "U.202E"),
    "decomposed twin": (payload(capabilities=[capability(selector="/a/cafe\u0301")]), "NFC"),
    "home": (payload(capabilities=[capability(selector="~/x")]), "not expanded here"),
    "variable": (payload(capabilities=[capability(selector="/home/$USER")]), "not expanded"),
    "half a surrogate": (raw("purpose", '"a purpose \\ud800 of it"'), "surrogates"),
    "program by a pattern": (payload(binaries=[{"path": "/usr/bin/*", "sha256": "0" * 64}]), "no pattern"),
    "digest in capitals": (payload(binaries=[{"path": "/usr/bin/x", "sha256": "A" * 64}]), "sha256"),
    "host in capitals": (payload(egress=[{"host": "A.example", "port": 1}]), r"egress\[0\].host"),
    "host with a port": (payload(egress=[{"host": "a.example:1", "port": 1}]), r"egress\[0\].host"),
    "pinned name of another form": (payload(egress=[{"host": "a.example", "port": 1, "sni_pin": "-"}]), "sni_pin"),
    "udp": (payload(egress=[{"host": "a.example", "port": 1, "proto": "udp"}]), "proto"),
    "call of every agent": (payload(calls=[{"agent": "*", "max_depth": 1}]), r"calls\[0\].agent"),
    "call without end": (payload(calls=[{"agent": "a", "max_depth": 9}]), "max_depth"),
    "private key": (payload(agent_key={"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "d": "A" * 43}), "agent_key"),
    "no such day": (payload(expires="2026-02-30T00:00:00Z"), "expires: .*want a time"),
    "expires before it starts": (payload(expires="2026-01-01T00:00:00Z"), "after not_before"),
    "a first with a predecessor": (payload(prev_digest=DIGEST), "number 1 has no prev_digest"),
    "a second without": (payload(seq=2), "number 1 has no prev_digest"),
    "large": (payload(purpose="x" * 300_000), "at most 262144 are read"),
    "utf-16": (json.dumps(document()).encode("utf-16"), "utf-8"),
}


@pytest.mark.parametrize(("data", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_manifest_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        parse(data)
    assert refused.value.message.startswith("manifest: ")
    assert len(refused.value.message) < 1000
    assert refused.value.message.isascii()


anything = recursive(
    none() | booleans() | integers(-1, 2**53) | text(max_size=5) | sampled_from(["/a", "read", "*", "a", DIGEST]),
    lambda inner: lists(inner, max_size=3) | dictionaries(sampled_from(["id", "kind", "ops", "x"]), inner, max_size=3),
    max_leaves=6,
)


@given(dictionaries(sampled_from([*BASE, *schema()["properties"]]), anything, max_size=4))
def test_whatever_stands_in_a_field_it_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        data = json.dumps(BASE | fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    with contextlib.suppress(UsageError):
        assert parse(data).digest == strict_json.digest_of(data)


def manifest(**fields: Any) -> Any:
    return parse(payload(**fields))


def test_covering_finds_the_entry_that_allows_the_most_and_adds_nothing_together() -> None:
    found = manifest(
        capabilities=[
            capability(id="all", selector="/w/**", ops=["read"], label_max="internal"),
            capability(id="part", selector="/w/q*", ops=["read"], label_max="restricted"),
            capability(id="write", selector="/w/out/**", ops=["write"]),
        ],
        egress=[{"host": "*.example.com", "port": 443}],
        calls=[{"agent": "helper", "max_depth": 1}],
    )

    def entry(kind: Kind, selector: str, *operations: str) -> str:
        covered = covering(found, Capability(kind, selector, operations))
        return covered.id if covered else ""

    assert entry(Kind.FILE, "/w/a", "read") == "all"
    assert entry(Kind.FILE, "/w/q1", "read") == "part"
    assert entry(Kind.FILE, "/w/out/x", "read", "write") == ""
    assert entry(Kind.FILE, "/**", "read") == ""
    assert entry(Kind.EXEC, "/w/a", "run") == ""
    assert entry(Kind.NETWORK, "api.example.com:443", "connect") == "egress[0]"
    assert entry(Kind.AGENT, "helper", "spawn") == "calls[0]"
    assert entry(Kind.AGENT, "other", "spawn") == ""


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ("2025-12-31T23:59:59Z", "valid from 2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", ""),
        ("2026-03-31T23:59:59Z", ""),
        ("2026-04-01T00:00:00Z", "expired at 2026-04-01T00:00:00Z"),
    ],
)
def test_a_manifest_is_valid_from_its_first_second_to_its_last(now: str, reason: str) -> None:
    if not reason:
        check_time(manifest(), parse_utc(now))
        return
    with pytest.raises(RefusedError, match=reason):
        check_time(manifest(), parse_utc(now))


FIFTH = manifest(seq=5, prev_digest=DIGEST)
SEEN = Seen(5, FIFTH.digest)


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (FIFTH, ""),
        (manifest(seq=6, prev_digest=FIFTH.digest), ""),
        (manifest(seq=4, prev_digest=DIGEST), "a step back"),
        (manifest(), "a step back"),
        (manifest(seq=5, prev_digest=DIGEST, version="1.4.1"), "another manifest with number 5"),
        (manifest(seq=6, prev_digest=DIGEST), "follows sha256:abab"),
        (manifest(seq=7, prev_digest=FIFTH.digest), "want 6"),
    ],
    ids=["the same", "successor", "older", "first", "twin", "of another line", "gap"],
)
def test_sequence(new: Any, reason: str) -> None:
    check_sequence(new, None)
    if not reason:
        check_sequence(new, SEEN)
        return
    with pytest.raises(RefusedError, match=reason) as refused:
        check_sequence(new, SEEN)
    assert refused.value.next_step


def test_a_trusted_publisher_signs_for_itself_only() -> None:
    check_signers(manifest(), {"publisher": "acme", "owner": "alice", "agent": "sheet"})
    for role, named in (("publisher", "acme"), ("owner", "alice"), ("agent", "sheet")):
        with pytest.raises(RefusedError, match=f"names {named} as {role}, but mallory signed"):
            check_signers(manifest(), {role: "mallory"})
