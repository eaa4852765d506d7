"""The verbs for those who approve: requests, answers, grants, standing rules, and why.

Who votes is the kernel's word for who is connected, or whoever's key signed; never a field of the request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from supervisor.broker import approvals, card
from supervisor.broker.people import Person
from supervisor.broker.rule import Rule
from supervisor.broker.ticket import Ticket
from supervisor.broker.vote import Answer, Narrowing, Vote
from supervisor.clock import now_ns
from supervisor.daemon import reading, signed_votes
from supervisor.daemon.conversation import Conversation, Handler
from supervisor.errors import RefusedError, UsageError
from supervisor.policy.capability import Assurance
from supervisor.policy.decision import Clause

_LONGEST_S: Final = 366 * 86400
_MAX_JUSTIFICATION: Final = 1000


def _person(conversation: Conversation) -> Person:
    return conversation.broker.directory.of_uid(conversation.caller.owner.uid)


def shown_ticket(ticket: Ticket) -> dict[str, Any]:
    """Return a request as its approvers see it, with the two digests that a vote names."""
    request, decision = ticket.request, ticket.decision
    value: dict[str, Any] = {
        "id": ticket.id,
        "session": ticket.party.id,
        "session_name": ticket.party.name,
        "agent": ticket.party.agent,
        "owner_uid": ticket.party.owner_uid,
        "kind": str(ticket.ask.kind),
        "operations": list(ticket.ask.operations),
        "target": ticket.ask.target,
        "state": str(ticket.state),
        "reasons": [{"code": one.code, "text": one.text} for one in ticket.reasons],
        "next_steps": list(ticket.next_steps),
        "waits_for": [_clause(clause) for clause in ticket.waits_for],
        "lapses_at_ns": ticket.lapses_at_ns,
        "votes": [_shown_vote(vote) for vote in ticket.votes],
    }
    if request is not None and decision is not None:
        rendered = card.render(request, decision)
        value |= {
            "risk": decision.risk,
            "request_digest": request.digest,
            "shown_digest": rendered.shown_digest,
            "card": [asdict(line) for line in rendered.lines],
        }
    return value


def _shown_vote(vote: Vote) -> dict[str, str]:
    return {"human": vote.human, "answer": str(vote.answer), "assurance": vote.assurance.name}


def _clause(clause: Clause) -> str:
    return " or ".join(f"{party.team} {party.role}".strip() for party in clause.any_of)


async def requests(conversation: Conversation, request: dict[str, Any]) -> None:
    """List what waits for this person, or show one request; with ``watch`` again after every change."""
    broker, person = conversation.broker, _person(conversation)
    word, watch = reading.word(request.get("id"), "ID"), reading.flag(request.get("watch"), "--watch")
    if word:
        await conversation.result(requests=[shown_ticket(broker.find(person, word))])
        return
    if not watch:
        await conversation.result(requests=[shown_ticket(one) for one in broker.waiting(person)])
        return
    changed = asyncio.Event()
    with broker.watching(lambda _ticket: changed.set()):
        leaving = asyncio.ensure_future(conversation.channel.receive())
        try:
            while not leaving.done():
                changed.clear()
                waiting = [shown_ticket(one) for one in broker.waiting(person)]
                await conversation.channel.send_json({"event": "requests", "requests": waiting})
                change = asyncio.ensure_future(changed.wait())
                await asyncio.wait({change, leaving}, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
        finally:
            leaving.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, ValueError):
                await leaving


async def answer(conversation: Conversation, request: dict[str, Any]) -> None:
    """Count this person's answer to one request, as it was shown to them."""
    caller, person = conversation.caller, _person(conversation)
    if request.get("envelope") is not None:
        await _carried(conversation, request)
        return
    ticket = conversation.broker.find(person, reading.word(request.get("id"), "ID"))
    own = caller.owner.uid == ticket.party.owner_uid
    vote = Vote(
        request_id=ticket.id,
        request_digest=reading.word(request.get("request_digest"), "request_digest"),
        shown_digest=reading.word(request.get("shown_digest"), "shown_digest"),
        answer=_answer(request.get("answer")),
        narrowing=Narrowing(
            reading.flag(request.get("read_only"), "--read-only"),
            reading.number(request.get("for_s", 0), "--for", 0, _LONGEST_S),
        ),
        justification=_justification(request.get("reason")),
        human=person.human,
        # Another account is another person, if the directory knows who; one's own proves no more than its uid.
        assurance=Assurance.A0 if own else Assurance.A3,
        method="os-session",
        evidence=f"uid {caller.owner.uid}",
        at_ns=now_ns(),
    )
    ticket = await conversation.broker.vote(vote)
    rule = conversation.broker.rules.made_by(vote, ticket)
    await conversation.result(request=shown_ticket(ticket), rule=_shown_rule(rule) if rule else None)


async def _carried(conversation: Conversation, request: dict[str, Any]) -> None:
    """Count a signed vote. Whoever carries it is told no more than they may see themselves."""
    broker = conversation.broker
    vote = signed_votes.vote_from(request, conversation.approvers.approvers, broker, now_ns())
    ticket = await broker.vote(vote)
    shown: dict[str, Any] = {"id": ticket.id, "state": str(ticket.state), "waits_for": [], "reasons": []}
    rule = None
    if approvals.may_see(_person(conversation), ticket):
        shown, rule = shown_ticket(ticket), broker.rules.made_by(vote, ticket)
    await conversation.result(request=shown, rule=_shown_rule(rule) if rule else None)


def _answer(value: object) -> Answer:
    try:
        return Answer(reading.word(value, "answer"))
    except ValueError:
        raise UsageError(f"answer {value!r}: want one of {', '.join(Answer)}", "deskwarden approve --help") from None


def _justification(value: object) -> str:
    text = reading.word(value, "--reason")
    if len(text) > _MAX_JUSTIFICATION:
        raise UsageError(f"--reason: {len(text)} characters, at most {_MAX_JUSTIFICATION}", "say it shorter")
    return text


def _shown_grant(ticket: Ticket) -> dict[str, Any]:
    grant = ticket.grant
    if grant is None:
        raise RefusedError(f"request {ticket.id} has no grant")
    return grant.to_json() | {
        "state": str(ticket.state),
        "session_name": ticket.party.name,
        "left_s": round(max(0, grant.expires_ns - now_ns()) / 1e9, 1),
        "details": ticket.details,
    }


async def grants(conversation: Conversation, _request: dict[str, Any]) -> None:
    """List what is in force for the caller's agents."""
    uid = conversation.caller.owner.uid
    found = [one for one in conversation.broker.grants.in_force() if one.party.owner_uid == uid]
    await conversation.result(grants=[_shown_grant(one) for one in found])


async def revoke(conversation: Conversation, request: dict[str, Any]) -> None:
    """Take grants back: one, a session's, an agent's, or all of the caller's."""
    chosen = _chosen(conversation, request)
    uid = conversation.caller.owner.uid
    why = _justification(request.get("reason")) or "its owner revoked it"
    tickets = await conversation.broker.revoke(lambda one: one.party.owner_uid == uid and chosen(one), why)
    if not tickets and not reading.flag(request.get("all"), "--all"):
        raise UsageError("no such grant is in force", "deskwarden grants")
    await conversation.result(revoked=[_shown_grant(one) for one in tickets])


def _chosen(conversation: Conversation, request: dict[str, Any]) -> Callable[[Ticket], bool]:
    ids = reading.strings(request.get("ids", []), "ID")
    session, agent = reading.word(request.get("session"), "--session"), reading.word(request.get("agent"), "--agent")
    if reading.flag(request.get("all"), "--all"):
        return lambda _one: True
    if session:
        wanted = conversation.service.find(conversation.caller, session).id
        return lambda one: one.party.id == wanted
    if agent:
        return lambda one: agent in (one.party.agent, one.party.agent.rsplit("/", 1)[-1])
    if not ids:
        raise UsageError("which grant?", "deskwarden grants")
    known = {one.grant.id for one in conversation.broker.grants.in_force() if one.grant}
    if missing := [one for one in ids if one not in known]:
        raise UsageError(f"no grant {missing[0]!r} is in force", "deskwarden grants")
    return lambda one: one.grant is not None and one.grant.id in ids


def _shown_rule(rule: Rule) -> dict[str, Any]:
    return rule.to_json() | {"sentence": rule.sentence()}


async def rules(conversation: Conversation, request: dict[str, Any]) -> None:
    """List the caller's standing answers, or remove one."""
    uid = conversation.caller.owner.uid
    if word := reading.word(request.get("remove"), "ID"):
        await conversation.result(removed=_shown_rule(await conversation.broker.rules.remove(uid, word)))
        return
    await conversation.result(rules=[_shown_rule(one) for one in conversation.broker.rules.of_owner(uid)])


async def why(conversation: Conversation, request: dict[str, Any]) -> None:
    """Tell the story of one request, from the journal; without an id that of the last refusal."""
    broker, person = conversation.broker, _person(conversation)
    word = reading.word(request.get("id"), "ID") or broker.last_refusal(person)
    if not word:
        raise UsageError("nothing of yours was refused since the service started", "deskwarden requests")
    story = await broker.history(word, conversation.caller.owner.uid)
    if not story:
        with contextlib.suppress(UsageError):
            broker.find(person, word)
        raise UsageError(f"no request {word!r}", "deskwarden requests")
    await conversation.result(id=word, story=story)


async def decisions(conversation: Conversation, request: dict[str, Any]) -> None:
    """Send every recorded decision on the caller's own requests since a time, for `policy replay`."""
    since_s = reading.number(request.get("since_s"), "--since", 1, _LONGEST_S)
    uid = conversation.caller.owner.uid
    async for entries in conversation.broker.decisions(uid, now_ns() - since_s * 10**9):
        await conversation.channel.send_json({"event": "decisions", "entries": entries})
    await conversation.result()


HANDLERS: Final[dict[str, Handler]] = {
    "requests": requests,
    "answer": answer,
    "grants": grants,
    "revoke": revoke,
    "rules": rules,
    "why": why,
    "decisions": decisions,
}
