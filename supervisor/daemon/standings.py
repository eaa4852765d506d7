"""What stands behind a run: a signed manifest, what its profile asks for, or nothing but its owner's word."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from dataclasses import dataclass, replace

from supervisor.broker import accepted, journal
from supervisor.broker.accepted import Consent
from supervisor.broker.journal import Entry
from supervisor.broker.store import Store
from supervisor.clock import now_ns
from supervisor.daemon.keyring import ManagedKeys, combined, own_keys
from supervisor.daemon.profile_manifest import of_profile
from supervisor.daemon.verification import verify
from supervisor.policy.manifest import check_sequence
from supervisor.policy.standing import Standing, consent
from supervisor.sandbox.plan import Owner
from supervisor.sandbox.profile import Profile
from supervisor.session.hands import OPEN_DEADLINE_S, Hands
from supervisor.session.launch import Request


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client says about the standing of its run.

    Attributes:
        envelope: A signed manifest, as received; empty without one.
        can_ask: Whether a person sits there who can be asked.
        agreed: The digest of the manifest that the person was shown and said yes to; ``no`` when they declined.
    """

    envelope: bytes = b""
    can_ask: bool = False
    agreed: str = ""


class Standings:
    """Finds out what stands behind a run, and records it before the agent starts."""

    def __init__(self, store: Store, hands: Hands, managed: ManagedKeys) -> None:
        self._store = store
        self._hands = hands
        self._managed = managed

    async def of(self, owner: Owner, request: Request, wanted: Wanted, profile: Profile) -> Standing:
        """Return what stands behind *request*; nothing is recorded yet, except a yes that the owner gives with it.

        Raises:
            UsageError: The envelope is none.
            RefusedError: The manifest does not hold, by the step that failed.
        """
        if wanted.envelope:
            standing = await self._verified(owner, wanted.envelope)
        elif profile.asks.capabilities:
            standing = of_profile(profile, program_of(request), owner)
        else:
            return consent(program_of(request), owner.name, now_ns() // 10**9)
        if standing.agent_class == "user-owned" and not standing.consented:
            return replace(standing, consented=await self._consented(owner, request, standing, wanted))
        return standing

    async def _verified(self, owner: Owner, envelope: bytes) -> Standing:
        hand = await self._hands.of(owner.uid, owner.gid)
        directory = f"{owner.home}/.config/deskwarden/keys"
        answer, _fds = await hand.ask("keys", (), OPEN_DEADLINE_S, directory=directory)
        keyring = combined(self._managed.read(), own_keys(answer["files"]))
        now_s = now_ns() // 10**9
        # A thread: with many keys and no hint that fits, hundreds of signatures are tried.
        standing = await asyncio.to_thread(verify, envelope, keyring, owner.name, now_s)
        scope = scope_of(standing, owner.uid)
        # Once here, so that nothing is started for one that is refused; `record` checks again, and holds it.
        await self._store.commit(lambda db: _check(db, scope, standing))
        return standing

    async def _consented(self, owner: Owner, request: Request, standing: Standing, wanted: Wanted) -> bool:
        """Return whether the owner agreed to this manifest here, now or before."""
        given = Consent(
            owner.uid, os.fsencode(program_of(request)), os.fsencode(request.workspace), standing.manifest.digest
        )
        if wanted.agreed == standing.manifest.digest:
            body = {"program": program_of(request), "folder": request.workspace, "manifest": given.digest}
            entry = Entry("consent", now_ns(), "", given.digest, {key: ascii(one) for key, one in body.items()})
            await self._store.commit(lambda db: _keep(db, given, entry))
            return True
        return await self._store.commit(lambda db: accepted.has_consent(db, given))

    async def record(self, session_id: str, owner_uid: int, request: Request) -> None:
        """Make a launch with a signed manifest durable: who stands behind it, and its number as the newest.

        Raises:
            RefusedError: Its number is no longer in order.
            ServiceError: It could not be written; the launch must not go on.
        """
        standing = request.standing
        if standing is None or not standing.signed_by:
            return
        manifest = standing.manifest
        body = {
            "agent": manifest.name,
            "class": standing.agent_class,
            "publisher": manifest.publisher,
            "manifest": manifest.digest,
            "seq": manifest.seq,
            "signed_by": list(standing.signed_by),
            "consented": standing.consented,
            "program": ascii(request.argv[0])[1:-1][:200],
        }
        entry = Entry("launch", now_ns(), session_id, manifest.digest, body)
        scope = scope_of(standing, owner_uid)

        def write(db: sqlite3.Connection) -> None:
            accepted.accept(db, scope, manifest)
            journal.append(db, entry)

        await self._store.commit(write)


def program_of(request: Request) -> str:
    """Return the name of the program that is run."""
    return os.path.basename(request.argv[0])[:64] or "agent"


def scope_of(standing: Standing, owner_uid: int) -> str:
    """Return whose memory of numbers holds: the machine's for publishers that it knows, else the owner's alone."""
    return "" if standing.managed else str(owner_uid)


def _check(db: sqlite3.Connection, scope: str, standing: Standing) -> None:
    manifest = standing.manifest
    check_sequence(manifest, accepted.seen(db, scope, manifest.publisher, manifest.name))


def _keep(db: sqlite3.Connection, given: Consent, entry: Entry) -> None:
    if accepted.keep_consent(db, given):
        journal.append(db, entry)
