"""The standing answers that are in force: those of broker.db, and those that last as long as a session."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from supervisor.broker import journal, records, rule
from supervisor.broker.ask import SessionParty
from supervisor.broker.journal import Entry
from supervisor.broker.rule import Rule
from supervisor.broker.store import Store
from supervisor.broker.ticket import Ticket
from supervisor.broker.vote import Answer, Vote
from supervisor.clock import now_ns
from supervisor.errors import UsageError
from supervisor.ids import new_id
from supervisor.policy.capability import Capability


class Rulebook:
    """All standing answers of this service."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rules: list[Rule] = []

    async def read(self) -> None:
        """Read those that are kept.

        Raises:
            ServiceError: They cannot be read.
        """
        self._rules = [Rule.from_json(value) for value in await self._store.commit(records.rules)]

    def answer(self, party: SessionParty, capability: Capability) -> str:
        """Return ``always``, ``never`` or ``none``."""
        return rule.answer_of(
            self._rules, party.owner_uid, party.publisher, party.project, party.id, capability, now_ns()
        )

    def of_owner(self, owner_uid: int) -> list[Rule]:
        """Return an owner's standing answers."""
        return [one for one in self._rules if one.owner_uid == owner_uid]

    def add(self, made: Rule) -> None:
        """Let an answer hold that `write` has put on record."""
        self._rules.append(made)

    def end_session(self, session_id: str) -> None:
        """Forget what held for one session."""
        self._rules = [one for one in self._rules if one.session != session_id]

    def made_by(self, vote: Vote, ticket: Ticket) -> Rule | None:
        """Return the standing answer that *vote* left, or None."""
        made = [one for one in self._rules if one.by == vote.human and one.created_ns >= vote.at_ns]
        wanted = ticket.request.capability if ticket.request else None
        return next((one for one in made if one.capability == wanted), None)

    async def remove(self, owner_uid: int, rule_id: str) -> Rule:
        """Forget one.

        Raises:
            UsageError: This owner has none of that name.
        """
        found = next((one for one in self._rules if one.id == rule_id and one.owner_uid == owner_uid), None)
        if found is None:
            raise UsageError(f"no rule {rule_id!r}", "deskwarden rules list")
        entry = Entry("rule", now_ns(), found.session, rule_id, {"removed": True})

        def write(db: sqlite3.Connection) -> None:
            records.drop_rule(db, rule_id, owner_uid)
            journal.append(db, entry)

        await self._store.commit(write)
        self._rules.remove(found)
        return found

    async def renew(self, owner_uid: int, rule_id: str, reason: str) -> Rule:
        """Let a standing answer hold for its whole time again, on record with the reason.

        Raises:
            UsageError: This owner has none of that name, it ends with its session, or no reason is given.
        """
        found = next((one for one in self._rules if one.id == rule_id and one.owner_uid == owner_uid), None)
        if found is None:
            raise UsageError(f"no rule {rule_id!r}", "deskwarden recert list")
        if found.session:
            raise UsageError(f"rule {rule_id} ends with its session", "deskwarden rules list")
        if not reason.strip():
            raise UsageError("why is it still needed?", f"deskwarden recert renew {rule_id} --reason TEXT")
        renewed = replace(found, expires_ns=now_ns() + rule.LASTS_NS)
        body = {"item": "rule", "reason": reason, "before": str(found.expires_ns), **renewed.to_json()}
        entry = Entry("recert", now_ns(), "", rule_id, body)

        def write(db: sqlite3.Connection) -> None:
            records.put_rule(db, rule_id, owner_uid, renewed.to_json())
            journal.append(db, entry)

        await self._store.commit(write)
        # It may have been removed meanwhile; then it is not let in again.
        self._rules = [renewed if one is found else one for one in self._rules]
        return renewed


def rule_of(party: SessionParty, capability: Capability, vote: Vote) -> Rule | None:
    """Return the standing answer that *vote* makes, or None when it is for once."""
    if vote.answer not in (Answer.SESSION, Answer.ALWAYS, Answer.NEVER):
        return None
    now = now_ns()
    return Rule(
        id=new_id("u"),
        owner_uid=party.owner_uid,
        publisher=party.publisher,
        project=party.project,
        capability=capability,
        answer="never" if vote.answer is Answer.NEVER else "always",
        by=vote.human,
        created_ns=now,
        expires_ns=now + rule.LASTS_NS,
        session=party.id if vote.answer is Answer.SESSION else "",
    )


def write(db: sqlite3.Connection, made: Rule) -> None:
    """Put a standing answer on record; one that lasts as long as a session is in the journal only."""
    if not made.session:
        records.put_rule(db, made.id, made.owner_uid, made.to_json())
    journal.append(db, Entry("rule", made.created_ns, made.session, made.id, made.to_json()))
