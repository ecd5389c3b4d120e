import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from quiesce.v1 import types_pb2 as _types_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RegisterInstanceRequest(_message.Message):
    __slots__ = ("instance", "default_application", "held")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_APPLICATION_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    instance: _types_pb2.Instance
    default_application: _types_pb2.Application
    held: bool
    def __init__(self, instance: _Optional[_Union[_types_pb2.Instance, _Mapping]] = ..., default_application: _Optional[_Union[_types_pb2.Application, _Mapping]] = ..., held: _Optional[bool] = ...) -> None: ...

class RegisterInstanceResponse(_message.Message):
    __slots__ = ("instance", "hook_token", "attach_token", "attach_endpoint", "instance_token")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    HOOK_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ATTACH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ATTACH_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    instance: _types_pb2.Instance
    hook_token: str
    attach_token: str
    attach_endpoint: str
    instance_token: str
    def __init__(self, instance: _Optional[_Union[_types_pb2.Instance, _Mapping]] = ..., hook_token: _Optional[str] = ..., attach_token: _Optional[str] = ..., attach_endpoint: _Optional[str] = ..., instance_token: _Optional[str] = ...) -> None: ...

class DeregisterInstanceRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeregisterInstanceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AdmitStartRequest(_message.Message):
    __slots__ = ("instance", "start_id", "agent_id", "last_epoch", "held_by")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    START_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_FIELD_NUMBER: _ClassVar[int]
    instance: str
    start_id: str
    agent_id: str
    last_epoch: int
    held_by: str
    def __init__(self, instance: _Optional[str] = ..., start_id: _Optional[str] = ..., agent_id: _Optional[str] = ..., last_epoch: _Optional[int] = ..., held_by: _Optional[str] = ...) -> None: ...

class AdmitStartResponse(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class ReportEndRequest(_message.Message):
    __slots__ = ("instance", "agent_id", "epoch", "result")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    instance: str
    agent_id: str
    epoch: int
    result: _types_pb2.StopResult
    def __init__(self, instance: _Optional[str] = ..., agent_id: _Optional[str] = ..., epoch: _Optional[int] = ..., result: _Optional[_Union[_types_pb2.StopResult, _Mapping]] = ...) -> None: ...

class ReportEndResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CompleteShutdownRequest(_message.Message):
    __slots__ = ("shutdown_id", "completion_token", "result")
    SHUTDOWN_ID_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    shutdown_id: str
    completion_token: str
    result: _types_pb2.StopResult
    def __init__(self, shutdown_id: _Optional[str] = ..., completion_token: _Optional[str] = ..., result: _Optional[_Union[_types_pb2.StopResult, _Mapping]] = ...) -> None: ...

class CompleteShutdownResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExtendDeadlineRequest(_message.Message):
    __slots__ = ("shutdown_id", "completion_token", "wanted_grace_period", "reason")
    SHUTDOWN_ID_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WANTED_GRACE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    shutdown_id: str
    completion_token: str
    wanted_grace_period: _duration_pb2.Duration
    reason: str
    def __init__(self, shutdown_id: _Optional[str] = ..., completion_token: _Optional[str] = ..., wanted_grace_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ExtendDeadlineResponse(_message.Message):
    __slots__ = ("grace_period", "deadline_time", "remaining_extension")
    GRACE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_TIME_FIELD_NUMBER: _ClassVar[int]
    REMAINING_EXTENSION_FIELD_NUMBER: _ClassVar[int]
    grace_period: _duration_pb2.Duration
    deadline_time: _timestamp_pb2.Timestamp
    remaining_extension: _duration_pb2.Duration
    def __init__(self, grace_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., deadline_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., remaining_extension: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
