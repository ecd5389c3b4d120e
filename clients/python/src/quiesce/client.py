"""The client for programs without asyncio."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import grpc

from quiesce.connection import DEADLINE, OPTIONS, Files, Preparation, TokenSource, read_token, target_of
from quiesce.following import Place
from quiesce.v1 import access_pb2_grpc, agent_gateway_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc, types_pb2


class Client:
    """A scheduler. The stubs take and return what the contract says and raise grpc.RpcError; see `Problem.of`."""

    scheduler: scheduler_pb2_grpc.SchedulerStub
    access: access_pb2_grpc.AccessStub
    gateway: agent_gateway_pb2_grpc.AgentGatewayStub

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.scheduler = scheduler_pb2_grpc.SchedulerStub(channel)
        self.access = access_pb2_grpc.AccessStub(channel)
        self.gateway = agent_gateway_pb2_grpc.AgentGatewayStub(channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls."""
        self.channel.close()

    def migrate(self, application: str, to: str, *, request_id: str = "", reason: str = "") -> types_pb2.Operation:
        """Begins the migration of an application, named without `applications/`, to a cluster."""
        request = scheduler_pb2.MigrateApplicationRequest(
            name=f"applications/{application}", target_cluster=to, request_id=request_id, reason=reason
        )
        return self.scheduler.MigrateApplication(request).operation

    def delete(self, application: str, *, request_id: str = "", reason: str = "") -> types_pb2.Operation:
        """Begins the deletion of an application, named without `applications/`."""
        request = scheduler_pb2.DeleteApplicationRequest(
            name=f"applications/{application}", request_id=request_id, reason=reason
        )
        return self.scheduler.DeleteApplication(request).operation

    def follow(
        self, operation: str, *, resume_token: str = "", end_on_degraded: bool = True
    ) -> Iterator[types_pb2.OperationEvent]:
        """Every event of an operation until it is done, or rests until a person decides.

        A watch that breaks is opened again where it was: nothing is missing, nothing comes twice. Begin behind an event of
        an earlier one with its `resume_token`.
        """
        place = Place(resume_token)
        while True:
            request = scheduler_pb2.WatchOperationRequest(
                name=operation, resume_token=place.resume_token, end_on_degraded=end_on_degraded
            )
            try:
                for response in self.scheduler.WatchOperation(request):
                    yield response.event
                    place.passed(response.event)
                return
            except grpc.RpcError as error:
                pause = place.after(error)
            time.sleep(pause)


def connect(
    url: str = "http://127.0.0.1:7600",
    *,
    token: str | TokenSource | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    deadline: float = DEADLINE,
) -> Client:
    """A client of the scheduler at `url`, connected when it is first asked something.

    `https://` for TLS, with PEM files; a token, or the file that holds one. `deadline`, in seconds, counts for every call
    that is not a watch and is given no `timeout` of its own.
    """
    files = Files(ca, cert, key)
    target, secure = target_of(url, files)
    interceptor = _Interceptor(Preparation(source_of(token, token_file), deadline))
    if secure:
        channel = grpc.secure_channel(target, files.credentials(), options=OPTIONS)
    else:
        channel = grpc.insecure_channel(target, options=OPTIONS)
    return Client(grpc.intercept_channel(channel, interceptor))


def source_of(token: str | TokenSource | None, token_file: str | os.PathLike[str] | None) -> TokenSource:
    """Where the token comes from."""
    if token_file is not None:
        if token is not None:
            raise ValueError("give a token or the file of one, not both")
        token = read_token(token_file)
    if callable(token):
        return token
    return lambda: token


class _CallDetails(grpc.ClientCallDetails):
    def __init__(self, given: Any, timeout: float | None, metadata: Any) -> None:
        self.method, self.timeout, self.metadata = given.method, timeout, metadata
        self.credentials = given.credentials
        self.wait_for_ready = getattr(given, "wait_for_ready", None)
        self.compression = getattr(given, "compression", None)


class _Interceptor(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        add, given = self._preparation, client_call_details
        timeout = add.deadline if given.timeout is None else given.timeout
        return continuation(_CallDetails(given, timeout, add.metadata(given.metadata)), add.message(request))

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        given = client_call_details
        return continuation(_CallDetails(given, given.timeout, self._preparation.metadata(given.metadata)), request)
