from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_FILE: _ClassVar[Kind]
    KIND_EXEC: _ClassVar[Kind]
    KIND_SECRET: _ClassVar[Kind]
    KIND_NETWORK: _ClassVar[Kind]
    KIND_AGENT: _ClassVar[Kind]

class Operation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATION_UNSPECIFIED: _ClassVar[Operation]
    OPERATION_READ: _ClassVar[Operation]
    OPERATION_WRITE: _ClassVar[Operation]
    OPERATION_RUN: _ClassVar[Operation]
    OPERATION_USE: _ClassVar[Operation]
    OPERATION_CONNECT: _ClassVar[Operation]
    OPERATION_SPAWN: _ClassVar[Operation]

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_SUBMITTED: _ClassVar[Phase]
    PHASE_AWAITING_OWNER: _ClassVar[Phase]
    PHASE_AWAITING_REVIEW: _ClassVar[Phase]
    PHASE_GRANTED: _ClassVar[Phase]
    PHASE_DENIED: _ClassVar[Phase]
    PHASE_WITHDRAWN: _ClassVar[Phase]
    PHASE_LAPSED: _ClassVar[Phase]
KIND_UNSPECIFIED: Kind
KIND_FILE: Kind
KIND_EXEC: Kind
KIND_SECRET: Kind
KIND_NETWORK: Kind
KIND_AGENT: Kind
OPERATION_UNSPECIFIED: Operation
OPERATION_READ: Operation
OPERATION_WRITE: Operation
OPERATION_RUN: Operation
OPERATION_USE: Operation
OPERATION_CONNECT: Operation
OPERATION_SPAWN: Operation
PHASE_UNSPECIFIED: Phase
PHASE_SUBMITTED: Phase
PHASE_AWAITING_OWNER: Phase
PHASE_AWAITING_REVIEW: Phase
PHASE_GRANTED: Phase
PHASE_DENIED: Phase
PHASE_WITHDRAWN: Phase
PHASE_LAPSED: Phase

class Capability(_message.Message):
    __slots__ = ("kind", "selector", "operations")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    kind: Kind
    selector: str
    operations: _containers.RepeatedScalarFieldContainer[Operation]
    def __init__(self, kind: _Optional[_Union[Kind, str]] = ..., selector: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[Operation, str]]] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class RequestState(_message.Message):
    __slots__ = ("request_id", "phase", "risk", "reasons", "next_steps", "waiting_for", "pending_until_ns", "grant")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEPS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    PENDING_UNTIL_NS_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    phase: Phase
    risk: str
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    next_steps: _containers.RepeatedScalarFieldContainer[str]
    waiting_for: _containers.RepeatedScalarFieldContainer[str]
    pending_until_ns: int
    grant: Grant
    def __init__(self, request_id: _Optional[str] = ..., phase: _Optional[_Union[Phase, str]] = ..., risk: _Optional[str] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., next_steps: _Optional[_Iterable[str]] = ..., waiting_for: _Optional[_Iterable[str]] = ..., pending_until_ns: _Optional[int] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("grant_id", "capability", "paths", "is_copy", "expires_ns", "max_uses", "uses_left")
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    PATHS_FIELD_NUMBER: _ClassVar[int]
    IS_COPY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_USES_FIELD_NUMBER: _ClassVar[int]
    USES_LEFT_FIELD_NUMBER: _ClassVar[int]
    grant_id: str
    capability: Capability
    paths: _containers.RepeatedScalarFieldContainer[str]
    is_copy: bool
    expires_ns: int
    max_uses: int
    uses_left: int
    def __init__(self, grant_id: _Optional[str] = ..., capability: _Optional[_Union[Capability, _Mapping]] = ..., paths: _Optional[_Iterable[str]] = ..., is_copy: _Optional[bool] = ..., expires_ns: _Optional[int] = ..., max_uses: _Optional[int] = ..., uses_left: _Optional[int] = ...) -> None: ...

class ErrorDetails(_message.Message):
    __slots__ = ("reason", "next_steps")
    REASON_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEPS_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    next_steps: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, reason: _Optional[_Union[Reason, _Mapping]] = ..., next_steps: _Optional[_Iterable[str]] = ...) -> None: ...
