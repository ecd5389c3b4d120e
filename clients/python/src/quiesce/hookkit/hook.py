"""The hook as a whole: what it is, and the two ways to serve it."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import grpc
from google.protobuf import duration_pb2

from quiesce.errors import Problem
from quiesce.hookkit.link import AttachError, Pauses, Redial, Registrar, Scheduler, attached
from quiesce.hookkit.record import StateDirectory
from quiesce.hookkit.service import Guard, Service, serve
from quiesce.hookkit.shutdown import Shutdowns, Stop
from quiesce.v1 import agent_gateway_pb2, types_pb2

# A hook that listens registers again this often, so that a scheduler that lost its memory learns of it.
_REFRESH = 60.0
# How long calls that are under way may go on when the hook is closed.
_FAREWELL = 1.0

_log = logging.getLogger("quiesce.hookkit")


class Hook:
    """Stops one instance of an application through two callbacks.

    `stop(request)` tells the application to stop and may take its time; what it raises is reported, and the application
    taken for running. `running()` says whether any process of it is left: it is asked ten times a second, and the hook
    reports an end when, and only when, it says no. `evidence` is how well it knows. `kill()` ends the application at
    once; without it the hook does not offer that. Callbacks are called from threads of the kit.

    With a `state_dir` of its own the hook remembers the shutdown and its credential over a restart. Use one Hook a process.
    """

    def __init__(
        self,
        instance: str,
        *,
        stop: Stop,
        running: Callable[[], bool],
        kill: Callable[[], object] | None = None,
        cluster: str = "",
        state_dir: str | os.PathLike[str] | None = None,
        evidence: types_pb2.Evidence.ValueType = types_pb2.EVIDENCE_PROCESS_GONE,
        stop_order: int = 0,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """`instance` is applications/{application}/instances/{instance}, or empty if the hook does not know."""
        self._state = StateDirectory(state_dir)
        self._shutdowns = Shutdowns(stop, running, kill, instance, evidence, self._state)
        self._instance = types_pb2.Instance(name=instance, cluster=cluster, stop_order=stop_order, labels=labels or {})
        self._capabilities = [types_pb2.CAPABILITY_STATUS]
        if kill is not None:
            self._capabilities.append(types_pb2.CAPABILITY_KILL)
        if self._state.durable:
            self._capabilities.append(types_pb2.CAPABILITY_DURABLE)
        self._service = Service(self._shutdowns, self._info)
        self._closing = threading.Event()

    def say(
        self,
        message: str = "",
        *,
        step: str = "",
        percent: int | None = None,
        wanted_grace_period: float | None = None,
    ) -> None:
        """Reports what the application does while it stops, and how many seconds of grace it would like in all."""
        said = types_pb2.ShutdownStatus(message=message, step=step, percent=percent)
        if wanted_grace_period is not None:
            said.wanted_grace_period.CopyFrom(duration_pb2.Duration(nanos=0, seconds=int(wanted_grace_period)))
        self._shutdowns.say(said)

    def listen(
        self,
        address: str,
        *,
        scheduler: Scheduler | None = None,
        hook_token: str | None = None,
        advertise: str | None = None,
        cert: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        client_ca: str | os.PathLike[str] | None = None,
    ) -> None:
        """Serves the hook on `host:port` until it is closed.

        Callers need the token: the one that registering with `scheduler` brings, or `hook_token` for a hook that somebody
        else has registered. `advertise` is where the scheduler reaches it, if that is another address.

        `cert` and `key` are PEM files for TLS, which schedulers want beyond loopback; the certificate is for the host of
        the address. With `client_ca` only clients with a certificate of these CAs are let in.
        """
        if (scheduler is None) == (hook_token is None):
            raise ValueError("listen takes a scheduler to register with, or the token of a hook that is registered")
        guard = Guard()
        tls = _server_credentials(cert, key, client_ca)
        server, port = serve(self._service, address, guard, tls)
        try:
            endpoint = f"{'https://' if tls else ''}{address.rpartition(':')[0]}:{port}"
            _log.info("the hook listens on %s", endpoint)
            if scheduler is None:
                guard.expect(hook_token or "")
                self._closing.wait()
                return
            self._instance.connect_mode = types_pb2.Instance.CONNECT_MODE_LISTEN
            self._instance.endpoint = advertise or endpoint
            self._keep_registered(Registrar(scheduler, self._instance, self._state), guard)
        finally:
            server.stop(_FAREWELL).wait()

    def _keep_registered(self, registrar: Registrar, guard: Guard) -> None:
        pauses = Pauses()
        while not self._closing.is_set():
            answer = self._register(registrar)
            if answer is None:
                self._closing.wait(pauses.next())
                continue
            pauses.reset()
            # A scheduler asks a hook as soon as it is registered, which may be before its token has got here; turned away,
            # it comes back much later. Registering again makes it ask again.
            if not guard.expect(answer.hook_token):
                self._closing.wait(_REFRESH)
        registrar.close()

    def dial_in(self, scheduler: Scheduler) -> None:
        """Opens the connection to the scheduler and serves the hook over it, until it is closed."""
        self._instance.connect_mode = types_pb2.Instance.CONNECT_MODE_DIAL_IN
        # Nobody else gets to the socket: the directory is for this user only.
        with tempfile.TemporaryDirectory(prefix="quiesce-hook-") as directory:
            local = os.path.join(directory, "hook.sock")
            server, _ = serve(self._service, f"unix:{local}", None)
            registrar, redial = Registrar(scheduler, self._instance, self._state), Redial()
            try:
                while not self._closing.is_set():
                    lasted = self._dial_once(registrar, local)
                    self._closing.wait(redial.after(lasted))
            finally:
                registrar.close()
                server.stop(_FAREWELL).wait()

    def _dial_once(self, registrar: Registrar, local: str) -> float | None:
        answer = self._register(registrar)
        if answer is None:
            return None
        host, port = registrar.attach_target(answer)
        try:
            lasted = asyncio.run(self._until_closed(host, port, registrar, answer.attach_token, local))
        except (TimeoutError, OSError, AttachError) as error:
            _log.warning("cannot attach to the scheduler at %s:%d, trying again: %s", host, port, error)
            return None
        if not self._closing.is_set():
            _log.warning("lost the connection to the scheduler, the application runs on")
        return lasted

    async def _until_closed(self, host: str, port: int, registrar: Registrar, token: str, local: str) -> float:
        serving = asyncio.ensure_future(attached(host, port, registrar.tls(), token, local))
        closing = asyncio.get_running_loop().run_in_executor(None, self._wait_for, serving)
        try:
            return await serving
        except asyncio.CancelledError:
            return 0.0
        finally:
            serving.cancel()
            await closing

    def _wait_for(self, serving: asyncio.Future[float]) -> None:
        while not serving.done():
            if self._closing.wait(0.2):
                serving.get_loop().call_soon_threadsafe(serving.cancel)
                return

    def close(self) -> None:
        """Ends `listen` or `dial_in`. A shutdown that runs is not taken back, but nobody watches it any more."""
        self._closing.set()

    def _register(self, registrar: Registrar) -> agent_gateway_pb2.RegisterInstanceResponse | None:
        try:
            answer = registrar.register()
        except grpc.RpcError as error:
            _log.warning("cannot register, trying again: %s", Problem.of(error))
        except (OSError, ValueError) as error:
            _log.warning("cannot register, trying again: %s", error)
        else:
            return answer
        return None

    def _info(self) -> types_pb2.HookInfo:
        info = types_pb2.HookInfo(
            instance=self._instance.name,
            implementation="quiesce-hookkit-python",
            implementation_version=metadata_version(),
            protocol_version="1.0",
            capabilities=self._capabilities,
        )
        try:
            info.app_state = self._shutdowns.app_state()
            info.ready = True
        except Exception as error:
            info.ready, info.not_ready_reason = False, f"cannot tell whether the application runs: {error}"
        return info


def _server_credentials(
    cert: str | os.PathLike[str] | None, key: str | os.PathLike[str] | None, client_ca: str | os.PathLike[str] | None
) -> grpc.ServerCredentials | None:
    if cert is None or key is None:
        if cert is not None or key is not None or client_ca is not None:
            raise ValueError("TLS takes a certificate and its key")
        return None
    pair = (Path(key).read_bytes(), Path(cert).read_bytes())
    authorities = Path(client_ca).read_bytes() if client_ca is not None else None
    return grpc.ssl_server_credentials([pair], authorities, require_client_auth=client_ca is not None)


def metadata_version() -> str:
    """Version of this package; "unknown" when it was not installed."""
    try:
        return metadata.version("quiesce")
    except metadata.PackageNotFoundError:
        return "unknown"
