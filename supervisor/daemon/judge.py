"""The broker's judge: gathers the facts about a request (manifest, roles, ceiling), and lets policy decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, cast

from supervisor.broker.ask import SessionParty
from supervisor.broker.doors import Circumstances
from supervisor.clock import now_ns
from supervisor.daemon.active_policy import Active
from supervisor.errors import RefusedError, ServiceError
from supervisor.policy.capability import Level
from supervisor.policy.decide import decide
from supervisor.policy.decision import Decision
from supervisor.policy.engine import Engine
from supervisor.policy.expired import without_allow
from supervisor.policy.facts import AgentClass, ChainFacts, Facts, ManifestFacts, OwnerFacts
from supervisor.policy.request import CapabilityRequest
from supervisor.policy.role import Role, resolve
from supervisor.policy.standing import Standing

Answer = Literal["always", "never", "none"]
# A policy that is replaced while it decides decides again; nobody replaces one this often.
_TRIES: Final = 3


class Judge:
    """Decides with what is known now.

    Args:
        active: The policy in force; asked each time, since it may be replaced.
        human: Who a uid is, by the name under which their votes count: what policy excludes fits the votes then.
    """

    def __init__(self, engine: Engine, active: Callable[[], Active | None], human: Callable[[int], str]) -> None:
        self._engine = engine
        self._active = active
        self._human = human
        self._standings: dict[str, Standing] = {}

    def open_session(self, session_id: str, standing: Standing) -> None:
        """Know what stands behind a session."""
        self._standings[session_id] = standing

    def close_session(self, session_id: str) -> None:
        """Forget a session."""
        self._standings.pop(session_id, None)

    def standing_of(self, session_id: str) -> Standing:
        """Return what stands behind a session.

        Raises:
            RefusedError: It does not run.
        """
        standing = self._standings.get(session_id)
        if standing is None:
            raise RefusedError(f"no running session {session_id}")
        return standing

    async def judge(self, request: CapabilityRequest, party: SessionParty, circumstances: Circumstances) -> Decision:
        """Return the decision; see `broker.doors.Judge`. Facts and rules are always of one and the same policy.

        Raises:
            ServiceError: The policy was replaced again and again meanwhile.
        """
        for _ in range(_TRIES):
            active = self._active()
            decision = await self._judge_by(active, request, party, circumstances)
            # Whoever loads a policy makes it the active one before an answer of it is read.
            if self._active() is active:
                if active is not None and active.is_expired(now_ns() // 10**9):
                    return without_allow(decision, party.agent_class == "user-owned")
                return decision
        raise ServiceError("the policy is being replaced", "ask again")

    async def _judge_by(
        self, active: Active | None, request: CapabilityRequest, party: SessionParty, circumstances: Circumstances
    ) -> Decision:
        standing, now_s = self.standing_of(party.id), now_ns() // 10**9
        manifest = standing.manifest
        # What has expired while the agent runs covers nothing any more.
        entry = standing.entry_for(request.capability) if now_s < manifest.expires else None
        bindings: tuple[Role, ...] = active.roles.bindings if active is not None else ()
        named = [role for role in bindings if role.binding in manifest.roles]
        facts = Facts(
            now_s=now_s,
            agent_class=cast("AgentClass", party.agent_class),
            manifest=ManifestFacts(
                digest=manifest.digest,
                signed_by=standing.signed_by,
                covers=entry is not None,
                capability=entry.id if entry else "",
                level_max=entry.label_max if entry else Level.PUBLIC,
                duration_max_s=manifest.duration_max_s,
            ),
            role=resolve(named, request.capability, now_s),
            owner=OwnerFacts(party.owner_uid, self._human(party.owner_uid), party.consented),
            rule_answer=cast("Answer", circumstances.answer),
            launch=circumstances.launch,
            asked=circumstances.asked,
            denied=circumstances.denied,
            chain=ChainFacts(len(party.chain), len(party.chain), circumstances.parent_covers),
        )
        return await decide(request, facts, self._engine)
