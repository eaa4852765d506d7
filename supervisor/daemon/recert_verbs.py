"""The verb ``recert``: what grants only until its review, and one's own standing answers for longer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from supervisor.broker.people import Person
from supervisor.broker.rule import Rule
from supervisor.clock import now_ns
from supervisor.daemon import reading
from supervisor.daemon.conversation import Conversation, Handler
from supervisor.errors import RefusedError, UsageError
from supervisor.policy.role import Role

_DAY_NS: Final = 86400 * 10**9
SOON_DAYS: Final = 14
_MAX_REASON: Final = 1000


async def recert(conversation: Conversation, request: dict[str, Any]) -> None:
    """List what has a review, or renew or remove one item."""
    do, word = reading.word(request.get("do"), "list, renew or rm"), reading.word(request.get("id"), "ID")
    reason = reading.word(request.get("reason"), "--reason")
    if len(reason) > _MAX_REASON:
        raise UsageError(f"--reason: {len(reason)} characters, at most {_MAX_REASON}", "say it shorter")
    items = _items(conversation)
    if do == "list":
        await conversation.result(items=items)
        return
    if do not in ("renew", "rm"):
        raise UsageError(f"recert {do!r}: want list, renew or rm", "deskwarden recert --help")
    chosen = next((item for item in items if item["id"] == word), None)
    if chosen is not None and chosen["kind"] != "rule":
        raise RefusedError(f"{chosen['kind']} {word} is not yours to {do}: {chosen['edit']}", "ask IT")
    rules, uid = conversation.broker.rules, conversation.caller.owner.uid
    done = await rules.renew(uid, word, reason) if do == "renew" else await rules.remove(uid, word)
    await conversation.result(item=_of_rule(done), did=do)


def _items(conversation: Conversation) -> list[dict[str, Any]]:
    """Return everything with a review, what is due first first."""
    active = conversation.upkeep.policy.active
    kept = [one for one in conversation.broker.rules.of_owner(conversation.caller.owner.uid) if not one.session]
    items = [_of_rule(one) for one in kept]
    if active is not None:
        items += [_of_role(one, active.found.source) for one in active.roles.bindings]
    people = conversation.broker.directory.people
    items += [_of_person(one, conversation.approvers.path) for one in people if one.review_by]
    return sorted(items, key=lambda item: (item["due"], item["id"]))


def _of_rule(rule: Rule) -> dict[str, Any]:
    due = datetime.fromtimestamp(rule.expires_ns / 1e9, UTC).date().isoformat()
    left = (rule.expires_ns - now_ns()) / _DAY_NS
    return {"kind": "rule", "id": rule.id, "what": rule.sentence(), "owner": rule.by, "due": due} | _standing(left)


def _of_role(role: Role, source: str) -> dict[str, Any]:
    left = (role.review_date - datetime.now(UTC).date()).days + 1.0
    edit = f"edit review_date of {role.binding} in roles.json of the policy ({source})"
    item = {"kind": "role", "id": role.binding, "what": role.description, "owner": role.owner, "edit": edit}
    return item | {"due": role.review_date.isoformat()} | _standing(left)


def _of_person(person: Person, path: str) -> dict[str, Any]:
    left = (datetime.fromisoformat(person.review_by).date() - datetime.now(UTC).date()).days + 1.0
    item = {"kind": "approver", "id": person.human, "what": ", ".join(sorted(person.roles)), "owner": ""}
    return item | {"due": person.review_by, "edit": f"edit review_by in {path}"} | _standing(left)


def _standing(left_days: float) -> dict[str, Any]:
    state = "over: grants nothing" if left_days <= 0 else "soon" if left_days <= SOON_DAYS else "ok"
    return {"state": state}


HANDLERS: Final[dict[str, Handler]] = {"recert": recert}
