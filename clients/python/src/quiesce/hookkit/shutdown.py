"""The rules of a shutdown: once, one at a time, reported until the end (H1 to H14). Knows nothing of connections."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import duration_pb2, json_format

from quiesce.hookkit.record import StateDirectory
from quiesce.hookkit.refusal import Refusal
from quiesce.v1 import shutdown_hook_pb2, types_pb2

# How often it is looked whether the application has ended, in seconds.
_LOOK_EVERY = 0.1
# What a report takes on its way must fit between this share of the interval and the whole of it.
_HEARTBEAT_SHARE = 0.8
_HEARTBEAT_DEFAULT, _HEARTBEAT_MIN = 5.0, 0.1
# Reports of one life of the hook; those of the next begin above, so that `sequence` rises over restarts.
_REPORTS_OF_A_LIFE = 1_000_000
_TOKEN_MAX = 512

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

Outcome = types_pb2.StopResult
Stop = Callable[[shutdown_hook_pb2.ShutdownRequest], object]

_log = logging.getLogger("quiesce.hookkit")


class Shutdown:
    """One shutdown and all that is known of it. Guarded by the lock of its `Shutdowns`."""

    def __init__(self, request: shutdown_hook_pb2.ShutdownRequest) -> None:
        self.id, self.operation, self.attempt = request.shutdown_id, request.operation, request.attempt
        self.epoch = request.epoch
        self.token: str | None = request.completion_token
        self.digest = _digest(request.completion_token)
        self.heartbeat = _seconds(request.heartbeat_interval) or _HEARTBEAT_DEFAULT
        self.accepted = time.time()
        self.life = 0
        self.reports = 1
        self.phase: types_pb2.ShutdownPhase.ValueType = types_pb2.SHUTDOWN_PHASE_ACCEPTED
        self.said = types_pb2.ShutdownStatus(message="accepted")
        self.result: types_pb2.StopResult | None = None
        self.superseded_by = ""
        self.reported = time.monotonic()

    @property
    def sequence(self) -> int:
        return self.life * _REPORTS_OF_A_LIFE + self.reports

    def status(self) -> types_pb2.ShutdownStatus:
        """The latest report."""
        status = types_pb2.ShutdownStatus()
        status.CopyFrom(self.said)
        status.shutdown_id, status.sequence, status.phase = self.id, self.sequence, self.phase
        status.report_time.GetCurrentTime()
        if self.result is not None:
            status.result.CopyFrom(self.result)
            status.completion_token = self.token or ""
        return status

    def yields_to(self, request: shutdown_hook_pb2.ShutdownRequest) -> bool:
        """H10: to a later attempt of the same operation, or to a later operation."""
        if self.operation == request.operation:
            return bool(self.operation) and request.attempt > self.attempt
        return self.epoch != 0 and request.epoch > self.epoch

    def to_record(self) -> dict[str, Any]:
        result = None if self.result is None else json_format.MessageToDict(self.result)
        return {
            "shutdown_id": self.id,
            "operation": self.operation,
            "attempt": self.attempt,
            "epoch": self.epoch,
            "token_digest": self.digest,
            "heartbeat_seconds": self.heartbeat,
            "accepted": self.accepted,
            "life": self.life,
            "reports": self.reports,
            "phase": types_pb2.ShutdownPhase.Name(self.phase),
            "result": result,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Shutdown:
        known = ("shutdown_id", "operation", "attempt", "epoch")
        shutdown = cls(shutdown_hook_pb2.ShutdownRequest(**{name: record[name] for name in known}))
        # The token comes again with the call that joins.
        shutdown.token, shutdown.digest = None, record["token_digest"]
        shutdown.heartbeat, shutdown.accepted = record["heartbeat_seconds"], record["accepted"]
        shutdown.life, shutdown.reports = record["life"], record["reports"]
        shutdown.phase = types_pb2.ShutdownPhase.Value(record["phase"])
        if record["result"] is not None:
            shutdown.result = json_format.ParseDict(record["result"], types_pb2.StopResult(), ignore_unknown_fields=True)
        return shutdown


class Shutdowns:
    """The shutdown in progress, or the last one."""

    def __init__(
        self,
        stop: Stop,
        running: Callable[[], bool],
        kill: Callable[[], object] | None,
        instance: str,
        evidence: types_pb2.Evidence.ValueType,
        state: StateDirectory,
    ) -> None:
        self._stop, self._running, self._kill = stop, running, kill
        self._instance, self._evidence, self._state = instance, evidence, state
        self.changed = threading.Condition()
        self._current: Shutdown | None = None
        record = state.load()
        if record is not None:
            self._take_up(Shutdown.from_record(record))

    def _take_up(self, shutdown: Shutdown) -> None:
        self._current = shutdown
        if shutdown.result is None:
            shutdown.life, shutdown.reports = shutdown.life + 1, 1
            shutdown.said.message = "the hook was restarted"
            self._state.save(shutdown.to_record())
            told = shutdown.phase >= types_pb2.SHUTDOWN_PHASE_STOPPING
            self._spawn(self._watch if told else self._begin, shutdown, shutdown_hook_pb2.ShutdownRequest())

    def app_state(self) -> types_pb2.HookInfo.AppState.ValueType:
        """Whether the application runs; what `running` raises is passed on."""
        if not self._running():
            return types_pb2.HookInfo.APP_STATE_STOPPED
        with self.changed:
            told = self._current is not None and self._current.result is None
        return types_pb2.HookInfo.APP_STATE_STOPPING if told else types_pb2.HookInfo.APP_STATE_RUNNING

    def accept(self, request: shutdown_hook_pb2.ShutdownRequest) -> Shutdown:
        """Begins a shutdown, or joins the one of that name."""
        self.check_instance(request.instance)
        if not _ID.fullmatch(request.shutdown_id):
            raise Refusal.field("shutdown_id", "must be 1 to 128 characters of A-Z, a-z, 0-9 and ._-")
        if len(request.completion_token) > _TOKEN_MAX:
            raise Refusal.field("completion_token", f"must have at most {_TOKEN_MAX} bytes")
        with self.changed:
            current = self._current
            if current is not None and current.id == request.shutdown_id:
                self._join(current, request)
                return current
            if current is not None and current.result is None and not current.yields_to(request):
                message = "another shutdown runs"
                raise Refusal(grpc.StatusCode.ABORTED, "SHUTDOWN_IN_PROGRESS", message, shutdownId=current.id)
            if current is not None and 0 < request.epoch < current.epoch:
                raise _precondition("EPOCH_STALE", "a later operation has been here", epoch=str(current.epoch))
            shutdown = Shutdown(request)
            # Before anything is done: a hook that is restarted must know it.
            self._record(shutdown)
            if current is not None and current.result is None:
                current.superseded_by = shutdown.id
            self._current = shutdown
            self.changed.notify_all()
        told = shutdown_hook_pb2.ShutdownRequest()
        told.CopyFrom(request)
        told.completion_token = ""
        self._spawn(self._begin, shutdown, told)
        return shutdown

    def _join(self, shutdown: Shutdown, request: shutdown_hook_pb2.ShutdownRequest) -> None:
        if shutdown.token is None and hmac.compare_digest(shutdown.digest, _digest(request.completion_token)):
            shutdown.token = request.completion_token
        if shutdown.result is None:
            # What this call hears first is later than what an earlier one has heard.
            self._report(shutdown)

    def check_instance(self, asked: str) -> None:
        """H13."""
        if asked and self._instance and asked != self._instance:
            raise _precondition("WRONG_INSTANCE", f"this hook serves {self._instance}", instance=self._instance)

    def get(self, shutdown_id: str) -> types_pb2.ShutdownStatus:
        """The latest report of a shutdown, or of the last one."""
        with self.changed:
            return self._known(shutdown_id).status()

    def _known(self, shutdown_id: str) -> Shutdown:
        if self._current is None or shutdown_id not in ("", self._current.id):
            raise Refusal(grpc.StatusCode.NOT_FOUND, "SHUTDOWN_NOT_FOUND", "there is no such shutdown")
        return self._current

    def kill(self, shutdown_id: str, token: str) -> types_pb2.ShutdownStatus:
        """Kills the application, for the scheduler that began this shutdown."""
        if self._kill is None:
            message, capability = "this hook cannot kill", "CAPABILITY_KILL"
            raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED", message, capability=capability)
        with self.changed:
            if not shutdown_id:
                raise Refusal.field("shutdown_id", "must be set")
            shutdown = self._known(shutdown_id)
            if not hmac.compare_digest(shutdown.digest, _digest(token)):
                message = "that is not the token of this shutdown"
                raise Refusal(grpc.StatusCode.PERMISSION_DENIED, "COMPLETION_TOKEN_INVALID", message)
            if shutdown.result is not None:
                return shutdown.status()
            shutdown.phase = types_pb2.SHUTDOWN_PHASE_KILLING
            self._record(shutdown)
            self._report(shutdown, message="told to end at once")
        try:
            self._kill()
        except Exception as error:
            raise _precondition("NOT_STOPPABLE", f"cannot kill: {error}") from error
        with self.changed:
            return shutdown.status()

    def say(self, said: types_pb2.ShutdownStatus) -> None:
        """What the application says of itself goes into the reports of a shutdown, if one runs."""
        with self.changed:
            shutdown = self._current
            if shutdown is not None and shutdown.result is None:
                shutdown.said.CopyFrom(said)
                self._report(shutdown)

    def next_report(self, shutdown: Shutdown, seen: int) -> types_pb2.ShutdownStatus:
        """Waits for a report later than `seen`: for news, or until one is due. Any number of calls may wait."""
        with self.changed:
            while True:
                if shutdown.superseded_by:
                    message = f"{shutdown.superseded_by} has taken over"
                    raise Refusal(grpc.StatusCode.ABORTED, "SHUTDOWN_SUPERSEDED", message)
                if shutdown.sequence > seen:
                    return shutdown.status()
                interval = max(shutdown.heartbeat, _HEARTBEAT_MIN) * _HEARTBEAT_SHARE
                rest = shutdown.reported + interval - time.monotonic()
                if rest <= 0:
                    self._report(shutdown)
                else:
                    self.changed.wait(rest)

    def _report(self, shutdown: Shutdown, message: str | None = None) -> None:
        if message is not None:
            shutdown.said.message = message
        shutdown.reports += 1
        shutdown.reported = time.monotonic()
        self.changed.notify_all()

    def _record(self, shutdown: Shutdown) -> None:
        try:
            self._state.save(shutdown.to_record())
        except OSError as error:
            _log.error("cannot record the shutdown: %s", error)
            message = "the hook cannot write its state"
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "NOT_SERVING", message) from error

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        # Ends with the process: what must not be forgotten is on disk.
        threading.Thread(target=work, args=arguments, name="quiesce-shutdown", daemon=True).start()

    def _begin(self, shutdown: Shutdown, request: shutdown_hook_pb2.ShutdownRequest) -> None:
        if self._has_ended():
            self._finish(shutdown, Outcome.OUTCOME_NOT_RUNNING, "it was not running")
            return
        with self.changed:
            if not self._is_open(shutdown):
                return
            shutdown.phase = max(shutdown.phase, types_pb2.SHUTDOWN_PHASE_STOPPING)
            try:
                self._record(shutdown)
            except Refusal as refusal:
                failure = refusal.message
            else:
                failure = ""
                self._report(shutdown, message="told to stop")
        if failure:
            self._finish(shutdown, Outcome.OUTCOME_STILL_RUNNING, failure)
            return
        # Beside the watch: a stop command may well last until the end.
        self._spawn(self._tell, shutdown, request)
        self._watch(shutdown)

    def _tell(self, shutdown: Shutdown, request: shutdown_hook_pb2.ShutdownRequest) -> None:
        try:
            self._stop(request)
        except Exception as error:
            _log.exception("the callback stop has failed")
            self._finish(shutdown, Outcome.OUTCOME_STILL_RUNNING, f"the stop has failed: {error}")

    def _watch(self, shutdown: Shutdown, _request: object = None) -> None:
        while True:
            ended = self._has_ended()
            with self.changed:
                if not self._is_open(shutdown):
                    return
                killed = shutdown.phase == types_pb2.SHUTDOWN_PHASE_KILLING
            if ended:
                self._finish(shutdown, Outcome.OUTCOME_KILLED if killed else Outcome.OUTCOME_STOPPED, "it has ended")
                return
            time.sleep(_LOOK_EVERY)

    def _is_open(self, shutdown: Shutdown) -> bool:
        return shutdown is self._current and shutdown.result is None

    def _has_ended(self) -> bool:
        try:
            return not self._running()
        except Exception as error:
            # Not to know is not to have ended.
            _log.warning("the callback running has failed: %s", error)
            return False

    def _finish(self, shutdown: Shutdown, outcome: types_pb2.StopResult.Outcome.ValueType, message: str) -> None:
        ended = outcome != Outcome.OUTCOME_STILL_RUNNING
        result = types_pb2.StopResult(outcome=outcome, message=message)
        result.evidence = self._evidence if ended else types_pb2.EVIDENCE_UNSPECIFIED
        result.duration.CopyFrom(duration_pb2.Duration(seconds=max(0, int(time.time() - shutdown.accepted))))
        with self.changed:
            if not self._is_open(shutdown):
                return
            shutdown.result = result
            shutdown.phase = types_pb2.SHUTDOWN_PHASE_STOPPED if ended else types_pb2.SHUTDOWN_PHASE_FAILED
            self._report(shutdown, message=message)
            try:
                self._record(shutdown)
            except Refusal:
                # The result holds all the same; after a restart it is found out anew.
                _log.warning("the end of the shutdown could not be recorded")


def _precondition(reason: str, message: str, **metadata: str) -> Refusal:
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, reason, message, **metadata)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
