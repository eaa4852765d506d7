"""What a person signs when they vote by key: the answer, and the digests of exactly what it is given to."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from supervisor import strict_json
from supervisor.broker.vote import Answer, Narrowing
from supervisor.errors import UsageError
from supervisor.timestamp import format_utc, parse_utc

SCHEMA: Final = "deskwarden.vote/1"
MAX_BYTES: Final = 8 * 1024
MAX_JUSTIFICATION: Final = 1000
LONGEST_S: Final = 366 * 86400

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_ID: Final = re.compile(r"[a-z0-9-]{1,64}")
_FIELDS: Final = frozenset(
    ("schema", "request_id", "request_digest", "shown_digest", "answer", "narrowing", "justification", "at")
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One answer, before it is signed or after. *at_s*: seconds since 1970."""

    request_id: str
    request_digest: str
    shown_digest: str
    answer: Answer
    narrowing: Narrowing
    justification: str
    at_s: int

    def to_bytes(self) -> bytes:
        """Return the payload that is signed."""
        value: dict[str, Any] = asdict(self)
        del value["at_s"]
        return strict_json.canonical({**value, "schema": SCHEMA, "at": format_utc(self.at_s)})


def parse_statement(payload: bytes) -> Statement:
    """Read a payload whose signature was verified; strictly, since a field that is passed over was signed for nothing.

    Raises:
        UsageError: It is no vote, by the field that is wrong.
    """
    value = strict_json.parse(payload, MAX_BYTES, "vote")
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise UsageError(f"vote: want the fields {', '.join(sorted(_FIELDS))} and no others")
    texts = _FIELDS - {"narrowing"}
    if not all(isinstance(value[name], str) for name in texts) or value["schema"] != SCHEMA:
        raise UsageError(f"vote: want texts, and the schema {SCHEMA}")
    if not _ID.fullmatch(value["request_id"]):
        raise UsageError("vote: request_id: want the id of a request")
    for name in ("request_digest", "shown_digest"):
        if not _DIGEST.fullmatch(value[name]):
            raise UsageError(f"vote: {name}: want sha256:…")
    if value["answer"] not in set(Answer):
        raise UsageError(f"vote: answer {value['answer'][:20]!a}: want one of {', '.join(Answer)}")
    if len(value["justification"]) > MAX_JUSTIFICATION:
        raise UsageError(f"vote: justification: at most {MAX_JUSTIFICATION} characters")
    return Statement(
        value["request_id"],
        value["request_digest"],
        value["shown_digest"],
        Answer(value["answer"]),
        _narrowing(value["narrowing"]),
        value["justification"],
        parse_utc(value["at"]),
    )


def _narrowing(value: Any) -> Narrowing:
    if not isinstance(value, dict) or value.keys() != {"read_only", "duration_s"}:
        raise UsageError("vote: narrowing: want read_only and duration_s")
    read_only, duration_s = value["read_only"], value["duration_s"]
    if type(read_only) is not bool or type(duration_s) is not int or not 0 <= duration_s <= LONGEST_S:
        raise UsageError(f"vote: narrowing: want true or false, and 0 to {LONGEST_S} s")
    return Narrowing(read_only, duration_s)
