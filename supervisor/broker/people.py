"""Who may approve: people with their teams, accounts and keys. Two accounts of one person are one person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.policy.decision import Party

# The team of whoever's agent asks.
OWNER_TEAM = "owner"


@dataclass(frozen=True, slots=True)
class Person:
    """One approver.

    Attributes:
        roles: Team → the role in it, or an empty word.
        keys: Ids of the keys that sign votes for this person.
        review_by: ISO date of the next recertification; after it votes of this person count no more.
    """

    human: str
    roles: Mapping[str, str]
    uids: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    review_by: str = ""

    def fits(self, party: Party) -> bool:
        """Return whether this person is of *party*."""
        return party.team in self.roles and party.role in ("", self.roles[party.team])


@dataclass(frozen=True, slots=True)
class Directory:
    """All approvers. An account that nobody entered is a person of its own, in no team."""

    people: tuple[Person, ...] = ()

    def of_uid(self, uid: int) -> Person:
        """Return whose account *uid* is."""
        entered = next((person for person in self.people if uid in person.uids), None)
        return entered or Person(_name_of(uid), {}, (uid,))

    def of_key(self, key_id: str) -> Person | None:
        """Return whose key that is, or None."""
        return next((person for person in self.people if key_id in person.keys), None)

    def named(self, human: str, owner_uid: int) -> Person | None:
        """Return the person as they are now, with team ``owner`` when the agent is theirs; None when gone."""
        entered = next((person for person in self.people if person.human == human), None)
        owner = self.of_uid(owner_uid)
        if human != owner.human:
            return entered
        return Person(owner.human, {**owner.roles, OWNER_TEAM: ""}, owner.uids, owner.keys, owner.review_by)


def _name_of(uid: int) -> str:
    return f"uid:{uid}"
