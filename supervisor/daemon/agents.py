"""Sessions as agents that may ask: each gets its door, a party in the broker, and what stands behind it."""

from __future__ import annotations

import os
import pwd
import time

from supervisor.broker.ask import SessionParty
from supervisor.broker.broker import Broker
from supervisor.clock import now_ns
from supervisor.daemon.judge import Judge
from supervisor.daemon.openings import Openings
from supervisor.daemon.peer import Place
from supervisor.daemon.relay import Relay
from supervisor.daemon.standings import Standings
from supervisor.policy.standing import Standing, consent
from supervisor.sandbox.plan import Owner
from supervisor.session.launch import Request
from supervisor.session.service import SessionObserver
from supervisor.session.session import Session

TRUST_DOMAIN = "local"


class Agents(SessionObserver):
    """Tells the broker of sessions, and opens their doors."""

    def __init__(self, broker: Broker, judge: Judge, relay: Relay, standings: Standings) -> None:
        self._broker = broker
        self._standings = standings
        self._judge = judge
        self._relay = relay
        self._openings = Openings(broker, time.monotonic)

    def door_of(self, session_id: str) -> str:
        """Listen for a session that is about to start; nobody is heard before `started`."""
        return self._relay.listen(session_id)

    async def starting(self, session_id: str, owner: Owner, request: Request) -> None:
        """Record a launch with a signed manifest."""
        await self._standings.record(session_id, owner.uid, request)

    def started(self, session: Session, request: Request) -> None:
        """Hear the agent from now on."""
        record = session.record
        name = os.path.basename(record.argv[0])[:64] or "agent"
        owner = _account_of(record.owner_uid)
        standing = request.standing or consent(name, owner, now_ns() // 10**9)
        self._judge.open_session(record.id, standing)
        self._broker.open_session(_party(session, standing, owner))
        # A rootless daemon counts in its own user namespace, where the owner, and so the agent, is 0.
        agent_uid = 0 if session.plan.inner_userns else record.agent_uid
        self._relay.open(Place(record.id, agent_uid, _pid_namespace(record.pid), "", session.roots))

    def opened(self, session: Session, stub: str, path: str, pid: int) -> None:
        """Ask for an ask-list name that was opened, where somebody is there to answer."""
        self._openings.hear(session.record.id, stub, path, attended=session.is_attended)

    async def ended(self, session_id: str) -> None:
        """Close the door, and end what the session asked for and had."""
        self._relay.close(session_id)
        self._openings.forget(session_id)
        await self._broker.close_session(session_id)
        self._judge.close_session(session_id)


def _party(session: Session, standing: Standing, owner: str) -> SessionParty:
    record, manifest = session.record, standing.manifest
    return SessionParty(
        id=record.id,
        name=record.name,
        agent=f"spiffe://{TRUST_DOMAIN}/agent/{standing.agent_class}/{manifest.name}",
        agent_class=standing.agent_class,
        publisher=manifest.publisher if "publisher" in standing.signed_by else manifest.name,
        owner_uid=record.owner_uid,
        owner_name=owner,
        owner_home=session.plan.command.environment["HOME"],
        project=record.workspace,
        manifest_digest=manifest.digest,
        purpose=manifest.purpose,
        consented=standing.consented,
    )


def _account_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def _pid_namespace(pid: int) -> int:
    """Return the inode of a process's pid namespace, or 0 where that may not be read (ptrace(2))."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return 0
