"""What both clients need to follow an operation to its end: when to open a watch again, and with what."""

from __future__ import annotations

import random
from collections.abc import Iterator

import grpc

from quiesce.errors import Problem
from quiesce.v1 import types_pb2

FINAL_STATES = frozenset(
    {
        types_pb2.Operation.STATE_SUCCEEDED,
        types_pb2.Operation.STATE_CANCELLED,
        types_pb2.Operation.STATE_ROLLED_BACK,
        types_pb2.Operation.STATE_ABANDONED,
    }
)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_WITHOUT_TOKEN = ("RESUME_TOKEN_EXPIRED", "INVALID_RESUME_TOKEN")
_BROKEN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED})


def name_of(state: int) -> str:
    """Name of a state of an operation without its prefix, also of one that this version does not know."""
    try:
        return types_pb2.Operation.State.Name(types_pb2.Operation.State.ValueType(state)).removeprefix("STATE_")
    except ValueError:
        return str(state)


class Place:
    """How far a watch has come, and how long to wait before it is opened again."""

    def __init__(self, resume_token: str) -> None:
        self.resume_token = resume_token
        self._pauses = _pauses()

    def passed(self, event: types_pb2.OperationEvent) -> None:
        """`event` has been delivered."""
        self.resume_token = event.resume_token or self.resume_token
        self._pauses = _pauses()

    def after(self, error: grpc.RpcError) -> float:
        """How many seconds to wait before opening the watch again; raises `error` if that would be of no use."""
        problem = Problem.of(error)
        if problem.reason in _WITHOUT_TOKEN and self.resume_token:
            self.resume_token = ""
        elif problem.reason not in ("WATCH_TOO_SLOW", "LIMIT_EXCEEDED") and problem.code not in _BROKEN:
            raise error
        return max(next(self._pauses), problem.retry_after or 0.0)


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.8, 1.2)
        pause = min(pause * 2, _LONGEST_PAUSE)
