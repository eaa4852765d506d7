"""The document that policy decides on: built from values, checked against its published schema, one form of bytes."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from supervisor.policy.facts import Facts
from supervisor.policy.request import CapabilityRequest
from supervisor.policy.shape import Check, compile_schema

SCHEMA_VERSION: Final = 1


def document_of(request: CapabilityRequest, facts: Facts) -> dict[str, Any]:
    """Return the input document. The agent's own words (purpose, reason) are not in it: no rule may depend on them."""
    resource, manifest = request.resource, facts.manifest
    return {
        "schema": SCHEMA_VERSION,
        "now": facts.now_s,
        "request": {
            "id": request.id,
            "kind": str(request.capability.kind),
            "selector": resource.selector,
            "operations": list(request.capability.operations),
            "duration_s": request.duration_s,
            "uses": request.uses,
            "launch": facts.launch,
        },
        "resource": {
            "level": resource.level.word,
            "classes": list(resource.classes),
            "complete": resource.complete,
            "files": len(resource.items),
            "bytes": sum(item.size_bytes for item in resource.items),
        },
        "agent": {
            "id": request.agent,
            "class": facts.agent_class,
            "manifest": {
                "digest": manifest.digest,
                "signed_by": list(manifest.signed_by),
                "covers": manifest.covers,
                "capability": manifest.capability,
                "level_max": manifest.level_max.word,
                "duration_max_s": manifest.duration_max_s,
            },
        },
        "role": asdict(facts.role),
        "owner": asdict(facts.owner),
        "rule": {"answer": facts.rule_answer},
        "posture": asdict(facts.posture),
        "history": {"asked": facts.asked, "denied": facts.denied},
        "chain": asdict(facts.chain),
        "ceiling": {"asking": facts.asking, "always": facts.always},
    }


def encode(document: dict[str, Any]) -> bytes:
    """Return the bytes that are decided on and whose digest is recorded.

    The same as RFC 8785 for what the schema lets through (ASCII keys, whole numbers, text), at a tenth of its time.
    """
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def read_schema(name: str) -> dict[str, Any]:
    """Return a published schema: ``input`` or ``result``."""
    value: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.schema.json").read_bytes())
    return value


@functools.cache
def input_check() -> Check:
    """Return the check of an input document; it raises ValueError."""
    return compile_schema(read_schema("input"))


@functools.cache
def result_checks() -> dict[str, Check]:
    """Return effect → the check of a result with that effect."""
    schema = read_schema("result")
    return {effect: compile_schema(body, schema["$defs"]) for effect, body in schema["$defs"]["effects"].items()}
