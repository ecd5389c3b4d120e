"""Why a hook does not do what it is asked: errors with the details that the contract wants."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "quiesce.v1"
# What is worth repeating is so after this many seconds.
_PAUSE = 1


class Refusal(Exception):
    """A call that is answered with an error. The reason is one of `ErrorReason`, without prefix."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.metadata = code, reason, message, metadata

    @classmethod
    def field(cls, path: str, description: str) -> Refusal:
        """A field that cannot be used."""
        return cls(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", f"{path} {description}", field=path)

    def raise_in(self, context: Any) -> NoReturn:
        """Ends the call with this."""
        details: list[Any] = [error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)]
        if self.code is grpc.StatusCode.INVALID_ARGUMENT:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.metadata["field"], description=self.message)
            details = [error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN)]
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        elif self.code is grpc.StatusCode.FAILED_PRECONDITION:
            failure = error_details_pb2.PreconditionFailure.Violation(type=self.reason, description=self.message)
            details.append(error_details_pb2.PreconditionFailure(violations=[failure]))
        elif self.reason in ("SHUTDOWN_IN_PROGRESS", "NOT_SERVING"):
            details.append(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=_PAUSE)))
        packed = []
        for detail in details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        code = code_pb2.Code.Value(self.code.name)
        context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=code, message=self.message, details=packed)))
        raise AssertionError("abort_with_status raises")
