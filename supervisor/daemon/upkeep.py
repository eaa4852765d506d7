"""What keeps a running service right: the policy that decides, and what follows from a change of it."""

from __future__ import annotations

import logging

from supervisor.broker import journal
from supervisor.broker.broker import Broker
from supervisor.broker.journal import Entry
from supervisor.broker.rejudging import rejudge
from supervisor.broker.store import Store
from supervisor.clock import now_ns
from supervisor.daemon.active_policy import Active, ActivePolicy, Loader
from supervisor.daemon.policy_source import PolicySource
from supervisor.errors import DeskwardenError
from supervisor.session.tasks import Tasks

_logger = logging.getLogger(__name__)


class Upkeep:
    """The parts of it, composed."""

    def __init__(self, source: PolicySource, engine: Loader, store: Store, broker: Broker) -> None:
        self._store, self._broker = store, broker
        self._tasks = Tasks()
        self.policy = ActivePolicy(source, engine, store, self._policy_changed)

    async def start(self) -> None:
        """Load the policy. Without one everything is denied."""
        await self.policy.start()

    async def stop(self) -> None:
        """Stop following changes."""
        await self.policy.stop()

    def _policy_changed(self, active: Active) -> None:
        self._tasks.spawn(self._judge_again(active), "judge grants again")

    async def _judge_again(self, active: Active) -> None:
        done = await rejudge(self._broker, "policy changed")
        _logger.info("policy changed: %d grants judged again, %d taken back", done.judged, done.revoked)
        body = {
            "state": "judged-again",
            "revision": active.revision,
            "judged": str(done.judged),
            "revoked": str(done.revoked),
            "took_ms": f"{done.took_ms:.3f}",
        }
        try:
            await self._store.commit(lambda db: journal.append(db, Entry("policy", now_ns(), "", "policy", body)))
        except DeskwardenError as error:
            _logger.error("policy: %s", error.message)  # noqa: TRY400 - the text says it all
