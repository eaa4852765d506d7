from supervisor._proto.deskwarden.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("session_id", "agent", "purpose", "workspace", "network", "grants", "open_requests", "askable", "is_attended")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    WORKSPACE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    OPEN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ASKABLE_FIELD_NUMBER: _ClassVar[int]
    IS_ATTENDED_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    agent: str
    purpose: str
    workspace: str
    network: str
    grants: _containers.RepeatedCompositeFieldContainer[_types_pb2.Grant]
    open_requests: _containers.RepeatedCompositeFieldContainer[_types_pb2.RequestState]
    askable: _containers.RepeatedCompositeFieldContainer[_types_pb2.Capability]
    is_attended: bool
    def __init__(self, session_id: _Optional[str] = ..., agent: _Optional[str] = ..., purpose: _Optional[str] = ..., workspace: _Optional[str] = ..., network: _Optional[str] = ..., grants: _Optional[_Iterable[_Union[_types_pb2.Grant, _Mapping]]] = ..., open_requests: _Optional[_Iterable[_Union[_types_pb2.RequestState, _Mapping]]] = ..., askable: _Optional[_Iterable[_Union[_types_pb2.Capability, _Mapping]]] = ..., is_attended: _Optional[bool] = ...) -> None: ...

class RequestRequest(_message.Message):
    __slots__ = ("capability", "reason", "duration_s", "uses", "expected_outcome", "rollback")
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    capability: _types_pb2.Capability
    reason: str
    duration_s: int
    uses: int
    expected_outcome: str
    rollback: str
    def __init__(self, capability: _Optional[_Union[_types_pb2.Capability, _Mapping]] = ..., reason: _Optional[str] = ..., duration_s: _Optional[int] = ..., uses: _Optional[int] = ..., expected_outcome: _Optional[str] = ..., rollback: _Optional[str] = ...) -> None: ...

class RequestResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: _types_pb2.RequestState
    def __init__(self, state: _Optional[_Union[_types_pb2.RequestState, _Mapping]] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: _types_pb2.RequestState
    def __init__(self, state: _Optional[_Union[_types_pb2.RequestState, _Mapping]] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class CancelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("grant_id",)
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    grant_id: str
    def __init__(self, grant_id: _Optional[str] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UseSecretRequest(_message.Message):
    __slots__ = ("grant_id",)
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    grant_id: str
    def __init__(self, grant_id: _Optional[str] = ...) -> None: ...

class UseSecretResponse(_message.Message):
    __slots__ = ("value", "added_for_hosts", "uses_left", "expires_ns")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ADDED_FOR_HOSTS_FIELD_NUMBER: _ClassVar[int]
    USES_LEFT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    added_for_hosts: _containers.RepeatedScalarFieldContainer[str]
    uses_left: int
    expires_ns: int
    def __init__(self, value: _Optional[bytes] = ..., added_for_hosts: _Optional[_Iterable[str]] = ..., uses_left: _Optional[int] = ..., expires_ns: _Optional[int] = ...) -> None: ...

class StartChildRequest(_message.Message):
    __slots__ = ("agent", "command", "grant_ids", "duration_s", "reason")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    GRANT_IDS_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    agent: str
    command: _containers.RepeatedScalarFieldContainer[str]
    grant_ids: _containers.RepeatedScalarFieldContainer[str]
    duration_s: int
    reason: str
    def __init__(self, agent: _Optional[str] = ..., command: _Optional[_Iterable[str]] = ..., grant_ids: _Optional[_Iterable[str]] = ..., duration_s: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class StartChildResponse(_message.Message):
    __slots__ = ("session_id", "grants", "expires_ns")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    grants: _containers.RepeatedCompositeFieldContainer[_types_pb2.Grant]
    expires_ns: int
    def __init__(self, session_id: _Optional[str] = ..., grants: _Optional[_Iterable[_Union[_types_pb2.Grant, _Mapping]]] = ..., expires_ns: _Optional[int] = ...) -> None: ...

class WhyRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WhyResponse(_message.Message):
    __slots__ = ("id", "capability", "phase", "reasons", "next_steps", "rules", "policy_revision", "decided_ns")
    ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEPS_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    DECIDED_NS_FIELD_NUMBER: _ClassVar[int]
    id: str
    capability: _types_pb2.Capability
    phase: _types_pb2.Phase
    reasons: _containers.RepeatedCompositeFieldContainer[_types_pb2.Reason]
    next_steps: _containers.RepeatedScalarFieldContainer[str]
    rules: _containers.RepeatedScalarFieldContainer[str]
    policy_revision: str
    decided_ns: int
    def __init__(self, id: _Optional[str] = ..., capability: _Optional[_Union[_types_pb2.Capability, _Mapping]] = ..., phase: _Optional[_Union[_types_pb2.Phase, str]] = ..., reasons: _Optional[_Iterable[_Union[_types_pb2.Reason, _Mapping]]] = ..., next_steps: _Optional[_Iterable[str]] = ..., rules: _Optional[_Iterable[str]] = ..., policy_revision: _Optional[str] = ..., decided_ns: _Optional[int] = ...) -> None: ...
