"""The link to the scheduler: registration, the credential of the instance, and dialling in (rules A1 to A6)."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
import time
from dataclasses import dataclass

from quiesce.client import connect
from quiesce.connection import Files, read_token, target_of
from quiesce.hookkit.record import StateDirectory
from quiesce.v1 import agent_gateway_pb2, types_pb2

# For the connection, and again for the exchange of lines.
_LIMIT = 5.0
_LINE_MAX = 512
# What is read at a time from either side.
_PIECE = 64 * 1024
# A registration is waited for no longer than this; schedulers answer within milliseconds.
_CALL_LIMIT = 10.0
# Rule A5.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
# Behind a connection, since the scheduler was there: half of what it waits for a hook.
_LONGEST_ABSENCE = 5.0
# After this time a connection was a good one, and the next try comes quickly.
_GOOD_CONNECTION = 10.0

_log = logging.getLogger("quiesce.hookkit")


class AttachError(Exception):
    """The scheduler did not take the connection."""


@dataclass(frozen=True)
class Scheduler:
    """Where the scheduler is, and what proves who calls.

    `ca`, `cert` and `key` are PEM files for https://. `join_token_file` is the file with the token the instance joins with,
    where access is enforced; it gets a credential of its own, which is kept in the state directory, and needs the file no
    more.
    """

    url: str
    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    join_token_file: str | os.PathLike[str] | None = None

    @property
    def files(self) -> Files:
        return Files(self.ca, self.cert, self.key)


class Pauses:
    """Between tries: growing, spread, short behind a good connection."""

    def __init__(self, longest: float = _LONGEST_PAUSE) -> None:
        self._longest, self._next = longest, _FIRST_PAUSE

    def reset(self) -> None:
        self._next = _FIRST_PAUSE

    def next(self) -> float:
        pause = self._next
        self._next = min(pause * 2, self._longest)
        return pause * random.uniform(0.8, 1.2)


class Redial:
    """When a hook that dials in does so again."""

    def __init__(self) -> None:
        self._unreachable, self._lost = Pauses(), Pauses(_LONGEST_ABSENCE)

    def after(self, lasted: float | None) -> float:
        """The pause behind a try; `lasted` is how long the connection did, None if there was none."""
        if lasted is None:
            return self._unreachable.next()
        self._unreachable.reset()
        if lasted >= _GOOD_CONNECTION:
            self._lost.reset()
        return self._lost.next()


class Registrar:
    """Registers the instance, and keeps the credential that the scheduler gives it."""

    def __init__(self, scheduler: Scheduler, instance: types_pb2.Instance, state: StateDirectory) -> None:
        self._scheduler, self._state = scheduler, state
        self._request = agent_gateway_pb2.RegisterInstanceRequest(instance=instance)
        self._request.instance.agent_id = state.agent_id()
        self._rejected = False
        files = scheduler.files
        self._client = connect(
            scheduler.url, token=self._token, ca=files.ca, cert=files.cert, key=files.key, deadline=_CALL_LIMIT
        )

    def _token(self) -> str | None:
        held = (self._state.read("instance.token") or "").strip() or None
        join = self._scheduler.join_token_file
        # What was rejected last makes room for the other; a certificate may do without either.
        if held is None or self._rejected:
            return read_token(join) if join is not None else None
        return held

    def register(self) -> agent_gateway_pb2.RegisterInstanceResponse:
        """Registers, as before every dialling in; raises grpc.RpcError."""
        try:
            answer = self._client.gateway.RegisterInstance(self._request)
        except Exception as error:
            code = getattr(error, "code", None)
            if code is not None and code().name == "UNAUTHENTICATED":
                self._rejected = not self._rejected
            raise
        self._rejected = False
        if answer.instance_token and answer.instance_token != (self._state.read("instance.token") or "").strip():
            self._state.replace("instance.token", answer.instance_token + "\n")
            _log.info("the scheduler knows this instance by a credential of its own now")
        return answer

    def attach_target(self, answer: agent_gateway_pb2.RegisterInstanceResponse) -> tuple[str, int]:
        """Where to dial in."""
        target = answer.attach_endpoint or target_of(self._scheduler.url, self._scheduler.files)[0]
        host, _, port = target.rpartition(":")
        return host.strip("[]"), int(port)

    def tls(self) -> ssl.SSLContext | None:
        """What makes the connection secure, if the scheduler's URL is for TLS."""
        if not target_of(self._scheduler.url, self._scheduler.files)[1]:
            return None
        files = self._scheduler.files
        context = ssl.create_default_context(cafile=files.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["quiesce-attach/1"])
        if files.cert:
            context.load_cert_chain(files.cert, files.key)
        return context

    def close(self) -> None:
        self._client.close()


async def attached(host: str, port: int, tls: ssl.SSLContext | None, token: str, local: str) -> float:
    """Dials in and copies bytes between that connection and the hook's own socket `local`, until either ends.

    The server of grpc cannot take over a connection that this program has opened, so it sits behind this pipe. Returns how
    many seconds the connection lasted; raises OSError or AttachError when there was none.
    """
    server_name = host if tls is not None else None
    connecting = asyncio.open_connection(host, port, ssl=tls, server_hostname=server_name)
    reader, writer = await asyncio.wait_for(connecting, _LIMIT)
    try:
        writer.write(f"QUIESCE/1 ATTACH {token}\r\n".encode())
        try:
            line = await asyncio.wait_for(reader.readuntil(b"\r\n"), _LIMIT)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise AttachError("not the answer of a quiesce scheduler") from error
        words = line[:_LINE_MAX].decode("ascii", "replace").split()
        if words[:2] == ["QUIESCE/1", "ERROR"]:
            raise AttachError(f"the scheduler refuses: {' '.join(words[2:])}")
        if words != ["QUIESCE/1", "OK"]:
            raise AttachError("not the answer of a quiesce scheduler")
        _log.info("attached to the scheduler at %s:%d", host, port)
        since = time.monotonic()
        local_reader, local_writer = await asyncio.open_unix_connection(local)
        try:
            pipes = [asyncio.ensure_future(_copy(reader, local_writer)), asyncio.ensure_future(_copy(local_reader, writer))]
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
        finally:
            local_writer.close()
        return time.monotonic() - since
    finally:
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        # The other side's pace: nothing heaps up here.
        await writer.drain()
