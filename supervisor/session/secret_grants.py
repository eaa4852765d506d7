"""Secrets as something that can be granted: found by name for their owner, held for one version, given use by use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from supervisor.broker.ask import Ask, SessionParty
from supervisor.broker.enforcer import Effected
from supervisor.broker.grant import Grant
from supervisor.broker.uses import HOSTS
from supervisor.errors import ConflictError, RefusedError, UsageError
from supervisor.policy.request import FileItem, Resource
from supervisor.policy.secret_name import judge_secret
from supervisor.session.file_grants import Sessions
from supervisor.session.secret_sources import Source
from supervisor.session.secret_store import SecretStore, check_name

_WORD = "version "


class SecretResolver:
    """Implements `broker.doors.Resolver` for secrets."""

    def __init__(self, store: SecretStore) -> None:
        self._store = store

    async def resolve(self, party: SessionParty, ask: Ask) -> Resource:
        """Return which version of which secret *ask* is about, and how sensitive it is; see `Resolver`."""
        name = check_name(ask.target)
        secret = await asyncio.to_thread(self._store.find, party.owner_uid, name)
        if secret is None:
            raise UsageError(
                f"{party.owner_name} has no secret {name}", f"its owner sets it: deskwarden secret set {name}"
            )
        level, classes, why = judge_secret(name, secret.about.classes)
        if secret.about.hosts:
            why = (*why, f"added on the way to {', '.join(secret.about.hosts)} only, never shown to the agent")
        item = FileItem(name, 0, 0, 0, secret.created_ns, f"{_WORD}{secret.version}")
        return Resource(name, level, classes, items=(item,), evidence=why)


class SecretEnforcer:
    """Implements `Enforcer` and `broker.uses.Vault`: nothing is in the sandbox until a use is counted."""

    def __init__(self, store: SecretStore, sources: Mapping[str, Source], sessions: Sessions) -> None:
        self._store = store
        self._sources = sources
        self._sessions = sessions

    async def apply(self, grant: Grant) -> Effected:
        """See that it is still the secret that was asked for; see `Enforcer`."""
        start = time.monotonic()
        secret = await asyncio.to_thread(self._store.find, grant.owner_uid, grant.capability.selector)
        if secret is None or secret.version != _version(grant):
            raise ConflictError(f"the secret {grant.capability.selector} was changed or removed", "ask again")
        details = {HOSTS: " ".join(secret.about.hosts)} if secret.about.hosts else {}
        return Effected((time.monotonic() - start) * 1000, details)

    async def withdraw(self, grant: Grant, reason: str) -> Effected:
        """Nothing is held of it here; from now on no use is counted; see `Enforcer`."""
        return Effected(0.0, {"ended": "no further use"})

    async def value_of(self, grant: Grant) -> bytes:
        """Return the value; see `Vault`."""
        session = self._sessions.living_session(grant.session)
        if session is None:
            raise RefusedError(f"session {grant.session} has ended")
        about, kept = await asyncio.to_thread(
            self._store.open, grant.owner_uid, grant.capability.selector, _version(grant)
        )
        if about.hosts:
            raise RefusedError(f"{grant.capability.selector} is added by the network door only")
        source = self._sources.get(about.source)
        if source is None:
            raise RefusedError(f"{grant.capability.selector}: this service has no source {about.source!r}")
        return await source.value(session, kept)


def _version(grant: Grant) -> int:
    (item,) = grant.items
    return int(item.pinned.removeprefix(_WORD))
