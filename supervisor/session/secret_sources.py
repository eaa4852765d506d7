"""Where the value of a secret comes from: one small class each. What the store keeps is the source's to understand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Protocol

from supervisor.errors import RefusedError
from supervisor.linux import seqpacket
from supervisor.session.hands import Hands
from supervisor.session.secret_store import MAX_VALUE_BYTES
from supervisor.session.session import Session

KEPT: Final = "kept"
COMMAND: Final = "command"
_DEADLINE_S: Final = 25.0


class Source(Protocol):
    """Makes the value of what is kept."""

    async def value(self, session: Session, kept: bytes) -> bytes:
        """Return it, for one use in *session*.

        Raises:
            DeskwardenError: It cannot be had now.
        """


class Kept:
    """What is kept is the value."""

    async def value(self, session: Session, kept: bytes) -> bytes:
        """Return it as it is; see `Source`."""
        return kept


class OwnersCommand:
    """What is kept is a command: run by the owner's hand, as the owner and outside of every sandbox, at each use."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    async def value(self, session: Session, kept: bytes) -> bytes:
        """Run it; see `Source`."""
        record = session.record
        hand = await self._hands.of(record.owner_uid, record.owner_gid)
        home = session.plan.command.environment["HOME"]
        answer, fds = await hand.ask("secret_command", (), _DEADLINE_S, command=kept.decode(), home=home)
        try:
            value = os.read(fds[0], MAX_VALUE_BYTES + 1) if answer["size"] else b""
        finally:
            seqpacket.close_all(fds)
        if len(value) != answer["size"] or not value:
            raise RefusedError(f"the secret's command gave {answer['size']} bytes", "deskwarden secret set NAME")
        return value


def sources(hands: Hands) -> Mapping[str, Source]:
    """Return all sources, by the word that the store keeps."""
    return {KEPT: Kept(), COMMAND: OwnersCommand(hands)}
