"""The gRPC service: whoever has the credentials may ask, and is answered by `Shutdowns`."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from quiesce.hookkit.refusal import Refusal
from quiesce.hookkit.shutdown import Shutdowns
from quiesce.v1 import shutdown_hook_pb2, shutdown_hook_pb2_grpc, types_pb2

_HOOK = shutdown_hook_pb2.DESCRIPTOR.services_by_name["ShutdownHook"].full_name

# Calls at a time, each of which takes a thread. A scheduler needs a handful; a person with grpcurl a few more.
_CALLS_MAX = 64

_OPTIONS = [
    # Rule A3: the server pings, also while nothing is going on, and nothing forbids it to.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.max_metadata_size", 16 * 1024),
    # Two hooks on one port would share the calls.
    ("grpc.so_reuseport", 0),
]


class Guard(grpc.ServerInterceptor):
    """Lets in who sends the token; nobody as long as there is none. Whether the hook serves at all is for everybody."""

    def __init__(self) -> None:
        self._digest: bytes | None = None

    def expect(self, token: str) -> bool:
        """From now on this token is asked for. Whether it is a new one."""
        before, self._digest = self._digest, hashlib.sha256(token.encode()).digest()
        return before != self._digest

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if handler_call_details.method.startswith(f"/{health.SERVICE_NAME}/"):
            return continuation(handler_call_details)
        refusal = self._refusal(dict(handler_call_details.invocation_metadata).get("authorization", ""))
        if refusal is None:
            return continuation(handler_call_details)

        def refuse(_request: object, context: Any) -> None:
            refusal.raise_in(context)

        return grpc.unary_unary_rpc_method_handler(refuse)

    def _refusal(self, authorization: str | bytes) -> Refusal | None:
        if self._digest is None:
            message = "not registered with the scheduler yet, so its credentials are not known"
            return Refusal(grpc.StatusCode.UNAVAILABLE, "NOT_SERVING", message)
        scheme, _, token = str(authorization).partition(" ")
        presented = hashlib.sha256(token.encode()).digest()
        if scheme.lower() == "bearer" and hmac.compare_digest(presented, self._digest):
            return None
        return Refusal(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "no or unusable credentials")


class Service(shutdown_hook_pb2_grpc.ShutdownHookServicer):
    """quiesce.v1.ShutdownHook. What is not here answers UNIMPLEMENTED, and is not announced."""

    def __init__(self, shutdowns: Shutdowns, info: Callable[[], types_pb2.HookInfo]) -> None:
        self._shutdowns, self._info = shutdowns, info

    def GetHookInfo(self, request: Any, context: Any) -> shutdown_hook_pb2.GetHookInfoResponse:
        return shutdown_hook_pb2.GetHookInfoResponse(info=self._info())

    def Shutdown(self, request: Any, context: Any) -> Iterator[shutdown_hook_pb2.ShutdownResponse]:
        try:
            shutdown = self._shutdowns.accept(request)
            seen = 0
            # The caller may go; the shutdown goes on (H9).
            while context.is_active():
                status = self._shutdowns.next_report(shutdown, seen)
                seen = status.sequence
                yield shutdown_hook_pb2.ShutdownResponse(status=status)
                if status.HasField("result"):
                    return
        except Refusal as refusal:
            refusal.raise_in(context)

    def GetShutdown(self, request: Any, context: Any) -> shutdown_hook_pb2.GetShutdownResponse:
        try:
            return shutdown_hook_pb2.GetShutdownResponse(status=self._shutdowns.get(request.shutdown_id))
        except Refusal as refusal:
            refusal.raise_in(context)

    def KillApplication(self, request: Any, context: Any) -> shutdown_hook_pb2.KillApplicationResponse:
        try:
            status = self._shutdowns.kill(request.shutdown_id, request.completion_token)
        except Refusal as refusal:
            refusal.raise_in(context)
        return shutdown_hook_pb2.KillApplicationResponse(status=status)


def serve(
    service: Service, address: str, guard: Guard | None, tls: grpc.ServerCredentials | None = None
) -> tuple[grpc.Server, int]:
    """Serves on `address`; without a guard, whoever can connect may call. Returns the port, 1 for a unix socket."""
    server = grpc.server(
        ThreadPoolExecutor(_CALLS_MAX, thread_name_prefix="quiesce-hook"),
        interceptors=[guard] if guard is not None else [],
        options=_OPTIONS,
        maximum_concurrent_rpcs=_CALLS_MAX,
    )
    shutdown_hook_pb2_grpc.add_ShutdownHookServicer_to_server(service, server)
    # Watches must not hold threads that calls need.
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(experimental_non_blocking=True), server)
    reflection.enable_server_reflection((_HOOK, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port(address) if tls is None else server.add_secure_port(address, tls)
    server.start()
    return server, port
