"""The pool of agent uids: no two living sessions share one, on any owner's account."""

from __future__ import annotations

from typing import Final

from supervisor.errors import ServiceError
from supervisor.sandbox.confine import AGENT_UID_FIRST, AGENT_UID_LAST

# More sessions than a desktop runs; each mapping costs a descriptor.
_MOST: Final = min(4096, AGENT_UID_LAST - AGENT_UID_FIRST + 1)


class AgentIds:
    """Lend uids; the lowest free one first, so that few mappings are ever made."""

    def __init__(self) -> None:
        self._lent: set[int] = set()

    def lend(self) -> int:
        """Return a uid that no living session has.

        Raises:
            ServiceError: All are in use.
        """
        for uid in range(AGENT_UID_FIRST, AGENT_UID_FIRST + _MOST):
            if uid not in self._lent:
                self._lent.add(uid)
                return uid
        raise ServiceError(f"{_MOST} sessions are running", "end some: deskwarden ps, deskwarden stop SESSION")

    def give_back(self, uid: int) -> None:
        """Take a uid back once the last process that had it is gone."""
        self._lent.discard(uid)
