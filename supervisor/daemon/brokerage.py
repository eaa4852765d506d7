"""The broker with everything around it, composed: policy worker, store, enforcers, relay, the agents' gRPC service."""

from __future__ import annotations

import os

from supervisor.broker.agent_access import AgentAccess
from supervisor.broker.broker import Broker
from supervisor.broker.people import Directory
from supervisor.broker.store import Store
from supervisor.broker.uses import Uses
from supervisor.config import managed_policies
from supervisor.daemon.agent_service import AgentServer
from supervisor.daemon.agents import Agents
from supervisor.daemon.approvers import Reader
from supervisor.daemon.approvers_watch import ApproversWatch
from supervisor.daemon.bootstrap import Foundation
from supervisor.daemon.judge import Judge
from supervisor.daemon.keyring import ManagedKeys
from supervisor.daemon.policy_client import WorkerEngine
from supervisor.daemon.policy_source import PolicySource, root_as_seen
from supervisor.daemon.relay import Relay
from supervisor.daemon.standings import Standings
from supervisor.daemon.upkeep import Upkeep
from supervisor.policy import sensitivity
from supervisor.policy.bundle_source import Bundle
from supervisor.policy.capability import Capability, Kind
from supervisor.policy.classifier import SYSTEM_CALLS
from supervisor.policy.worker_filter import CALLS, compile_calls
from supervisor.session.classifier import Classifier
from supervisor.session.file_grants import FileEnforcer
from supervisor.session.file_resolver import FileResolver
from supervisor.session.hands import Hands
from supervisor.session.launcher_client import LauncherClient
from supervisor.session.secret_grants import SecretEnforcer, SecretResolver
from supervisor.session.secret_keys import FileKeys
from supervisor.session.secret_sources import sources
from supervisor.session.secret_store import SecretStore
from supervisor.session.service import SessionService
from supervisor.session.workers import Worker


class Brokerage:
    """All that lets agents ask, and people answer."""

    def __init__(
        self,
        foundation: Foundation,
        service: SessionService,
        launcher: LauncherClient,
        hands: Hands,
        bundle: Bundle,
        approvers: Reader,
    ) -> None:
        places, rootless = foundation.places, foundation.rootless
        lender = None if rootless else service.uids
        self._store = Store(f"{places.state}/broker.db")
        worker = Worker(launcher, "policy", lender)
        self._engine = WorkerEngine(worker.start, worker.kill, compile_calls(CALLS))
        rules = sensitivity.default_rules()
        self._classifier = Classifier(
            Worker(launcher, "classifier", lender), compile_calls(SYSTEM_CALLS), rules.markers
        )
        self._judge = Judge(
            self._engine, lambda: self.upkeep.policy.active, lambda uid: self.broker.directory.of_uid(uid).human
        )
        self.secrets = SecretStore(f"{places.state}/secrets.db", FileKeys(f"{places.state}/keys"))
        secret_grants = SecretEnforcer(self.secrets, sources(hands), service)
        self.broker = Broker(
            self._store,
            self._judge,
            {
                Kind.FILE: FileResolver(hands, service, self._classifier, rules, (places.state, places.runtime)),
                Kind.SECRET: SecretResolver(self.secrets),
            },
            {Kind.FILE: FileEnforcer(launcher, hands, service, rootless), Kind.SECRET: secret_grants},
            Directory(),
            service.end_for,
        )
        self.approvers = approvers
        self._watch = ApproversWatch(approvers, self.broker)
        uses = Uses(self._store, self.broker.grants, secret_grants)
        source = PolicySource(managed_policies({} if rootless else os.environ), bundle, root_as_seen())
        self.upkeep = Upkeep(source, self._engine, self._store, self.broker)
        internal = f"{places.agents}/internal"
        self._relay = Relay(places.agents, internal)
        self._server = AgentServer(AgentAccess(self.broker, self._askable, uses), self._relay.session_of, internal)
        hands.living_grants = self._living_grants
        self.standings = Standings(self._store, hands, ManagedKeys(rootless, dict(os.environ)))
        service.observer = Agents(self.broker, self._judge, self._relay, self.standings)

    async def start(self) -> None:
        """Load the policy, end what a daemon that died left, and listen. Without a policy or a record all is denied.

        Raises:
            ServiceError: The agents' service cannot listen.
        """
        await self.upkeep.start()
        self._watch.start()
        await self.broker.start()
        await self._server.start()

    async def stop(self) -> None:
        """End everything; sessions have ended before."""
        self._watch.stop()
        self._relay.close_all()
        await self._server.stop()
        await self.upkeep.stop()
        await self.broker.stop()
        self._engine.close()
        self._classifier.close()
        self._store.close()
        self.secrets.close()

    def _living_grants(self, owner_uid: int) -> list[str]:
        tickets = self.broker.grants.in_force()
        return [one.grant.id for one in tickets if one.grant is not None and one.party.owner_uid == owner_uid]

    def _askable(self, session_id: str) -> tuple[Capability, ...]:
        return tuple(entry.capability for entry in self._judge.standing_of(session_id).manifest.entries)
