"""What a client says about the standing of its run, and the question that goes back before anything is started."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from supervisor.clock import now_ns
from supervisor.daemon import reading
from supervisor.daemon.conversation import Conversation
from supervisor.daemon.standings import Wanted, program_of
from supervisor.errors import UsageError
from supervisor.identity.dsse import MAX_ENVELOPE_BYTES
from supervisor.policy.standing import Standing, consent, describe
from supervisor.session.launch import Request

_ANSWER: Final = re.compile(r"(sha256:[0-9a-f]{64}|no)?")


def parse_wanted(request: Mapping[str, Any]) -> Wanted:
    """Read the fields.

    Raises:
        UsageError: One is not what it must be.
    """
    text = reading.word(request.get("manifest"), "--manifest")
    envelope = text.encode("utf-8", "surrogateescape")
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise UsageError(f"--manifest: {len(envelope)} bytes, at most {MAX_ENVELOPE_BYTES} are read")
    agreed = reading.word(request.get("agreed"), "agreed")
    if not _ANSWER.fullmatch(agreed):
        raise UsageError(f"agreed {agreed[:80]!r}: want a digest, or no")
    return Wanted(envelope, reading.flag(request.get("can_ask"), "can_ask"), agreed)


async def stand(conversation: Conversation, parsed: Request, wanted: Wanted) -> tuple[Request | None, str]:
    """Return *parsed* with what stands behind it and a note to show, or None: then the person was asked first.

    Raises:
        DeskwardenError: The manifest does not hold.
    """
    owner = conversation.caller.owner
    profile = await conversation.service.profile_of(owner, parsed)
    standing = await conversation.standings.of(owner, parsed, wanted, profile)
    if standing.consented or standing.agent_class != "user-owned":
        return replace(parsed, standing=standing), ""
    if wanted.can_ask and wanted.agreed != "no":
        await conversation.channel.send_json(
            {
                "event": "consent",
                "program": program_of(parsed),
                "workspace": parsed.workspace,
                "profile": parsed.profile,
                "digest": standing.manifest.digest,
                "signed": bool(standing.signed_by),
                "entries": entries_of(standing),
            }
        )
        return None, ""
    if standing.signed_by:
        return replace(parsed, standing=standing), "you have not agreed to this manifest: each request is a question"
    nothing = consent(program_of(parsed), owner.name, now_ns() // 10**9)
    note = f"profile {parsed.profile} asks for something that nobody agreed to, so nothing is declared"
    return replace(parsed, standing=nothing), note + ("" if wanted.can_ask else " (run it once on a terminal)")


def entries_of(standing: Standing) -> list[dict[str, Any]]:
    """Return what a manifest declares, for the card."""
    return [
        {
            "kind": str(entry.capability.kind),
            "operations": list(entry.capability.operations),
            "selector": entry.capability.selector,
            "level": entry.label_max.word,
            "why": entry.justification,
        }
        for entry in standing.manifest.entries
    ]


def plan_lines(standing: Standing | None) -> list[str]:
    """Return what a dry run says of the standing."""
    return [] if standing is None else describe(standing)
