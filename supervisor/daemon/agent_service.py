"""The gRPC server for all agents: messages become values here, and `AgentDoor` answers. It decides nothing.

Whose call it is, the relay says by the name that the connection comes from; a call that came another way is refused.
The daemon must not fork any more once this is imported and started (gRPC has threads of its own).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any, Final, NoReturn

import grpc

from supervisor._proto.deskwarden.v1 import agent_pb2, agent_pb2_grpc, types_pb2
from supervisor.broker.agent_door import AgentDoor, DeniedError, RequestState
from supervisor.daemon import agent_messages as messages
from supervisor.errors import (
    ConflictError,
    DeskwardenError,
    LayerMissingError,
    NotFoundError,
    RefusedError,
    ServiceError,
    UsageError,
)
from supervisor.policy.decision import Reason

_logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 256 << 10
MAX_METADATA_BYTES: Final = 8 << 10
# Of one session: an agent has a handful; each waits in the daemon's memory.
MAX_IN_FLIGHT: Final = 64
MAX_STREAMS_A_CONNECTION: Final = 100
# What is larger than a stream's window waits at the sender (RFC 9113, section 6.9).
_IDLE_MS: Final = 10 * 60 * 1000
_GRACE_S: Final = 1.0
ERROR_KEY: Final = "deskwarden-error-bin"

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", 4 * MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_STREAMS_A_CONNECTION),
    ("grpc.max_connection_idle_ms", _IDLE_MS),
    # A ping that nobody needs costs the daemon a wake-up: two are forgiven, then the connection ends.
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.http2.min_ping_interval_without_data_ms", 300_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.so_reuseport", 0),
)

# The class says who has to act: status code, and the reason's code where the error has none of its own.
_STATUS: Final = (
    (LayerMissingError, grpc.StatusCode.FAILED_PRECONDITION, "layer-missing"),
    (RefusedError, grpc.StatusCode.PERMISSION_DENIED, "refused"),
    (UsageError, grpc.StatusCode.INVALID_ARGUMENT, "bad-request"),
    (NotFoundError, grpc.StatusCode.NOT_FOUND, "not-found"),
    (ConflictError, grpc.StatusCode.ABORTED, "conflict"),
    (ServiceError, grpc.StatusCode.UNAVAILABLE, "service"),
)

Context = grpc.aio.ServicerContext[Any, Any]


class _BusyError(DeniedError):
    """This session has too many calls in flight."""


class AgentService(agent_pb2_grpc.CapabilityBrokerServicer):
    """One method a call.

    Args:
        session_of: Returns whose connection it is that gRPC calls by that peer name, or None: the relay's.
    """

    def __init__(self, door: AgentDoor, session_of: Callable[[str], str | None]) -> None:
        self._door = door
        self._session_of = session_of
        self._in_flight: Counter[str] = Counter()

    async def Describe(self, request: agent_pb2.DescribeRequest, context: Context) -> agent_pb2.DescribeResponse:  # noqa: N802
        async with self._call(context) as session:
            return messages.description_to(session, await self._door.describe(session))

    async def Request(  # noqa: N802
        self, request: agent_pb2.RequestRequest, context: Context
    ) -> AsyncIterator[agent_pb2.RequestResponse]:
        async with self._call(context) as session:
            ask = messages.ask_of(request)
            async with _states(self._door.request(session, ask)) as states:
                async for state in states:
                    yield agent_pb2.RequestResponse(state=messages.state_to(state))

    async def Follow(  # noqa: N802
        self, request: agent_pb2.FollowRequest, context: Context
    ) -> AsyncIterator[agent_pb2.FollowResponse]:
        async with self._call(context) as session:
            request_id = messages.id_of("request_id", request.request_id)
            async with _states(self._door.follow(session, request_id)) as states:
                async for state in states:
                    yield agent_pb2.FollowResponse(state=messages.state_to(state))

    async def Cancel(self, request: agent_pb2.CancelRequest, context: Context) -> agent_pb2.CancelResponse:  # noqa: N802
        async with self._call(context) as session:
            await self._door.cancel(session, messages.id_of("request_id", request.request_id))
            return agent_pb2.CancelResponse()

    async def Release(self, request: agent_pb2.ReleaseRequest, context: Context) -> agent_pb2.ReleaseResponse:  # noqa: N802
        async with self._call(context) as session:
            await self._door.release(session, messages.id_of("grant_id", request.grant_id))
            return agent_pb2.ReleaseResponse()

    async def UseSecret(self, request: agent_pb2.UseSecretRequest, context: Context) -> agent_pb2.UseSecretResponse:  # noqa: N802
        async with self._call(context) as session:
            use = await self._door.use_secret(session, messages.id_of("grant_id", request.grant_id))
            return agent_pb2.UseSecretResponse(
                value=use.value,
                added_for_hosts=use.added_for_hosts,
                uses_left=use.uses_left,
                expires_ns=use.expires_ns,
            )

    async def StartChild(self, request: agent_pb2.StartChildRequest, context: Context) -> agent_pb2.StartChildResponse:  # noqa: N802
        async with self._call(context) as session:
            return messages.child_to(await self._door.start_child(session, messages.child_ask_of(request)))

    async def Why(self, request: agent_pb2.WhyRequest, context: Context) -> agent_pb2.WhyResponse:  # noqa: N802
        async with self._call(context) as session:
            subject = messages.id_of("id", request.id, needed=False)
            return messages.explanation_to(await self._door.why(session, subject))

    @contextlib.asynccontextmanager
    async def _call(self, context: Context) -> AsyncIterator[str]:
        """Yield whose call it is; what is raised inside ends the call with a status and `ErrorDetails`."""
        session = self._session_of(context.peer())
        if session is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "not a session's connection")
        try:
            with self._counted(session):
                yield session
        except DeskwardenError as error:
            await _abort(context, error)
        except (grpc.RpcError, grpc.aio.AbortError):
            raise
        except Exception as error:  # the boundary of a call: a bug answers this one and serves the next
            _logger.exception("call of session %s", session)
            await _abort(context, DeskwardenError(f"internal error: {type(error).__name__}"))

    @contextlib.contextmanager
    def _counted(self, session: str) -> Iterator[None]:
        if self._in_flight[session] >= MAX_IN_FLIGHT:
            reason = Reason("too-many-calls", f"{MAX_IN_FLIGHT} calls of this session are open")
            raise _BusyError(reason, ("wait for those, or cancel some",))
        self._in_flight[session] += 1
        try:
            yield
        finally:
            self._in_flight[session] -= 1
            if not self._in_flight[session]:
                del self._in_flight[session]


def _states(states: AsyncGenerator[RequestState, None]) -> contextlib.aclosing[AsyncGenerator[RequestState, None]]:
    """Close the generator when the caller goes away: the broker stops listening for it at once."""
    return contextlib.aclosing(states)


def _status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    for cls, status, code in _STATUS:
        if isinstance(error, cls):
            return status, code
    return grpc.StatusCode.INTERNAL, "failed"


async def _abort(context: Context, error: DeskwardenError) -> NoReturn:
    """End the call with what a program and a model can use."""
    status, code = _status_of(error)
    steps: tuple[str, ...] = (error.next_step,) if error.next_step else ()
    if isinstance(error, DeniedError):
        code, steps = error.reason.code, error.next_steps
    if isinstance(error, _BusyError):
        status = grpc.StatusCode.RESOURCE_EXHAUSTED
    details = types_pb2.ErrorDetails(reason=types_pb2.Reason(code=code, text=error.message), next_steps=steps)
    # A status message is a header: it is cut, the details are not.
    await context.abort(status, error.message[:500], ((ERROR_KEY, details.SerializeToString()),))


class AgentServer:
    """The server, on a socket in the daemon's own directory that only the relay connects to."""

    def __init__(self, door: AgentDoor, session_of: Callable[[str], str | None], path: str) -> None:
        _quiet()
        self._path = path
        self._server = grpc.aio.server(options=_OPTIONS)
        agent_pb2_grpc.add_CapabilityBrokerServicer_to_server(AgentService(door, session_of), self._server)

    async def start(self) -> None:
        """Listen.

        Raises:
            ServiceError: The socket cannot be made.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        before = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{self._path}")
            await self._server.start()
        except RuntimeError as error:
            raise ServiceError(f"listen on {self._path}: {error}") from error
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """End every call."""
        await self._server.stop(_GRACE_S)


def _quiet() -> None:
    """Keep gRPC's C core from writing what an agent sends to the daemon's stderr; no fork handlers: nothing forks."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    logging.getLogger("grpc").setLevel(logging.CRITICAL)
