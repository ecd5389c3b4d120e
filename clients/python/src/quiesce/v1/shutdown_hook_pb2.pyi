import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from quiesce.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetHookInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetHookInfoResponse(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: _types_pb2.HookInfo
    def __init__(self, info: _Optional[_Union[_types_pb2.HookInfo, _Mapping]] = ...) -> None: ...

class CheckShutdownRequest(_message.Message):
    __slots__ = ("instance", "parameters")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    instance: str
    parameters: _containers.ScalarMap[str, str]
    def __init__(self, instance: _Optional[str] = ..., parameters: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CheckShutdownResponse(_message.Message):
    __slots__ = ("ok", "findings", "expected_duration")
    OK_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    findings: _containers.RepeatedScalarFieldContainer[str]
    expected_duration: _duration_pb2.Duration
    def __init__(self, ok: _Optional[bool] = ..., findings: _Optional[_Iterable[str]] = ..., expected_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("shutdown_id", "operation", "instance", "attempt", "kind", "grace_period", "deadline_time", "heartbeat_interval", "max_extension", "settle_period", "completion_token", "parameters", "target_cluster", "reason", "epoch")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SHUTDOWN_ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    GRACE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_TIME_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MAX_EXTENSION_FIELD_NUMBER: _ClassVar[int]
    SETTLE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    TARGET_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    shutdown_id: str
    operation: str
    instance: str
    attempt: int
    kind: _types_pb2.OperationKind
    grace_period: _duration_pb2.Duration
    deadline_time: _timestamp_pb2.Timestamp
    heartbeat_interval: _duration_pb2.Duration
    max_extension: _duration_pb2.Duration
    settle_period: _duration_pb2.Duration
    completion_token: str
    parameters: _containers.ScalarMap[str, str]
    target_cluster: str
    reason: str
    epoch: int
    def __init__(self, shutdown_id: _Optional[str] = ..., operation: _Optional[str] = ..., instance: _Optional[str] = ..., attempt: _Optional[int] = ..., kind: _Optional[_Union[_types_pb2.OperationKind, str]] = ..., grace_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., deadline_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_extension: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., settle_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., completion_token: _Optional[str] = ..., parameters: _Optional[_Mapping[str, str]] = ..., target_cluster: _Optional[str] = ..., reason: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class ShutdownResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _types_pb2.ShutdownStatus
    def __init__(self, status: _Optional[_Union[_types_pb2.ShutdownStatus, _Mapping]] = ...) -> None: ...

class GetShutdownRequest(_message.Message):
    __slots__ = ("shutdown_id",)
    SHUTDOWN_ID_FIELD_NUMBER: _ClassVar[int]
    shutdown_id: str
    def __init__(self, shutdown_id: _Optional[str] = ...) -> None: ...

class GetShutdownResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _types_pb2.ShutdownStatus
    def __init__(self, status: _Optional[_Union[_types_pb2.ShutdownStatus, _Mapping]] = ...) -> None: ...

class CancelShutdownRequest(_message.Message):
    __slots__ = ("shutdown_id", "reason")
    SHUTDOWN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    shutdown_id: str
    reason: str
    def __init__(self, shutdown_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelShutdownResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _types_pb2.ShutdownStatus
    def __init__(self, status: _Optional[_Union[_types_pb2.ShutdownStatus, _Mapping]] = ...) -> None: ...

class UpdateDeadlineRequest(_message.Message):
    __slots__ = ("shutdown_id", "grace_period", "deadline_time", "granted")
    SHUTDOWN_ID_FIELD_NUMBER: _ClassVar[int]
    GRACE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_TIME_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    shutdown_id: str
    grace_period: _duration_pb2.Duration
    deadline_time: _timestamp_pb2.Timestamp
    granted: bool
    def __init__(self, shutdown_id: _Optional[str] = ..., grace_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., deadline_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., granted: _Optional[bool] = ...) -> None: ...

class UpdateDeadlineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class KillApplicationRequest(_message.Message):
    __slots__ = ("shutdown_id", "completion_token", "reason")
    SHUTDOWN_ID_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    shutdown_id: str
    completion_token: str
    reason: str
    def __init__(self, shutdown_id: _Optional[str] = ..., completion_token: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class KillApplicationResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _types_pb2.ShutdownStatus
    def __init__(self, status: _Optional[_Union[_types_pb2.ShutdownStatus, _Mapping]] = ...) -> None: ...

class StartApplicationRequest(_message.Message):
    __slots__ = ("epoch", "instance", "operation", "start_timeout", "heartbeat_interval", "source_cluster", "rollback", "parameters", "reason")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    START_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    instance: str
    operation: str
    start_timeout: _duration_pb2.Duration
    heartbeat_interval: _duration_pb2.Duration
    source_cluster: str
    rollback: bool
    parameters: _containers.ScalarMap[str, str]
    reason: str
    def __init__(self, epoch: _Optional[int] = ..., instance: _Optional[str] = ..., operation: _Optional[str] = ..., start_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., source_cluster: _Optional[str] = ..., rollback: _Optional[bool] = ..., parameters: _Optional[_Mapping[str, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class StartApplicationResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _types_pb2.StartStatus
    def __init__(self, status: _Optional[_Union[_types_pb2.StartStatus, _Mapping]] = ...) -> None: ...

class ConcludeShutdownRequest(_message.Message):
    __slots__ = ("operation", "instance", "epoch", "disposition")
    class Disposition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DISPOSITION_UNSPECIFIED: _ClassVar[ConcludeShutdownRequest.Disposition]
        DISPOSITION_STANDBY: _ClassVar[ConcludeShutdownRequest.Disposition]
        DISPOSITION_RETIRED: _ClassVar[ConcludeShutdownRequest.Disposition]
    DISPOSITION_UNSPECIFIED: ConcludeShutdownRequest.Disposition
    DISPOSITION_STANDBY: ConcludeShutdownRequest.Disposition
    DISPOSITION_RETIRED: ConcludeShutdownRequest.Disposition
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DISPOSITION_FIELD_NUMBER: _ClassVar[int]
    operation: str
    instance: str
    epoch: int
    disposition: ConcludeShutdownRequest.Disposition
    def __init__(self, operation: _Optional[str] = ..., instance: _Optional[str] = ..., epoch: _Optional[int] = ..., disposition: _Optional[_Union[ConcludeShutdownRequest.Disposition, str]] = ...) -> None: ...

class ConcludeShutdownResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
