import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Capability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAPABILITY_UNSPECIFIED: _ClassVar[Capability]
    CAPABILITY_CHECK: _ClassVar[Capability]
    CAPABILITY_STATUS: _ClassVar[Capability]
    CAPABILITY_CANCEL: _ClassVar[Capability]
    CAPABILITY_UPDATE_DEADLINE: _ClassVar[Capability]
    CAPABILITY_KILL: _ClassVar[Capability]
    CAPABILITY_SETTLE: _ClassVar[Capability]
    CAPABILITY_DURABLE: _ClassVar[Capability]
    CAPABILITY_START: _ClassVar[Capability]
    CAPABILITY_HOLD: _ClassVar[Capability]
    CAPABILITY_CONCLUDE: _ClassVar[Capability]

class FailureStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_STRATEGY_UNSPECIFIED: _ClassVar[FailureStrategy]
    FAILURE_STRATEGY_GIVE_UP: _ClassVar[FailureStrategy]
    FAILURE_STRATEGY_FORCE: _ClassVar[FailureStrategy]

class ShutdownPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHUTDOWN_PHASE_UNSPECIFIED: _ClassVar[ShutdownPhase]
    SHUTDOWN_PHASE_ACCEPTED: _ClassVar[ShutdownPhase]
    SHUTDOWN_PHASE_DRAINING: _ClassVar[ShutdownPhase]
    SHUTDOWN_PHASE_STOPPING: _ClassVar[ShutdownPhase]
    SHUTDOWN_PHASE_KILLING: _ClassVar[ShutdownPhase]
    SHUTDOWN_PHASE_STOPPED: _ClassVar[ShutdownPhase]
    SHUTDOWN_PHASE_FAILED: _ClassVar[ShutdownPhase]
    SHUTDOWN_PHASE_CANCELLED: _ClassVar[ShutdownPhase]

class Evidence(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVIDENCE_UNSPECIFIED: _ClassVar[Evidence]
    EVIDENCE_CLAIMED: _ClassVar[Evidence]
    EVIDENCE_PROCESS_GONE: _ClassVar[Evidence]
    EVIDENCE_MANAGER: _ClassVar[Evidence]
    EVIDENCE_EXIT_OBSERVED: _ClassVar[Evidence]
    EVIDENCE_CHILD_REAPED: _ClassVar[Evidence]
    EVIDENCE_GROUP_EMPTY: _ClassVar[Evidence]

class StartPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    START_PHASE_UNSPECIFIED: _ClassVar[StartPhase]
    START_PHASE_ACCEPTED: _ClassVar[StartPhase]
    START_PHASE_STARTING: _ClassVar[StartPhase]
    START_PHASE_READY: _ClassVar[StartPhase]
    START_PHASE_FAILED: _ClassVar[StartPhase]

class OperationKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATION_KIND_UNSPECIFIED: _ClassVar[OperationKind]
    OPERATION_KIND_MIGRATE: _ClassVar[OperationKind]
    OPERATION_KIND_DELETE: _ClassVar[OperationKind]
CAPABILITY_UNSPECIFIED: Capability
CAPABILITY_CHECK: Capability
CAPABILITY_STATUS: Capability
CAPABILITY_CANCEL: Capability
CAPABILITY_UPDATE_DEADLINE: Capability
CAPABILITY_KILL: Capability
CAPABILITY_SETTLE: Capability
CAPABILITY_DURABLE: Capability
CAPABILITY_START: Capability
CAPABILITY_HOLD: Capability
CAPABILITY_CONCLUDE: Capability
FAILURE_STRATEGY_UNSPECIFIED: FailureStrategy
FAILURE_STRATEGY_GIVE_UP: FailureStrategy
FAILURE_STRATEGY_FORCE: FailureStrategy
SHUTDOWN_PHASE_UNSPECIFIED: ShutdownPhase
SHUTDOWN_PHASE_ACCEPTED: ShutdownPhase
SHUTDOWN_PHASE_DRAINING: ShutdownPhase
SHUTDOWN_PHASE_STOPPING: ShutdownPhase
SHUTDOWN_PHASE_KILLING: ShutdownPhase
SHUTDOWN_PHASE_STOPPED: ShutdownPhase
SHUTDOWN_PHASE_FAILED: ShutdownPhase
SHUTDOWN_PHASE_CANCELLED: ShutdownPhase
EVIDENCE_UNSPECIFIED: Evidence
EVIDENCE_CLAIMED: Evidence
EVIDENCE_PROCESS_GONE: Evidence
EVIDENCE_MANAGER: Evidence
EVIDENCE_EXIT_OBSERVED: Evidence
EVIDENCE_CHILD_REAPED: Evidence
EVIDENCE_GROUP_EMPTY: Evidence
START_PHASE_UNSPECIFIED: StartPhase
START_PHASE_ACCEPTED: StartPhase
START_PHASE_STARTING: StartPhase
START_PHASE_READY: StartPhase
START_PHASE_FAILED: StartPhase
OPERATION_KIND_UNSPECIFIED: OperationKind
OPERATION_KIND_MIGRATE: OperationKind
OPERATION_KIND_DELETE: OperationKind

class Application(_message.Message):
    __slots__ = ("name", "display_name", "cluster", "policy", "expected_instances", "labels", "state", "active_operation", "instance_count", "ready_instance_count", "etag", "create_time", "update_time", "placement", "epoch", "standby_instance_count", "restore_time")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Application.State]
        STATE_ACTIVE: _ClassVar[Application.State]
        STATE_STOPPING: _ClassVar[Application.State]
        STATE_DEGRADED: _ClassVar[Application.State]
        STATE_STOPPED: _ClassVar[Application.State]
    STATE_UNSPECIFIED: Application.State
    STATE_ACTIVE: Application.State
    STATE_STOPPING: Application.State
    STATE_DEGRADED: Application.State
    STATE_STOPPED: Application.State
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_OPERATION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    READY_INSTANCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STANDBY_INSTANCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESTORE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    cluster: str
    policy: ShutdownPolicy
    expected_instances: int
    labels: _containers.ScalarMap[str, str]
    state: Application.State
    active_operation: str
    instance_count: int
    ready_instance_count: int
    etag: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    placement: Placement
    epoch: int
    standby_instance_count: int
    restore_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., cluster: _Optional[str] = ..., policy: _Optional[_Union[ShutdownPolicy, _Mapping]] = ..., expected_instances: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., state: _Optional[_Union[Application.State, str]] = ..., active_operation: _Optional[str] = ..., instance_count: _Optional[int] = ..., ready_instance_count: _Optional[int] = ..., etag: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., placement: _Optional[_Union[Placement, _Mapping]] = ..., epoch: _Optional[int] = ..., standby_instance_count: _Optional[int] = ..., restore_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("external", "agents")
    EXTERNAL_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    external: ExternalPlacement
    agents: AgentsPlacement
    def __init__(self, external: _Optional[_Union[ExternalPlacement, _Mapping]] = ..., agents: _Optional[_Union[AgentsPlacement, _Mapping]] = ...) -> None: ...

class ExternalPlacement(_message.Message):
    __slots__ = ("require_confirmation",)
    REQUIRE_CONFIRMATION_FIELD_NUMBER: _ClassVar[int]
    require_confirmation: bool
    def __init__(self, require_confirmation: _Optional[bool] = ...) -> None: ...

class AgentsPlacement(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("name", "display_name", "labels", "application_count", "instance_count", "etag", "create_time", "update_time")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_COUNT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    labels: _containers.ScalarMap[str, str]
    application_count: int
    instance_count: int
    etag: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., application_count: _Optional[int] = ..., instance_count: _Optional[int] = ..., etag: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ("name", "connect_mode", "endpoint", "cluster", "stop_order", "labels", "state", "hook", "last_seen_time", "create_time", "update_time", "epoch", "agent_id")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Instance.State]
        STATE_READY: _ClassVar[Instance.State]
        STATE_NOT_READY: _ClassVar[Instance.State]
        STATE_UNREACHABLE: _ClassVar[Instance.State]
        STATE_STOPPING: _ClassVar[Instance.State]
        STATE_STOPPED: _ClassVar[Instance.State]
        STATE_STARTING: _ClassVar[Instance.State]
        STATE_HELD: _ClassVar[Instance.State]
    STATE_UNSPECIFIED: Instance.State
    STATE_READY: Instance.State
    STATE_NOT_READY: Instance.State
    STATE_UNREACHABLE: Instance.State
    STATE_STOPPING: Instance.State
    STATE_STOPPED: Instance.State
    STATE_STARTING: Instance.State
    STATE_HELD: Instance.State
    class ConnectMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CONNECT_MODE_UNSPECIFIED: _ClassVar[Instance.ConnectMode]
        CONNECT_MODE_LISTEN: _ClassVar[Instance.ConnectMode]
        CONNECT_MODE_DIAL_IN: _ClassVar[Instance.ConnectMode]
    CONNECT_MODE_UNSPECIFIED: Instance.ConnectMode
    CONNECT_MODE_LISTEN: Instance.ConnectMode
    CONNECT_MODE_DIAL_IN: Instance.ConnectMode
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONNECT_MODE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    STOP_ORDER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HOOK_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    connect_mode: Instance.ConnectMode
    endpoint: str
    cluster: str
    stop_order: int
    labels: _containers.ScalarMap[str, str]
    state: Instance.State
    hook: HookInfo
    last_seen_time: _timestamp_pb2.Timestamp
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    epoch: int
    agent_id: str
    def __init__(self, name: _Optional[str] = ..., connect_mode: _Optional[_Union[Instance.ConnectMode, str]] = ..., endpoint: _Optional[str] = ..., cluster: _Optional[str] = ..., stop_order: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., state: _Optional[_Union[Instance.State, str]] = ..., hook: _Optional[_Union[HookInfo, _Mapping]] = ..., last_seen_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., epoch: _Optional[int] = ..., agent_id: _Optional[str] = ...) -> None: ...

class HookInfo(_message.Message):
    __slots__ = ("instance", "implementation", "implementation_version", "protocol_version", "capabilities", "ready", "not_ready_reason", "app_state", "app_start_time", "epoch", "app_message", "cannot_start_reason")
    class AppState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        APP_STATE_UNSPECIFIED: _ClassVar[HookInfo.AppState]
        APP_STATE_RUNNING: _ClassVar[HookInfo.AppState]
        APP_STATE_STOPPED: _ClassVar[HookInfo.AppState]
        APP_STATE_HELD: _ClassVar[HookInfo.AppState]
        APP_STATE_STARTING: _ClassVar[HookInfo.AppState]
        APP_STATE_STOPPING: _ClassVar[HookInfo.AppState]
    APP_STATE_UNSPECIFIED: HookInfo.AppState
    APP_STATE_RUNNING: HookInfo.AppState
    APP_STATE_STOPPED: HookInfo.AppState
    APP_STATE_HELD: HookInfo.AppState
    APP_STATE_STARTING: HookInfo.AppState
    APP_STATE_STOPPING: HookInfo.AppState
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    IMPLEMENTATION_FIELD_NUMBER: _ClassVar[int]
    IMPLEMENTATION_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    NOT_READY_REASON_FIELD_NUMBER: _ClassVar[int]
    APP_STATE_FIELD_NUMBER: _ClassVar[int]
    APP_START_TIME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    APP_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CANNOT_START_REASON_FIELD_NUMBER: _ClassVar[int]
    instance: str
    implementation: str
    implementation_version: str
    protocol_version: str
    capabilities: _containers.RepeatedScalarFieldContainer[Capability]
    ready: bool
    not_ready_reason: str
    app_state: HookInfo.AppState
    app_start_time: _timestamp_pb2.Timestamp
    epoch: int
    app_message: str
    cannot_start_reason: str
    def __init__(self, instance: _Optional[str] = ..., implementation: _Optional[str] = ..., implementation_version: _Optional[str] = ..., protocol_version: _Optional[str] = ..., capabilities: _Optional[_Iterable[_Union[Capability, str]]] = ..., ready: _Optional[bool] = ..., not_ready_reason: _Optional[str] = ..., app_state: _Optional[_Union[HookInfo.AppState, str]] = ..., app_start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., epoch: _Optional[int] = ..., app_message: _Optional[str] = ..., cannot_start_reason: _Optional[str] = ...) -> None: ...

class ShutdownPolicy(_message.Message):
    __slots__ = ("grace_period", "heartbeat_timeout", "accept_timeout", "kill_timeout", "max_extension", "overall_timeout", "settle_period", "retry", "failure_strategy", "allow_unverified", "hold_on_unclean_exit", "max_parallel_stops", "parameters", "min_evidence", "start_timeout")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    GRACE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    KILL_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_EXTENSION_FIELD_NUMBER: _ClassVar[int]
    OVERALL_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    SETTLE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_UNVERIFIED_FIELD_NUMBER: _ClassVar[int]
    HOLD_ON_UNCLEAN_EXIT_FIELD_NUMBER: _ClassVar[int]
    MAX_PARALLEL_STOPS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    MIN_EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    START_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    grace_period: _duration_pb2.Duration
    heartbeat_timeout: _duration_pb2.Duration
    accept_timeout: _duration_pb2.Duration
    kill_timeout: _duration_pb2.Duration
    max_extension: _duration_pb2.Duration
    overall_timeout: _duration_pb2.Duration
    settle_period: _duration_pb2.Duration
    retry: RetryPolicy
    failure_strategy: FailureStrategy
    allow_unverified: bool
    hold_on_unclean_exit: bool
    max_parallel_stops: int
    parameters: _containers.ScalarMap[str, str]
    min_evidence: Evidence
    start_timeout: _duration_pb2.Duration
    def __init__(self, grace_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., heartbeat_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., accept_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kill_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_extension: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., overall_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., settle_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., retry: _Optional[_Union[RetryPolicy, _Mapping]] = ..., failure_strategy: _Optional[_Union[FailureStrategy, str]] = ..., allow_unverified: _Optional[bool] = ..., hold_on_unclean_exit: _Optional[bool] = ..., max_parallel_stops: _Optional[int] = ..., parameters: _Optional[_Mapping[str, str]] = ..., min_evidence: _Optional[_Union[Evidence, str]] = ..., start_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RetryPolicy(_message.Message):
    __slots__ = ("max_attempts", "initial_backoff", "max_backoff", "backoff_multiplier")
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    BACKOFF_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    max_attempts: int
    initial_backoff: _duration_pb2.Duration
    max_backoff: _duration_pb2.Duration
    backoff_multiplier: float
    def __init__(self, max_attempts: _Optional[int] = ..., initial_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., backoff_multiplier: _Optional[float] = ...) -> None: ...

class ShutdownStatus(_message.Message):
    __slots__ = ("shutdown_id", "sequence", "phase", "percent", "step", "message", "report_time", "wanted_grace_period", "result", "completion_token")
    SHUTDOWN_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    WANTED_GRACE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    shutdown_id: str
    sequence: int
    phase: ShutdownPhase
    percent: int
    step: str
    message: str
    report_time: _timestamp_pb2.Timestamp
    wanted_grace_period: _duration_pb2.Duration
    result: StopResult
    completion_token: str
    def __init__(self, shutdown_id: _Optional[str] = ..., sequence: _Optional[int] = ..., phase: _Optional[_Union[ShutdownPhase, str]] = ..., percent: _Optional[int] = ..., step: _Optional[str] = ..., message: _Optional[str] = ..., report_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., wanted_grace_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., result: _Optional[_Union[StopResult, _Mapping]] = ..., completion_token: _Optional[str] = ...) -> None: ...

class StopResult(_message.Message):
    __slots__ = ("outcome", "evidence", "exit_code", "exit_signal", "clean", "duration", "message", "held")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[StopResult.Outcome]
        OUTCOME_STOPPED: _ClassVar[StopResult.Outcome]
        OUTCOME_KILLED: _ClassVar[StopResult.Outcome]
        OUTCOME_NOT_RUNNING: _ClassVar[StopResult.Outcome]
        OUTCOME_STILL_RUNNING: _ClassVar[StopResult.Outcome]
        OUTCOME_RESTARTED: _ClassVar[StopResult.Outcome]
        OUTCOME_UNKNOWN: _ClassVar[StopResult.Outcome]
        OUTCOME_CANCELLED: _ClassVar[StopResult.Outcome]
    OUTCOME_UNSPECIFIED: StopResult.Outcome
    OUTCOME_STOPPED: StopResult.Outcome
    OUTCOME_KILLED: StopResult.Outcome
    OUTCOME_NOT_RUNNING: StopResult.Outcome
    OUTCOME_STILL_RUNNING: StopResult.Outcome
    OUTCOME_RESTARTED: StopResult.Outcome
    OUTCOME_UNKNOWN: StopResult.Outcome
    OUTCOME_CANCELLED: StopResult.Outcome
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    EXIT_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    CLEAN_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    outcome: StopResult.Outcome
    evidence: Evidence
    exit_code: int
    exit_signal: int
    clean: bool
    duration: _duration_pb2.Duration
    message: str
    held: bool
    def __init__(self, outcome: _Optional[_Union[StopResult.Outcome, str]] = ..., evidence: _Optional[_Union[Evidence, str]] = ..., exit_code: _Optional[int] = ..., exit_signal: _Optional[int] = ..., clean: _Optional[bool] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., message: _Optional[str] = ..., held: _Optional[bool] = ...) -> None: ...

class StartStatus(_message.Message):
    __slots__ = ("epoch", "sequence", "phase", "message", "report_time", "result")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    phase: StartPhase
    message: str
    report_time: _timestamp_pb2.Timestamp
    result: StartResult
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., phase: _Optional[_Union[StartPhase, str]] = ..., message: _Optional[str] = ..., report_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., result: _Optional[_Union[StartResult, _Mapping]] = ...) -> None: ...

class StartResult(_message.Message):
    __slots__ = ("outcome", "readiness", "exit_code", "exit_signal", "duration", "message")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[StartResult.Outcome]
        OUTCOME_READY: _ClassVar[StartResult.Outcome]
        OUTCOME_FAILED: _ClassVar[StartResult.Outcome]
    OUTCOME_UNSPECIFIED: StartResult.Outcome
    OUTCOME_READY: StartResult.Outcome
    OUTCOME_FAILED: StartResult.Outcome
    class Readiness(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        READINESS_UNSPECIFIED: _ClassVar[StartResult.Readiness]
        READINESS_NOTIFIED: _ClassVar[StartResult.Readiness]
        READINESS_COMMAND: _ClassVar[StartResult.Readiness]
        READINESS_TCP: _ClassVar[StartResult.Readiness]
        READINESS_SETTLED: _ClassVar[StartResult.Readiness]
    READINESS_UNSPECIFIED: StartResult.Readiness
    READINESS_NOTIFIED: StartResult.Readiness
    READINESS_COMMAND: StartResult.Readiness
    READINESS_TCP: StartResult.Readiness
    READINESS_SETTLED: StartResult.Readiness
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    READINESS_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    EXIT_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    outcome: StartResult.Outcome
    readiness: StartResult.Readiness
    exit_code: int
    exit_signal: int
    duration: _duration_pb2.Duration
    message: str
    def __init__(self, outcome: _Optional[_Union[StartResult.Outcome, str]] = ..., readiness: _Optional[_Union[StartResult.Readiness, str]] = ..., exit_code: _Optional[int] = ..., exit_signal: _Optional[int] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., message: _Optional[str] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("name", "application", "kind", "state", "done", "cancellable", "force", "message", "source_cluster", "target_cluster", "policy", "attempt", "round", "counts", "instances", "failure", "reason", "request_id", "labels", "requester", "create_time", "update_time", "point_of_no_return_time", "deadline_time", "next_attempt_time", "end_time", "revision", "superseded_by", "epoch", "placement", "starts", "advice", "awaiting_confirmation", "overrides")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Operation.State]
        STATE_PENDING: _ClassVar[Operation.State]
        STATE_PREPARING: _ClassVar[Operation.State]
        STATE_STOPPING: _ClassVar[Operation.State]
        STATE_BACKING_OFF: _ClassVar[Operation.State]
        STATE_FORCING: _ClassVar[Operation.State]
        STATE_STOPPED: _ClassVar[Operation.State]
        STATE_STARTING: _ClassVar[Operation.State]
        STATE_FINALIZING: _ClassVar[Operation.State]
        STATE_CANCELLING: _ClassVar[Operation.State]
        STATE_ROLLING_BACK: _ClassVar[Operation.State]
        STATE_DEGRADED: _ClassVar[Operation.State]
        STATE_SUCCEEDED: _ClassVar[Operation.State]
        STATE_CANCELLED: _ClassVar[Operation.State]
        STATE_ROLLED_BACK: _ClassVar[Operation.State]
        STATE_ABANDONED: _ClassVar[Operation.State]
    STATE_UNSPECIFIED: Operation.State
    STATE_PENDING: Operation.State
    STATE_PREPARING: Operation.State
    STATE_STOPPING: Operation.State
    STATE_BACKING_OFF: Operation.State
    STATE_FORCING: Operation.State
    STATE_STOPPED: Operation.State
    STATE_STARTING: Operation.State
    STATE_FINALIZING: Operation.State
    STATE_CANCELLING: Operation.State
    STATE_ROLLING_BACK: Operation.State
    STATE_DEGRADED: Operation.State
    STATE_SUCCEEDED: Operation.State
    STATE_CANCELLED: Operation.State
    STATE_ROLLED_BACK: Operation.State
    STATE_ABANDONED: Operation.State
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    CANCELLABLE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    TARGET_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    POINT_OF_NO_RETURN_TIME_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_TIME_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_BY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    AWAITING_CONFIRMATION_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    name: str
    application: str
    kind: OperationKind
    state: Operation.State
    done: bool
    cancellable: bool
    force: bool
    message: str
    source_cluster: str
    target_cluster: str
    policy: ShutdownPolicy
    attempt: int
    round: int
    counts: InstanceCounts
    instances: _containers.RepeatedCompositeFieldContainer[InstanceShutdown]
    failure: Failure
    reason: str
    request_id: str
    labels: _containers.ScalarMap[str, str]
    requester: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    point_of_no_return_time: _timestamp_pb2.Timestamp
    deadline_time: _timestamp_pb2.Timestamp
    next_attempt_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    revision: int
    superseded_by: str
    epoch: int
    placement: Placement
    starts: _containers.RepeatedCompositeFieldContainer[InstanceStart]
    advice: str
    awaiting_confirmation: bool
    overrides: _containers.RepeatedCompositeFieldContainer[Override]
    def __init__(self, name: _Optional[str] = ..., application: _Optional[str] = ..., kind: _Optional[_Union[OperationKind, str]] = ..., state: _Optional[_Union[Operation.State, str]] = ..., done: _Optional[bool] = ..., cancellable: _Optional[bool] = ..., force: _Optional[bool] = ..., message: _Optional[str] = ..., source_cluster: _Optional[str] = ..., target_cluster: _Optional[str] = ..., policy: _Optional[_Union[ShutdownPolicy, _Mapping]] = ..., attempt: _Optional[int] = ..., round: _Optional[int] = ..., counts: _Optional[_Union[InstanceCounts, _Mapping]] = ..., instances: _Optional[_Iterable[_Union[InstanceShutdown, _Mapping]]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., requester: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., point_of_no_return_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_attempt_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., superseded_by: _Optional[str] = ..., epoch: _Optional[int] = ..., placement: _Optional[_Union[Placement, _Mapping]] = ..., starts: _Optional[_Iterable[_Union[InstanceStart, _Mapping]]] = ..., advice: _Optional[str] = ..., awaiting_confirmation: _Optional[bool] = ..., overrides: _Optional[_Iterable[_Union[Override, _Mapping]]] = ...) -> None: ...

class Override(_message.Message):
    __slots__ = ("kind", "requester", "reason", "time", "instance")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Override.Kind]
        KIND_FORCE: _ClassVar[Override.Kind]
        KIND_ALLOW_UNVERIFIED: _ClassVar[Override.Kind]
    KIND_UNSPECIFIED: Override.Kind
    KIND_FORCE: Override.Kind
    KIND_ALLOW_UNVERIFIED: Override.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    kind: Override.Kind
    requester: str
    reason: str
    time: _timestamp_pb2.Timestamp
    instance: str
    def __init__(self, kind: _Optional[_Union[Override.Kind, str]] = ..., requester: _Optional[str] = ..., reason: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., instance: _Optional[str] = ...) -> None: ...

class InstanceCounts(_message.Message):
    __slots__ = ("waiting", "stopping", "stopped", "unverified", "failed")
    WAITING_FIELD_NUMBER: _ClassVar[int]
    STOPPING_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    UNVERIFIED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    waiting: int
    stopping: int
    stopped: int
    unverified: int
    failed: int
    def __init__(self, waiting: _Optional[int] = ..., stopping: _Optional[int] = ..., stopped: _Optional[int] = ..., unverified: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class InstanceShutdown(_message.Message):
    __slots__ = ("instance", "status", "attempt", "accept_time", "deadline_time", "extension", "heartbeat_time", "verified", "failure")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_TIME_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXTENSION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_TIME_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    status: ShutdownStatus
    attempt: int
    accept_time: _timestamp_pb2.Timestamp
    deadline_time: _timestamp_pb2.Timestamp
    extension: _duration_pb2.Duration
    heartbeat_time: _timestamp_pb2.Timestamp
    verified: bool
    failure: Failure
    def __init__(self, instance: _Optional[str] = ..., status: _Optional[_Union[ShutdownStatus, _Mapping]] = ..., attempt: _Optional[int] = ..., accept_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., extension: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., heartbeat_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., verified: _Optional[bool] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class InstanceStart(_message.Message):
    __slots__ = ("instance", "epoch", "status", "rollback", "order_time", "deadline_time", "ready", "failure")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    ORDER_TIME_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_TIME_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    epoch: int
    status: StartStatus
    rollback: bool
    order_time: _timestamp_pb2.Timestamp
    deadline_time: _timestamp_pb2.Timestamp
    ready: bool
    failure: Failure
    def __init__(self, instance: _Optional[str] = ..., epoch: _Optional[int] = ..., status: _Optional[_Union[StartStatus, _Mapping]] = ..., rollback: _Optional[bool] = ..., order_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ready: _Optional[bool] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("reason", "message", "instance", "attempt", "grpc_code", "time")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Failure.Reason]
        REASON_HOOK_UNREACHABLE: _ClassVar[Failure.Reason]
        REASON_HOOK_REJECTED: _ClassVar[Failure.Reason]
        REASON_PROTOCOL_ERROR: _ClassVar[Failure.Reason]
        REASON_ACCEPT_TIMEOUT: _ClassVar[Failure.Reason]
        REASON_HEARTBEAT_TIMEOUT: _ClassVar[Failure.Reason]
        REASON_GRACE_TIMEOUT: _ClassVar[Failure.Reason]
        REASON_KILL_TIMEOUT: _ClassVar[Failure.Reason]
        REASON_OVERALL_TIMEOUT: _ClassVar[Failure.Reason]
        REASON_STILL_RUNNING: _ClassVar[Failure.Reason]
        REASON_RESTARTED: _ClassVar[Failure.Reason]
        REASON_UNVERIFIED: _ClassVar[Failure.Reason]
        REASON_UNCLEAN_EXIT: _ClassVar[Failure.Reason]
        REASON_CHECK_FAILED: _ClassVar[Failure.Reason]
        REASON_START_FAILED: _ClassVar[Failure.Reason]
        REASON_START_TIMEOUT: _ClassVar[Failure.Reason]
    REASON_UNSPECIFIED: Failure.Reason
    REASON_HOOK_UNREACHABLE: Failure.Reason
    REASON_HOOK_REJECTED: Failure.Reason
    REASON_PROTOCOL_ERROR: Failure.Reason
    REASON_ACCEPT_TIMEOUT: Failure.Reason
    REASON_HEARTBEAT_TIMEOUT: Failure.Reason
    REASON_GRACE_TIMEOUT: Failure.Reason
    REASON_KILL_TIMEOUT: Failure.Reason
    REASON_OVERALL_TIMEOUT: Failure.Reason
    REASON_STILL_RUNNING: Failure.Reason
    REASON_RESTARTED: Failure.Reason
    REASON_UNVERIFIED: Failure.Reason
    REASON_UNCLEAN_EXIT: Failure.Reason
    REASON_CHECK_FAILED: Failure.Reason
    REASON_START_FAILED: Failure.Reason
    REASON_START_TIMEOUT: Failure.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    GRPC_CODE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    reason: Failure.Reason
    message: str
    instance: str
    attempt: int
    grpc_code: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, reason: _Optional[_Union[Failure.Reason, str]] = ..., message: _Optional[str] = ..., instance: _Optional[str] = ..., attempt: _Optional[int] = ..., grpc_code: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class OperationEvent(_message.Message):
    __slots__ = ("revision", "type", "event_time", "resume_token", "operation", "instance", "failure", "previous_state", "message", "start")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TYPE_UNSPECIFIED: _ClassVar[OperationEvent.Type]
        TYPE_SNAPSHOT: _ClassVar[OperationEvent.Type]
        TYPE_CREATED: _ClassVar[OperationEvent.Type]
        TYPE_STATE_CHANGED: _ClassVar[OperationEvent.Type]
        TYPE_PROGRESS: _ClassVar[OperationEvent.Type]
        TYPE_TIMEOUT: _ClassVar[OperationEvent.Type]
        TYPE_DEADLINE_EXTENDED: _ClassVar[OperationEvent.Type]
        TYPE_EXTENSION_DENIED: _ClassVar[OperationEvent.Type]
        TYPE_ATTEMPT_FAILED: _ClassVar[OperationEvent.Type]
        TYPE_INSTANCE_STOPPED: _ClassVar[OperationEvent.Type]
        TYPE_BOOKMARK: _ClassVar[OperationEvent.Type]
        TYPE_INSTANCE_STARTING: _ClassVar[OperationEvent.Type]
        TYPE_INSTANCE_READY: _ClassVar[OperationEvent.Type]
        TYPE_OVERRIDE: _ClassVar[OperationEvent.Type]
    TYPE_UNSPECIFIED: OperationEvent.Type
    TYPE_SNAPSHOT: OperationEvent.Type
    TYPE_CREATED: OperationEvent.Type
    TYPE_STATE_CHANGED: OperationEvent.Type
    TYPE_PROGRESS: OperationEvent.Type
    TYPE_TIMEOUT: OperationEvent.Type
    TYPE_DEADLINE_EXTENDED: OperationEvent.Type
    TYPE_EXTENSION_DENIED: OperationEvent.Type
    TYPE_ATTEMPT_FAILED: OperationEvent.Type
    TYPE_INSTANCE_STOPPED: OperationEvent.Type
    TYPE_BOOKMARK: OperationEvent.Type
    TYPE_INSTANCE_STARTING: OperationEvent.Type
    TYPE_INSTANCE_READY: OperationEvent.Type
    TYPE_OVERRIDE: OperationEvent.Type
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    revision: int
    type: OperationEvent.Type
    event_time: _timestamp_pb2.Timestamp
    resume_token: str
    operation: Operation
    instance: InstanceShutdown
    failure: Failure
    previous_state: Operation.State
    message: str
    start: InstanceStart
    def __init__(self, revision: _Optional[int] = ..., type: _Optional[_Union[OperationEvent.Type, str]] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., resume_token: _Optional[str] = ..., operation: _Optional[_Union[Operation, _Mapping]] = ..., instance: _Optional[_Union[InstanceShutdown, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., previous_state: _Optional[_Union[Operation.State, str]] = ..., message: _Optional[str] = ..., start: _Optional[_Union[InstanceStart, _Mapping]] = ...) -> None: ...
