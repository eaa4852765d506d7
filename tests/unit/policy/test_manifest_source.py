"""Manifests in YAML: into canonical JSON, with the place of what is wrong."""

from __future__ import annotations

import json

import pytest
import yaml

from supervisor import strict_json
from supervisor.errors import UsageError
from supervisor.policy.manifest import parse
from supervisor.policy.manifest_source import read_manifest, read_source, template
from tests.unit.policy.manifests import document

HOME = "/home/alice"
NOW = 1_800_000_000
TEMPLATE = template("sheet", "alice", "sheet.yaml", NOW)


def read(text: str, home: str = HOME) -> dict[str, object]:
    value: dict[str, object] = json.loads(read_source(text.encode(), "m.yaml", home))
    return value


def test_the_template_is_a_valid_manifest() -> None:
    manifest = read_manifest(TEMPLATE.encode(), "m.yaml", HOME)
    assert manifest.name == "sheet"
    assert manifest.capabilities[0].capability.selector == "/home/alice/work/**"
    assert manifest.not_before == NOW
    assert manifest.expires == NOW + 90 * 86400


def test_every_commented_line_of_the_template_is_valid_when_uncommented() -> None:
    head, _, tail = TEMPLATE.partition("schema: ")
    lines = [
        line if not line.startswith("# ") or line.startswith("# What it may") else line.removeprefix("# ")
        for line in tail.splitlines()
    ]
    text = (head + "schema: " + "\n".join(lines) + "\n").replace("seq: 1 ", "seq: 2 ")
    manifest = read_manifest(text.encode(), "m.yaml", HOME)
    assert [entry.id for entry in manifest.entries] == ["work", "api", "calls[0]"]
    assert manifest.binaries[0].path == "/home/alice/.local/bin/sheet"
    assert manifest.prev_digest
    assert manifest.rollback.kind == "workspace"


def test_what_is_signed_is_the_canonical_form() -> None:
    data = read_source(TEMPLATE.encode(), "m.yaml", HOME)
    assert data == strict_json.canonical(json.loads(data))
    assert parse(data).digest == strict_json.digest_of(data)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("seq: 1", "seq: 1\nseq: 2", r"m\.yaml:44:1: the key 'seq' stands twice"),
        (
            "seq: 1",
            "admin: true\nseq: 1",
            r"m\.yaml:43:8: admin: unknown field; known are",
        ),
        ("~/work/**", "~/work/../x", r"m\.yaml:19:15: capabilities\[0\]\.selector: .*the name \.\."),
        ("~/work/**", "/a//b", r"m\.yaml:19:15: capabilities\[0\]\.selector: .*//"),
        ("~/work/**", '"/a\\0b"', r"m\.yaml:19:15: capabilities\[0\]\.selector: .*U\+0000"),
        ("~/work/**", '"/a\\u202eb"', r"m\.yaml:19:15: capabilities\[0\]\.selector: .*U\+202E"),
        ("~/work/**", "~bob/work", r"m\.yaml:19:15: capabilities\[0\]\.selector: .*~"),
        ("[read]", "[run]", r"m\.yaml:20:10: capabilities\[0\]\.ops: run is no operation on file"),
        ("1200", "20m", r"m\.yaml:\d+:17: duration_max_s: '20m': want type"),
        ("user-owned ", "root ", r"m\.yaml:8:14: class_claim: 'root'"),
        ("seq: 1", "seq: &a 1", r"anchors and aliases"),
        ("seq: 1", "seq: !!python/object/apply:os.system [id]", "tags are not allowed"),
        ("name: sheet", "name: yes please", r"m\.yaml:6:7: name: 'yes please'"),
        ("expires: ", "expires: 1\n#", r"expires: 1: want type"),
    ],
)
def test_a_complaint_has_line_and_column(old: str, new: str, complaint: str) -> None:
    assert TEMPLATE.count(old) >= 1
    with pytest.raises(UsageError, match=complaint):
        read(TEMPLATE.replace(old, new, 1))


def test_only_a_tilde_and_a_slash_at_the_start_of_a_path_are_expanded() -> None:
    value = document(
        capabilities=[{**document()["capabilities"][0], "kind": "net", "selector": "~/x", "ops": ["connect"]}]
    )
    with pytest.raises(UsageError, match="selector"):
        read(yaml.safe_dump(value))


@pytest.mark.parametrize(
    "home", ["", "/", "relative", "/home/*", "/home/../root", "/home/alice/", "/home/a\n", "$HOME"]
)
def test_a_home_that_is_no_path_is_refused(home: str) -> None:
    with pytest.raises(UsageError, match="HOME is"):
        read(TEMPLATE, home)


@pytest.mark.parametrize(
    "text", ["", "[]", "x", "- a", "a: [", "capabilities: 1", "capabilities: [1]", "binaries: [{}]"]
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"m\.yaml:1:\d+: "):
        read(text)
