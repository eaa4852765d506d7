"""A manifest to change in tests."""

from __future__ import annotations

import json
from typing import Any

DIGEST = "sha256:" + "ab" * 32
BASE: dict[str, Any] = {
    "schema": "deskwarden.manifest/1",
    "name": "sheet",
    "version": "1.4.0",
    "class_claim": "user-owned",
    "publisher": "acme",
    "owner": {"user": "alice", "team": "finance"},
    "purpose": "Sums up the quarter's reports.",
    "capabilities": [
        {
            "id": "reports",
            "kind": "file",
            "selector": "/home/alice/finance/**",
            "ops": ["write", "read"],
            "label_max": "confidential",
            "justification": "The reports lie there.",
        }
    ],
    "duration_max_s": 1200,
    "not_before": "2026-01-01T00:00:00Z",
    "expires": "2026-04-01T00:00:00Z",
    "seq": 1,
}


def document(**fields: Any) -> dict[str, Any]:
    """Return the base with *fields* changed; None leaves one out."""
    value = json.loads(json.dumps(BASE)) | fields
    return {name: field for name, field in value.items() if field is not None}


def payload(**fields: Any) -> bytes:
    return json.dumps(document(**fields)).encode()


def capability(**fields: Any) -> dict[str, Any]:
    return BASE["capabilities"][0] | fields
