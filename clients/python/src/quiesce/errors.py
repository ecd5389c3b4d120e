"""What an error says beyond its code: the details that every error of a scheduler carries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "quiesce.v1"
_DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True)
class Violation:
    """One field of a request that cannot be used, by its path in the request."""

    field: str
    description: str


@dataclass(frozen=True)
class Problem:
    """An error, decoded. Tell errors apart by `reason`; the message is for people.

    `reason` is a name of `ErrorReason` without its prefix, such as "APPLICATION_NOT_FOUND"; empty when the error did not
    come from a scheduler or hook (a lost connection, a deadline). `retry_after` is in seconds, None when there is no use
    in repeating the same call.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    retry_after: float | None = None

    @classmethod
    def of(cls, error: grpc.RpcError) -> Problem:
        """Decodes what a call raised, be it of grpc or of grpc.aio."""
        # Every error that a call raises is a call as well, which the types do not say.
        call = cast(Any, error)
        reason, metadata, violations, retry_after = "", {}, [], None
        for any_detail in _details(call.trailing_metadata() or ()):
            info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
            if any_detail.Unpack(info) and info.domain == DOMAIN:
                reason, metadata = info.reason, dict(info.metadata)
            elif any_detail.Unpack(bad):
                violations += [Violation(found.field, found.description) for found in bad.field_violations]
            elif any_detail.Unpack(retry):
                retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        return cls(call.code(), call.details() or "", reason, metadata, tuple(violations), retry_after)

    def __str__(self) -> str:
        named = f"{self.code.name} / {self.reason}" if self.reason else self.code.name
        fields = "".join(f"\n  {found.field}: {found.description}" for found in self.violations)
        return f"{named}: {self.message}{fields}"


def _details(trailers: Any) -> Any:
    status = status_pb2.Status()
    for key, value in trailers:
        if key == _DETAILS:
            try:
                status.ParseFromString(value)
            except DecodeError:
                return []
    return status.details
