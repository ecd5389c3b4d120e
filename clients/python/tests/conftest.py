"""What the tests share: the schedulers of clients/testbed, applications to be stopped, hooks of the example."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

import quiesce
from quiesce.v1 import scheduler_pb2, types_pb2

EXAMPLES = Path(__file__).parents[1] / "examples"
# A condition that has not come true by then will not.
LIMIT = 30.0

OPEN = os.environ.get("QUIESCE_TEST_OPEN", "")
SECURE = os.environ.get("QUIESCE_TEST_SECURE", "")
CA = os.environ.get("QUIESCE_TEST_CA", "")
TOKEN_FILE = os.environ.get("QUIESCE_TEST_TOKEN_FILE", "")

if not OPEN:
    pytest.exit("run the tests with clients/testbed, which starts schedulers: clients/testbed pytest", returncode=2)


T = TypeVar("T")


def eventually(found: Callable[[], T | None]) -> T:
    """Waits until `found` finds something."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        if (value := found()) is not None:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{found} has not come true within {LIMIT} s")


@pytest.fixture
def client() -> Iterator[quiesce.Client]:
    with quiesce.connect(OPEN) as client:
        yield client


@pytest.fixture
def secure() -> Iterator[quiesce.Client]:
    with quiesce.connect(SECURE, ca=CA, token_file=TOKEN_FILE) as client:
        yield client


class Relay:
    """Stands between a client and a scheduler, and can cut every connection."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._open += [near, far]
            self.connections += 1
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := one.recv(65536):
                other.sendall(piece)

    def cut(self) -> None:
        while self._open:
            connection = self._open.pop()
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def close(self) -> None:
        self._listener.close()
        self.cut()


class World:
    """Processes that a test starts, ended with it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.processes: list[subprocess.Popen[bytes]] = []
        self.name = f"py-{uuid.uuid4().hex[:8]}"
        self.instance = f"applications/{self.name}/instances/one"

    def create(self, client: quiesce.Client, **policy: object) -> None:
        """Makes the application known on cluster a; the caller moves it."""
        application = types_pb2.Application(name=f"applications/{self.name}", cluster="a")
        application.policy.CopyFrom(types_pb2.ShutdownPolicy(**policy))  # type: ignore[arg-type]
        client.scheduler.CreateApplication(scheduler_pb2.CreateApplicationRequest(application=application))

    def start(self, *command: str | Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        output = (self.place / "hook.log").open("ab")
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
        self.processes.append(process)
        return process

    def agent(self, scheduler: str) -> None:
        """The real agent with a real application."""
        agent = [os.environ["QUIESCE_TEST_AGENT"], "--application", self.name, "--cluster", "a", "--instance", "one"]
        self.start(*agent, "--scheduler", scheduler, "--state-dir", self.place / "agent", "--", "sleep", "1000")

    def application(self, *mode: str) -> subprocess.Popen[bytes]:
        """An application beside the hook; its pid stands in the file `pid`."""
        command = [os.environ["QUIESCE_TEST_APPLICATION"], str(self.place / "signals"), *mode]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        (self.place / "pid").write_text(str(process.pid))
        return process

    def signals(self) -> int:
        """How often the application was told to stop."""
        return len((self.place / "signals").read_text().splitlines())

    def hook(self, scheduler: str, *listen: str, **environment: str) -> subprocess.Popen[bytes]:
        command: list[str | Path] = [
            sys.executable,
            EXAMPLES / "hook.py",
            self.instance,
            self.place / "pid",
            self.place / "state",
            scheduler,
        ]
        return self.start(*command, *listen, environment=environment)

    def ready(self, client: quiesce.Client) -> types_pb2.Instance:
        """Waits until the scheduler says that the instance is ready."""

        def found() -> types_pb2.Instance | None:
            request = scheduler_pb2.ListInstancesRequest(parent=f"applications/{self.name}", filter="state = READY")
            return next(iter(client.scheduler.ListInstances(request).instances), None)

        return eventually(found)

    def log(self) -> str:
        return (self.place / "hook.log").read_text()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for process in world.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
