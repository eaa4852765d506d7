"""A vote: one person's answer to exactly one request, as it was shown to them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from supervisor import strict_json
from supervisor.policy.capability import Assurance

PAYLOAD_TYPE = "application/vnd.deskwarden.vote+json"


class Answer(StrEnum):
    """What a person may answer."""

    ONCE = "once"
    SESSION = "session"
    ALWAYS = "always"
    DENY = "deny"
    NEVER = "never"

    @property
    def is_yes(self) -> bool:
        """Whether it allows."""
        return self in (Answer.ONCE, Answer.SESSION, Answer.ALWAYS)


@dataclass(frozen=True, slots=True)
class Narrowing:
    """A yes to less than was asked. 0 and False change nothing."""

    read_only: bool = False
    duration_s: int = 0


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer.

    Attributes:
        request_digest: Of the request that is answered; of nothing else.
        shown_digest: Of what was on the screen (`card.shown_digest`).
        human: Who, as the directory of approvers knows them: accounts and keys of one person are one human.
        method: How the vote came: ``os-session`` (a Unix account) or ``signed`` (a key of the directory).
        evidence: What proves it: ``uid 1000``, or the key's id and the digest of the envelope.
        envelope: Of a signed vote the envelope as it was received, so that anybody can verify it later.
    """

    request_id: str
    request_digest: str
    shown_digest: str
    answer: Answer
    narrowing: Narrowing
    justification: str
    human: str
    assurance: Assurance
    method: str
    evidence: str
    at_ns: int
    envelope: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"at_ns": str(self.at_ns), "assurance": f"A{int(self.assurance)}"}

    @property
    def digest(self) -> str:
        """``sha256:…`` of the canonical form."""
        return strict_json.digest(self.to_json())
