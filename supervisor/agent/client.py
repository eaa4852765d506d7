"""The broker's client for programs in a sandbox: dataclasses in, dataclasses out, errors with a reason and next steps.

    with AgentClient() as broker:
        grant = broker.obtain(Ask("file:read", "~/finance/*.xlsx", reason="summarise Q2", duration_s=1200))

Synchronous, safe to use from several threads. Who calls, the socket says: there is nothing to log in with.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Self, TypeVar

import grpc
from google.protobuf.message import DecodeError

from supervisor._proto.deskwarden.v1 import agent_pb2, agent_pb2_grpc, types_pb2
from supervisor.agent import messages
from supervisor.agent.values import Access, Ask, Child, DeskwardenDenied, Explanation, Grant, SecretUse, State
from supervisor.errors import DeskwardenError, ServiceError, UsageError

SOCKET: Final = "/run/deskwarden/agent.sock"
_ERROR_KEY: Final = "deskwarden-error-bin"
# A call that nobody answers for: the daemon decides at once, and taking a grant back is bounded in milliseconds.
CALL_S: Final = 30.0
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)

_T = TypeVar("_T")


class AgentClient:
    """One connection to the broker.

    Raises:
        DeskwardenDenied: From every method: the broker refuses.
        ServiceError: From every method: it cannot be reached.
        UsageError: From every method: an argument is not what it takes.
    """

    def __init__(self, path: str = SOCKET) -> None:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        self._path = path
        self._channel = grpc.insecure_channel(f"unix:{path}", options=_OPTIONS)
        self._broker = agent_pb2_grpc.CapabilityBrokerStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; open requests stay open."""
        self._channel.close()

    def describe(self) -> Access:
        """Return what this session has and may ask for."""
        return messages.access_of(self._call(self._broker.Describe, agent_pb2.DescribeRequest()))

    def request(self, ask: Ask, timeout_s: float | None = None) -> Iterator[State]:
        """Ask for one capability; yield its states, the first with its id, until a final one.

        The request stays when you stop listening, or *timeout_s* is over (the iteration then just ends): `follow` it.
        """
        return self._stream(self._broker.Request, messages.message_of(ask), timeout_s)

    def follow(self, request_id: str, timeout_s: float | None = None) -> Iterator[State]:
        """Yield the states of a request made before, from the present one on; as `request`."""
        return self._stream(self._broker.Follow, agent_pb2.FollowRequest(request_id=request_id), timeout_s)

    def obtain(self, ask: Ask) -> Grant:
        """Ask, wait for people where they are asked, and return the grant.

        Raises:
            DeskwardenDenied: It was denied, or nobody answered in time.
        """
        for state in self.request(ask):
            if state.grant:
                return state.grant
            if state.is_final:
                raise DeskwardenDenied.of(state)
        raise ServiceError("the broker ended the stream before it decided", "ask again")

    def cancel(self, request_id: str) -> None:
        """Withdraw a request that is not decided."""
        self._call(self._broker.Cancel, agent_pb2.CancelRequest(request_id=request_id))

    def release(self, grant_id: str) -> None:
        """Give a grant back."""
        self._call(self._broker.Release, agent_pb2.ReleaseRequest(grant_id=grant_id))

    def use_secret(self, grant_id: str) -> SecretUse:
        """Use a secret once. Never write its value to a file."""
        use = self._call(self._broker.UseSecret, agent_pb2.UseSecretRequest(grant_id=grant_id))
        return SecretUse(use.value, tuple(use.added_for_hosts), use.uses_left, use.expires_ns)

    def start_child(
        self, agent: str, command: Iterable[str] = (), *, reason: str, grants: Iterable[str] = (), duration_s: int = 0
    ) -> Child:
        """Start another agent in a sandbox of its own, with those of the caller's grants."""
        message = agent_pb2.StartChildRequest(
            agent=agent, command=command, grant_ids=grants, duration_s=duration_s, reason=reason
        )
        child = self._call(self._broker.StartChild, message)
        return Child(child.session_id, tuple(map(messages.grant_of, child.grants)), child.expires_ns)

    def why(self, subject_id: str = "") -> Explanation:
        """Explain a request or a grant; without an id, the last refusal."""
        return messages.explanation_of(self._call(self._broker.Why, agent_pb2.WhyRequest(id=subject_id)))

    def _call(self, method: Callable[..., _T], message: object) -> Any:
        try:
            return method(message, timeout=CALL_S)
        except grpc.RpcError as error:
            raise self._error_of(error) from None

    def _stream(self, method: Callable[..., Any], message: object, timeout_s: float | None) -> Iterator[State]:
        call = method(message, timeout=timeout_s)
        try:
            for response in call:
                yield messages.state_of(response.state)
        except grpc.RpcError as error:
            if timeout_s is None or _code(error) is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise self._error_of(error) from None
        finally:
            call.cancel()

    def _error_of(self, error: grpc.RpcError) -> DeskwardenError:
        """Return what a failed call means."""
        details = _details(error)
        code = _code(error)
        if details is None and code is grpc.StatusCode.UNAVAILABLE:
            if os.path.exists(self._path):
                return ServiceError("the broker does not answer", "try again; then: deskwarden status, outside")
            return ServiceError(f"no broker: {self._path} is not here", "outside: deskwarden run -- CMD…")
        if details is None:
            return ServiceError(f"the broker failed: {code.name.lower()}", "try again")
        text, steps = details.reason.text, tuple(details.next_steps)
        next_step = steps[0] if steps else ""
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            return UsageError(text, next_step)
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
            return ServiceError(text, next_step)
        return DeskwardenDenied(details.reason.code, text, steps)


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    code = getattr(error, "code", None)  # grpc raises objects that are both an RpcError and a Call
    return code() if code else grpc.StatusCode.UNKNOWN


def _details(error: grpc.RpcError) -> types_pb2.ErrorDetails | None:
    trailing: Iterable[tuple[str, Any]] = getattr(error, "trailing_metadata", list)()
    for key, value in trailing or ():
        if key == _ERROR_KEY:
            with contextlib.suppress(DecodeError):
                return types_pb2.ErrorDetails.FromString(value)
    return None
