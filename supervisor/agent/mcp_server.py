"""The broker as MCP tools on stdin and stdout, for any agent that speaks the Model Context Protocol.

A denial is an answer of a tool that works: ``status: denied`` with reasons and next steps, not ``isError``, which
models take for a fault that may go away. ``isError`` is for what failed: a bad argument, no broker.
There is no tool that returns a secret: what a tool returns enters the model's context and leaves the machine with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, TypeVar

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from supervisor.agent.client import AgentClient
from supervisor.agent.mcp_models import (
    Access,
    Done,
    Explained,
    Outcome,
    Started,
    Type,
    grant_of,
    outcome_of,
    reasons_of,
)
from supervisor.agent.values import Ask, Explanation, State
from supervisor.errors import DeskwardenError

# Clients give a tool about a minute; a person may take longer: the model calls again.
MAX_WAIT_S: Final = 50
# Policy answers in milliseconds; a person is not waited for.
_DECIDE_S: Final = 30.0

_INSTRUCTIONS: Final = """\
You run in a Deskwarden sandbox. Files, programs, network hosts and secrets outside it are refused until you ask and \
are granted them, for a limited time. Ask for the narrowest thing that does the job, with an honest reason: a person \
may read it. When something is denied, do not try to get it another way and do not repeat the same request: follow \
next_steps. Give back what you no longer need."""

RequestId = Annotated[str, Field(description="request_id of an earlier request_access", max_length=64)]
GrantId = Annotated[str, Field(description="grant_id from describe_access or request_access", max_length=64)]
_T = TypeVar("_T")


class _Tools:
    """The tools; the broker is connected to at the first call, so that listing them needs none."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._client: AgentClient | None = None

    def describe_access(self) -> Access:
        """Show what you may use right now and what you may ask for. Call it first, and when something is refused."""
        access = self._ask(AgentClient.describe)
        return Access(
            session=access.session,
            workspace=access.workspace,
            network=access.network,
            purpose=access.purpose,
            grants=[grant_of(one) for one in access.grants],
            open_requests=[outcome_of(one) for one in access.open_requests],
            may_ask_for=[f"{type_} {target}" for type_, target in access.askable],
            somebody_answers=access.is_attended,
        )

    def request_access(
        self,
        type: Type,  # noqa: A002 - the word of the command line
        target: Annotated[
            str,
            Field(
                description="file: an absolute path, ~/path, a pattern such as ~/finance/*.xlsx, or ~/folder/** for a "
                "tree; exec: a program's path; secret: its name; net: host:port; agent.call: an agent's name",
                min_length=1,
                max_length=4095,
            ),
        ],
        reason: Annotated[str, Field(description="what it is for, in one sentence", min_length=1, max_length=2000)],
        duration_seconds: Annotated[int, Field(description="as short as will do", ge=0, le=604800)] = 0,
        expected_outcome: Annotated[str, Field(description="what will be different afterwards", max_length=2000)] = "",
        rollback: Annotated[str, Field(description="how to undo it", max_length=2000)] = "",
    ) -> Outcome:
        """Ask for access to one thing outside the sandbox. Answers at once: granted, denied or waiting.

        While a person is asked, status is waiting: go on with other work, then call wait_for_request.
        """
        ask = Ask(type, target, reason, duration_seconds, 0, expected_outcome, rollback)
        return self._ask(lambda broker: _last(broker.request(ask, _DECIDE_S), until_waiting=True))

    def wait_for_request(
        self,
        request_id: RequestId,
        timeout_seconds: Annotated[
            int, Field(description="at most; call again when still waiting", ge=1, le=MAX_WAIT_S)
        ] = 30,
    ) -> Outcome:
        """Wait until a request is granted or denied."""
        return self._ask(
            lambda broker: _last(broker.follow(request_id, timeout_seconds), until_waiting=False, request_id=request_id)
        )

    def cancel_request(self, request_id: RequestId) -> Outcome:
        """Withdraw a request that you no longer need."""
        self._ask(lambda broker: broker.cancel(request_id))
        return Outcome(status="cancelled", request_id=request_id, reasons=[], next_steps=[], waiting_for=[])

    def release_access(self, grant_id: GrantId) -> Done:
        """Give a grant back as soon as you no longer need it."""
        self._ask(lambda broker: broker.release(grant_id))
        return Done(released=grant_id)

    def explain_denial(
        self, request_id: Annotated[str, Field(description="empty: the last refusal", max_length=64)] = ""
    ) -> Explained:
        """Explain why a request was denied, by which rules, and what you can do instead."""
        why: Explanation = self._ask(lambda broker: broker.why(request_id))
        return Explained(
            request_id=why.id,
            type=why.type,
            target=why.target,
            status=why.phase,
            reasons=reasons_of(why.reasons),
            next_steps=list(why.next_steps),
            rules=list(why.rules),
        )

    def start_agent(
        self,
        agent: Annotated[
            str, Field(description="its name, as your grant of agent.call:spawn names it", max_length=4095)
        ],
        reason: Annotated[str, Field(description="what it is for, in one sentence", min_length=1, max_length=2000)],
        command: Annotated[list[str], Field(description="what to run; empty: as its profile says")] = [],  # noqa: B006 - the SDK copies it
        grant_ids: Annotated[list[str], Field(description="your grants that it gets too", max_length=64)] = [],  # noqa: B006
        duration_seconds: Annotated[int, Field(ge=0, le=604800)] = 0,
    ) -> Started:
        """Start another agent in a sandbox of its own, with a part of what you have. Needs agent.call:spawn."""
        child = self._ask(
            lambda broker: broker.start_child(
                agent, command, reason=reason, grants=grant_ids, duration_s=duration_seconds
            )
        )
        return Started(session=child.session, grants=[grant_of(one) for one in child.grants])

    def _ask(self, call: Callable[[AgentClient], _T]) -> _T:
        with self._lock:
            if self._client is None:
                self._client = AgentClient(self._path)
        try:
            return call(self._client)
        except DeskwardenError as error:
            steps = getattr(error, "next_steps", ()) or (error.next_step,)
            code = getattr(error, "reason_code", "failed")
            raise ToolError(f"{code}: {error.message}. Next: {'; '.join(filter(None, steps)) or 'none'}") from error


def _last(states: Iterator[State], *, until_waiting: bool, request_id: str = "") -> Outcome:
    state = None
    for state in states:
        if state.is_final or (until_waiting and state.waiting_for):
            break
    if state is None and not request_id:
        raise DeskwardenError("the broker did not answer in time", "call describe_access")
    return outcome_of(state or State(request_id, "", "", (), (), (), 0, None))


def build(path: str) -> MCPServer[Any]:
    """Return the server with its tools; the broker is at the socket *path*."""
    server: MCPServer[Any] = MCPServer("deskwarden", instructions=_INSTRUCTIONS, version="0.1.0", log_level="ERROR")
    tools = _Tools(path)
    looks = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    gives_back = ToolAnnotations(
        read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    asks = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
    for tool, hints in (
        (tools.describe_access, looks),
        (tools.request_access, asks),
        (tools.wait_for_request, looks),
        (tools.cancel_request, gives_back),
        (tools.release_access, gives_back),
        (tools.explain_denial, looks),
        (tools.start_agent, asks),
    ):
        server.add_tool(tool, annotations=hints)
    return server


def serve(path: str) -> None:
    """Serve until stdin ends."""
    build(path).run("stdio")
