"""Votes by signature: an envelope that anybody may carry, and whose key alone says who answers.

1. The envelope is of the vote's type, and has exactly one signature, by a key of the directory, over these bytes.
2. It is at most `MAX_AGE_S` old. 3. The request is one that the key's holder may see.
The rest (digests, membership, one vote each) is the broker's, as for every vote.
"""

from __future__ import annotations

from typing import Any, Final

from supervisor import strict_json
from supervisor.broker.broker import Broker
from supervisor.broker.people import Person
from supervisor.broker.statement import parse_statement
from supervisor.broker.vote import PAYLOAD_TYPE, Vote
from supervisor.daemon import reading
from supervisor.daemon.approvers import Approvers
from supervisor.errors import RefusedError, UsageError
from supervisor.identity.dsse import Envelope, parse_envelope, verify
from supervisor.identity.keys import PublicKey, parse_public
from supervisor.policy.capability import Assurance

MAX_ENVELOPE_BYTES: Final = 16 * 1024
MAX_AGE_S: Final = 300
# Clocks differ; a vote from further ahead was dated so on purpose.
MAX_AHEAD_S: Final = 60
_STEP: Final = "deskwarden approve ID --key FILE"


def vote_from(request: dict[str, Any], approvers: Approvers, broker: Broker, now_ns: int) -> Vote:
    """Return the vote in a client's message.

    Args:
        request: ``envelope``, and optionally ``key``: the public half in PEM, for a directory that has its id only.

    Raises:
        UsageError: It is not well formed, or there is no such request for the key's holder.
        RefusedError: Not signed by an approver, not a vote, or too old.
    """
    raw = reading.word(request.get("envelope"), "envelope").encode()
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise UsageError(f"envelope: {len(raw)} bytes, at most {MAX_ENVELOPE_BYTES} are read", _STEP)
    envelope = parse_envelope(raw, "vote")
    key, person = _signer(envelope, approvers, reading.word(request.get("key"), "key"))
    said = parse_statement(envelope.payload)
    age_s = now_ns // 10**9 - said.at_s
    if not -MAX_AHEAD_S <= age_s <= MAX_AGE_S:
        raise RefusedError(f"the vote is {age_s} s old, at most {MAX_AGE_S} s are taken", f"vote again: {_STEP}")
    ticket = broker.find(person, said.request_id)
    own = person.human == broker.directory.of_uid(ticket.party.owner_uid).human
    return Vote(
        request_id=said.request_id,
        request_digest=said.request_digest,
        shown_digest=said.shown_digest,
        answer=said.answer,
        narrowing=said.narrowing,
        justification=said.justification,
        human=person.human,
        # A key is fresh proof of its holder; one of another person's is another person.
        assurance=Assurance.A1 if own else Assurance.A3,
        method="signed",
        evidence=f"{key.keyid} {strict_json.digest_of(raw)}",
        at_ns=now_ns,
        envelope=raw.decode(),
    )


def _signer(envelope: Envelope, approvers: Approvers, pem: str) -> tuple[PublicKey, Person]:
    keys = dict(approvers.keys)
    if pem:
        shown = parse_public(pem.encode(), "key")
        if approvers.directory.of_key(shown.keyid) is not None:
            keys.setdefault(shown.keyid, shown)
    try:
        signers = verify(envelope, PAYLOAD_TYPE, keys.values())
    except RefusedError as error:
        raise RefusedError(f"the vote is not signed by an approver: {error.message}", _STEP) from error
    person = approvers.directory.of_key(signers[0].keyid)
    if len(signers) != 1 or person is None:
        raise RefusedError(f"the vote has {len(signers)} signatures, want one: each person votes alone", _STEP)
    return signers[0], person
