"""The verbs of secrets: set, list, remove; the caller's own alone. A value comes in and never goes out here."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any, Final

from supervisor.broker.ticket import Ticket
from supervisor.daemon import reading
from supervisor.daemon.conversation import Conversation, Handler
from supervisor.errors import UsageError
from supervisor.policy.capability import Kind
from supervisor.policy.secret_name import judge_secret
from supervisor.session import secret_sources
from supervisor.session.secret_store import MAX_VALUE_BYTES, Secret, check_about, check_name


async def secret(conversation: Conversation, request: dict[str, Any]) -> None:
    """Set, list or remove secrets of the caller's."""
    todo = {"set": _set, "list": _list, "rm": _remove}.get(reading.word(request.get("do"), "secret"))
    if todo is None:
        raise UsageError("secret: want set, list or rm", "deskwarden secret --help")
    await todo(conversation, request)


async def _set(conversation: Conversation, request: dict[str, Any]) -> None:
    uid, name = conversation.caller.owner.uid, check_name(reading.word(request.get("name"), "NAME"))
    command = reading.word(request.get("command"), "--from-command")
    about = check_about(
        secret_sources.COMMAND if command else secret_sources.KEPT,
        reading.strings(request.get("hosts", []), "--host"),
        reading.strings(request.get("classes", []), "--class"),
    )
    body = _utf8(command) if command else _value(request.get("value"))
    if not 0 < len(body) <= MAX_VALUE_BYTES:
        raise UsageError(f"a secret of {len(body)} bytes: want 1 to {MAX_VALUE_BYTES}")
    version = await asyncio.to_thread(conversation.secrets.put, uid, name, about, body)
    revoked = await _revoke(conversation, uid, name, "the secret was set anew")
    await conversation.result(name=name, version=version, revoked=len(revoked))


async def _list(conversation: Conversation, _request: dict[str, Any]) -> None:
    found = await asyncio.to_thread(conversation.secrets.all_of, conversation.caller.owner.uid)
    await conversation.result(secrets=[_shown(one) for one in found])


async def _remove(conversation: Conversation, request: dict[str, Any]) -> None:
    uid, name = conversation.caller.owner.uid, check_name(reading.word(request.get("name"), "NAME"))
    if not await asyncio.to_thread(conversation.secrets.remove, uid, name):
        raise UsageError(f"you have no secret {name}", "deskwarden secret list")
    revoked = await _revoke(conversation, uid, name, "the secret was removed")
    await conversation.result(name=name, revoked=len(revoked))


async def _revoke(conversation: Conversation, uid: int, name: str, why: str) -> list[Ticket]:
    def is_of(ticket: Ticket) -> bool:
        grant = ticket.grant
        return (
            grant is not None
            and grant.owner_uid == uid
            and (grant.capability.kind, grant.capability.selector) == (Kind.SECRET, name)
        )

    return await conversation.broker.revoke(is_of, why)


def _shown(one: Secret) -> dict[str, Any]:
    level, classes, _why = judge_secret(one.name, one.about.classes)
    return {
        "name": one.name,
        "level": level.word,
        "classes": list(classes),
        "hosts": list(one.about.hosts),
        "source": one.about.source,
        "created_ns": one.created_ns,
        "used_ns": one.used_ns,
    }


def _value(value: object) -> bytes:
    """Decode a value. No error tells any of it."""
    if not isinstance(value, str):
        raise UsageError("secret: no value", "printf %s VALUE | deskwarden secret set NAME")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("secret: the value is no base64", "use the deskwarden command") from None


def _utf8(command: str) -> bytes:
    try:
        return command.encode()
    except UnicodeEncodeError:
        raise UsageError("--from-command: want Unicode") from None


HANDLERS: Final[dict[str, Handler]] = {"secret": secret}
