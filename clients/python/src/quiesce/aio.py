"""The client for asyncio. The same as `quiesce.client`, awaited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from quiesce.client import source_of
from quiesce.connection import DEADLINE, OPTIONS, Files, Preparation, TokenSource, target_of
from quiesce.following import Place
from quiesce.v1 import access_pb2_grpc, agent_gateway_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc, types_pb2

if TYPE_CHECKING:
    from quiesce.v1.access_pb2_grpc import AccessAsyncStub
    from quiesce.v1.agent_gateway_pb2_grpc import AgentGatewayAsyncStub
    from quiesce.v1.scheduler_pb2_grpc import SchedulerAsyncStub


class Client:
    """A scheduler. The stubs take and return what the contract says and raise grpc.RpcError; see `Problem.of`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.scheduler: SchedulerAsyncStub = scheduler_pb2_grpc.SchedulerStub(channel)
        self.access: AccessAsyncStub = access_pb2_grpc.AccessStub(channel)
        self.gateway: AgentGatewayAsyncStub = agent_gateway_pb2_grpc.AgentGatewayStub(channel)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all calls."""
        await self.channel.close()

    async def migrate(self, application: str, to: str, *, request_id: str = "", reason: str = "") -> types_pb2.Operation:
        """Begins the migration of an application, named without `applications/`, to a cluster."""
        request = scheduler_pb2.MigrateApplicationRequest(
            name=f"applications/{application}", target_cluster=to, request_id=request_id, reason=reason
        )
        return (await self.scheduler.MigrateApplication(request)).operation

    async def delete(self, application: str, *, request_id: str = "", reason: str = "") -> types_pb2.Operation:
        """Begins the deletion of an application, named without `applications/`."""
        request = scheduler_pb2.DeleteApplicationRequest(
            name=f"applications/{application}", request_id=request_id, reason=reason
        )
        return (await self.scheduler.DeleteApplication(request)).operation

    async def follow(
        self, operation: str, *, resume_token: str = "", end_on_degraded: bool = True
    ) -> AsyncIterator[types_pb2.OperationEvent]:
        """Every event of an operation until it is done, or rests until a person decides; see `quiesce.Client.follow`."""
        place = Place(resume_token)
        while True:
            request = scheduler_pb2.WatchOperationRequest(
                name=operation, resume_token=place.resume_token, end_on_degraded=end_on_degraded
            )
            try:
                async for response in self.scheduler.WatchOperation(request):
                    yield response.event
                    place.passed(response.event)
                return
            except grpc.RpcError as error:
                pause = place.after(error)
            await asyncio.sleep(pause)


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
    """A client of the scheduler at `url`; see `quiesce.connect`. To be called where a loop runs."""
    files = Files(ca, cert, key)
    target, secure = target_of(url, files)
    preparation = Preparation(source_of(token, token_file), deadline)
    interceptors = [_Unary(preparation), _Stream(preparation)]
    if secure:
        channel = grpc.aio.secure_channel(target, files.credentials(), options=OPTIONS, interceptors=interceptors)
    else:
        channel = grpc.aio.insecure_channel(target, options=OPTIONS, interceptors=interceptors)
    return Client(channel)


def _details(given: Any, timeout: float | None, metadata: list[tuple[str, str | bytes]]) -> grpc.aio.ClientCallDetails:
    return grpc.aio.ClientCallDetails(
        method=given.method,
        timeout=timeout,
        metadata=grpc.aio.Metadata(*metadata),
        credentials=given.credentials,
        wait_for_ready=given.wait_for_ready,
    )


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        add, given = self._preparation, client_call_details
        timeout = add.deadline if given.timeout is None else given.timeout
        return await continuation(_details(given, timeout, add.metadata(given.metadata)), add.message(request))


class _Stream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        given = client_call_details
        return await continuation(_details(given, given.timeout, self._preparation.metadata(given.metadata)), request)
