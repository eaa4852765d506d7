"""The states of a request and of its grant, and the one table of what may follow what."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from supervisor.errors import ServiceError


class State(StrEnum):
    """Where a request stands; from `ISSUED` on it has a grant, and the state is the grant's."""

    SUBMITTED = "submitted"
    DENIED = "denied"  # by policy, a standing rule or a limit
    WAITING = "waiting"  # for people
    APPROVED = "approved"
    REJECTED = "rejected"  # by a person
    WITHDRAWN = "withdrawn"  # by the agent
    LAPSED = "lapsed"  # nobody answered in time
    SUPERSEDED = "superseded"  # what was asked for has changed
    ISSUED = "issued"  # the grant is on record, and not in force yet
    FAILED = "failed"  # it could not be put into force
    ACTIVE = "active"
    COMPLETED = "completed"  # given back by the agent, used up, or the session ended
    EXPIRED = "expired"
    REVOKED = "revoked"
    QUARANTINED = "quarantined"


MAY_FOLLOW: Final[Mapping[State, frozenset[State]]] = {
    State.SUBMITTED: frozenset(
        {State.DENIED, State.WAITING, State.APPROVED, State.WITHDRAWN, State.LAPSED, State.SUPERSEDED}
    ),
    State.WAITING: frozenset({State.APPROVED, State.REJECTED, State.WITHDRAWN, State.LAPSED, State.SUPERSEDED}),
    State.APPROVED: frozenset({State.ISSUED, State.DENIED, State.LAPSED, State.SUPERSEDED}),
    State.ISSUED: frozenset({State.ACTIVE, State.FAILED, State.REVOKED}),
    State.ACTIVE: frozenset({State.COMPLETED, State.EXPIRED, State.REVOKED, State.QUARANTINED}),
    State.QUARANTINED: frozenset({State.REVOKED}),
}
IN_FORCE: Final = frozenset({State.ISSUED, State.ACTIVE})
OPEN: Final = frozenset({State.SUBMITTED, State.WAITING, State.APPROVED})


def is_final(state: State) -> bool:
    """Return whether nothing follows *state*."""
    return state not in MAY_FOLLOW


def check(before: State, after: State) -> None:
    """Refuse a step that the table does not have.

    Raises:
        ServiceError: A defect of ours; nothing was changed.
    """
    if after not in MAY_FOLLOW.get(before, frozenset()):
        raise ServiceError(f"a request cannot go from {before} to {after}", "report this with: deskwarden why")
