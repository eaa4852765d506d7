"""One client of ``launch.sock``: who it is, and the way back to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from supervisor.broker.broker import Broker
from supervisor.daemon.approvers import Reader
from supervisor.daemon.bootstrap import Foundation
from supervisor.daemon.brokerage import Brokerage
from supervisor.daemon.standings import Standings
from supervisor.daemon.upkeep import Upkeep
from supervisor.session.channel import Channel
from supervisor.session.secret_store import SecretStore
from supervisor.session.service import Caller, SessionService


@dataclass(slots=True)
class Conversation:
    """A client that said what it wants."""

    channel: Channel
    caller: Caller
    service: SessionService
    brokerage: Brokerage
    foundation: Foundation

    @property
    def broker(self) -> Broker:
        """Who answers for requests, votes and grants."""
        return self.brokerage.broker

    @property
    def secrets(self) -> SecretStore:
        """The owners' secrets."""
        return self.brokerage.secrets

    @property
    def standings(self) -> Standings:
        """What stands behind agents."""
        return self.brokerage.standings

    @property
    def upkeep(self) -> Upkeep:
        """Which policy decides."""
        return self.brokerage.upkeep

    @property
    def approvers(self) -> Reader:
        """Who may approve, as a file says."""
        return self.brokerage.approvers

    async def result(self, fds: tuple[int, ...] = (), **fields: Any) -> None:
        """Send the last message."""
        await self.channel.send_json({"event": "result", **fields}, fds)


Handler = Callable[[Conversation, dict[str, Any]], Awaitable[None]]
