"""Connections to a scheduler: addresses, TLS, tokens, deadlines, repetitions. Shared by `quiesce` and `quiesce.aio`."""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

# How long a call that says nothing else may take, in seconds. Answers take milliseconds; a dry run asks hooks, for which
# the scheduler waits 10 seconds by default.
DEADLINE = 15.0

# Messages of the contract stay under 1 MiB.
_MESSAGE_MAX = 1 << 20

# What docs/protocol.md says of repetitions. It covers calls that take a request_id as well, since this client always
# sends one. Watches are left out: they are resumed, which is something else.
SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "quiesce.v1.Scheduler"}, {"service": "quiesce.v1.AgentGateway"}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "3s",
                    "backoffMultiplier": 2.0,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            },
            {
                "name": [
                    {"service": "quiesce.v1.Scheduler", "method": "WatchOperation"},
                    {"service": "quiesce.v1.Scheduler", "method": "WatchOperations"},
                ]
            },
        ]
    }
)

OPTIONS = [
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.max_receive_message_length", _MESSAGE_MAX),
    # A watch that hears nothing asks whether anybody is there, no more often than schedulers put up with.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]


@dataclass(frozen=True)
class Files:
    """PEM files for TLS: the CAs that sign the scheduler's certificate, and an own certificate with its key."""

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Without `ca` the certificates count that come with gRPC."""

        def content(path: str | os.PathLike[str] | None) -> bytes | None:
            return Path(path).read_bytes() if path else None

        return grpc.ssl_channel_credentials(content(self.ca), content(self.key), content(self.cert))

    @property
    def given(self) -> bool:
        """Whether any file is named."""
        return bool(self.ca or self.cert or self.key)


def target_of(url: str, files: Files) -> tuple[str, bool]:
    """`host:port` of a URL such as http://127.0.0.1:7600, and whether it is for TLS."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"{url!r} is not http://HOST:PORT or https://HOST:PORT")
    secure = parts.scheme == "https"
    if files.given and not secure:
        raise ValueError(f"{url!r} is for talk in the clear, although there are files for TLS")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or (443 if secure else 80)}", secure


def read_token(path: str | os.PathLike[str]) -> str:
    """A token from a file that nobody but its owner can read."""
    with open(path, encoding="ascii") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise PermissionError(f"others can read the token in {os.fspath(path)!r}: chmod 600")
        return file.read().strip()


# What to send as `authorization: Bearer`, asked for before each call; None: nothing.
TokenSource = Callable[[], str | None]


@dataclass(frozen=True)
class Preparation:
    """What is added to every call: who calls, how long it may take, and the name of the request."""

    token: TokenSource
    deadline: float

    def metadata(self, given: Any) -> list[tuple[str, str | bytes]]:
        """The metadata of a call with the credential in it."""
        token = self.token()
        return [*(given or ()), *([("authorization", f"Bearer {token}")] if token else [])]

    def message(self, request: Any) -> Any:
        """The request with a request_id, if it takes one and the caller gave none: then it can be repeated."""
        fields = request.DESCRIPTOR.fields_by_name
        if "request_id" in fields and not request.request_id and not getattr(request, "validate_only", False):
            named = type(request)()
            named.CopyFrom(request)
            named.request_id = str(uuid.uuid4())
            return named
        return request
