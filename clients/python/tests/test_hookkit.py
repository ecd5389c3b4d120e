"""Hooks on the kit: the example under a real scheduler, and the rules of the contract asked for directly."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from conftest import CA, EXAMPLES, OPEN, SECURE, World, eventually
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import quiesce
from quiesce.hookkit import Hook, Process, Scheduler
from quiesce.v1 import access_pb2, scheduler_pb2, shutdown_hook_pb2, shutdown_hook_pb2_grpc, types_pb2
from quiesce.v1.shutdown_hook_pb2 import ShutdownRequest

Operation, Event, Result = types_pb2.Operation, types_pb2.OperationEvent, types_pb2.StopResult
Metadata = tuple[tuple[str, str | bytes], ...]
BOTH_WAYS = pytest.mark.parametrize("listen", [[], ["127.0.0.1:0"]], ids=["dialling in", "listening"])


def seconds(value: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(nanos=int(value * 1e9) % 10**9, seconds=int(value))


def result_of(client: quiesce.Client, operation: str) -> tuple[types_pb2.Operation, types_pb2.InstanceShutdown]:
    """How an operation ended, and what the hook said last."""
    last = None
    for event in client.follow(operation):
        last = event
    assert last is not None
    snapshot = next(iter(client.follow(operation))).operation
    return snapshot, snapshot.instances[0]


@BOTH_WAYS
def test_an_application_is_stopped_through_the_example(client: quiesce.Client, world: World, listen: list[str]) -> None:
    world.create(client)
    application = world.application()
    world.hook(OPEN, *listen)
    instance = world.ready(client)
    assert instance.hook.implementation == "quiesce-hookkit-python"
    assert instance.hook.app_state == types_pb2.HookInfo.APP_STATE_RUNNING
    operation, stopped = result_of(client, client.migrate(world.name, "b").name)
    assert operation.state == Operation.STATE_SUCCEEDED
    assert stopped.verified and stopped.status.result.outcome == Result.OUTCOME_STOPPED
    assert stopped.status.result.evidence == types_pb2.EVIDENCE_PROCESS_GONE
    assert application.poll() == 0 and world.signals() == 1


@BOTH_WAYS
def test_an_application_that_ignores_the_stop_is_killed_when_the_scheduler_says_so(
    client: quiesce.Client, world: World, listen: list[str]
) -> None:
    world.create(
        client,
        grace_period=seconds(1),
        # Long enough for a busy machine: here the grace is to run out first.
        heartbeat_timeout=seconds(10),
        retry=types_pb2.RetryPolicy(max_attempts=1),
        failure_strategy=types_pb2.FAILURE_STRATEGY_GIVE_UP,
    )
    application = world.application("deaf")
    world.hook(OPEN, *listen)
    world.ready(client)
    degraded, _ = result_of(client, client.delete(world.name).name)
    assert degraded.state == Operation.STATE_DEGRADED
    assert degraded.failure.reason == types_pb2.Failure.REASON_GRACE_TIMEOUT
    assert application.poll() is None and world.signals() == 1, "the hook kills nothing by itself"

    retry = scheduler_pb2.RetryOperationRequest(name=degraded.name, force=True, reason="a test")
    client.scheduler.RetryOperation(retry)
    done, killed = result_of(client, degraded.name)
    assert done.state == Operation.STATE_SUCCEEDED
    assert killed.status.result.outcome == Result.OUTCOME_KILLED
    assert application.wait(10) == -signal.SIGKILL


@BOTH_WAYS
def test_a_hook_that_is_restarted_goes_on_and_tells_nobody_twice(
    client: quiesce.Client, world: World, listen: list[str]
) -> None:
    world.create(client, heartbeat_timeout=seconds(20))
    application = world.application("deaf")
    before = world.hook(OPEN, *listen)
    world.ready(client)
    operation = client.migrate(world.name, "b")
    eventually(lambda: world.signals() or None)
    before.kill()
    before.wait()
    world.hook(OPEN, *listen)
    # The new one has been heard: its reports continue those of the one before.
    life = 1_000_000

    def heard() -> bool | None:
        snapshot = next(iter(client.follow(operation.name))).operation
        return any(stopping.status.sequence > life for stopping in snapshot.instances) or None

    eventually(heard)
    application.kill()
    application.wait()
    done, stopped = result_of(client, operation.name)
    assert done.state == Operation.STATE_SUCCEEDED and stopped.attempt == 1
    assert stopped.status.result.outcome == Result.OUTCOME_STOPPED and world.signals() == 1


@BOTH_WAYS
def test_it_joins_over_tls_with_a_token_that_nobody_else_sees(
    secure: quiesce.Client, world: World, listen: list[str]
) -> None:
    world.create(secure)
    world.application()
    token = access_pb2.Token(
        display_name="a test", role=access_pb2.Token.ROLE_AGENT, applications=[f"applications/{world.name}"]
    )
    join = secure.access.CreateToken(access_pb2.CreateTokenRequest(token=token)).bearer_token
    join_file = world.place / "join.token"
    join_file.write_text(join)
    join_file.chmod(0o600)
    files = {
        "QUIESCE_CA": CA,
        "QUIESCE_HOOK_CERT": os.environ["QUIESCE_TEST_CERT"],
        "QUIESCE_HOOK_KEY": os.environ["QUIESCE_TEST_KEY"],
    }
    hook = world.hook(SECURE, *listen, QUIESCE_JOIN_TOKEN_FILE=str(join_file), **files)
    assert world.ready(secure).endpoint.startswith("https://") == bool(listen)
    credential = world.place / "state" / "instance.token"
    assert stat.S_IMODE(credential.stat().st_mode) == 0o600
    hook.kill()
    hook.wait()
    # The join token was good once. The credential that it brought goes on.
    join_file.unlink()
    world.hook(SECURE, *listen, **files)
    eventually(lambda: world.log().count("attached" if not listen else "listens on") >= 2 or None)
    done, _ = result_of(secure, secure.migrate(world.name, "b").name)
    assert done.state == Operation.STATE_SUCCEEDED
    assert join not in world.log() and credential.read_text().strip() not in world.log()


def test_the_example_is_short() -> None:
    code = [line for line in (EXAMPLES / "hook.py").read_text().splitlines() if line.strip() and not line.startswith('"""')]
    assert len(code) <= 20


def test_the_hook_of_the_readme_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (EXAMPLES.parent / "README.md").read_text().split("```python\n")[2].split("```")[0]
    dialled: list[Scheduler] = []
    monkeypatch.setattr(Hook, "dial_in", lambda _self, scheduler: dialled.append(scheduler))
    exec(code.replace("/var/lib/shop-hook", str(tmp_path)), {})
    assert dialled[0].join_token_file == "join.token"


class Direct:
    """A hook in this process, asked without a scheduler."""

    token = "a hook token"

    def __init__(self, state: Path | None) -> None:
        self.alive, self.stops, self.kills = True, 0, 0
        self.on_stop: Callable[[], None] = lambda: None
        self.hook = Hook(
            "applications/shop/instances/one",
            stop=self.stop,
            running=lambda: self.alive,
            kill=self.kill,
            state_dir=state,
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.thread = threading.Thread(target=self.hook.listen, args=(self.address,), kwargs={"hook_token": self.token})
        self.thread.start()
        self.channel = grpc.insecure_channel(self.address)
        self.stub = shutdown_hook_pb2_grpc.ShutdownHookStub(self.channel)
        self.metadata: Metadata = (("authorization", f"Bearer {self.token}"),)

    def stop(self, request: ShutdownRequest) -> None:
        assert request.completion_token == "", "a secret between the kit and the scheduler"
        self.stops += 1
        self.on_stop()

    def kill(self) -> None:
        self.kills += 1
        self.alive = False

    def begin(self, shutdown_id: str = "s1", **request: object) -> Iterator[types_pb2.ShutdownStatus]:
        message = ShutdownRequest(shutdown_id=shutdown_id, **request)  # type: ignore[arg-type]
        message.heartbeat_interval.CopyFrom(seconds(0.2))
        call = self.stub.Shutdown(message, metadata=self.metadata, wait_for_ready=True, timeout=30)
        return (response.status for response in call)

    def close(self) -> None:
        self.channel.close()
        self.hook.close()
        self.thread.join()


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Direct]:
    with contextlib.closing(Direct(tmp_path / "state")) as direct:
        yield direct


def refused(call: Iterator[object]) -> quiesce.Problem:
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    return quiesce.Problem.of(error.value)


def test_a_repeated_shutdown_joins_and_tells_nobody_twice(direct: Direct) -> None:
    first = direct.begin(completion_token="t1")
    reports = [next(first)]
    assert reports[0].sequence >= 1 and reports[0].completion_token == ""
    joined = direct.begin(completion_token="another", operation="operations/other", attempt=9)
    later = next(joined)
    assert later.sequence > reports[0].sequence
    eventually(lambda: direct.stops or None)
    direct.alive = False
    reports += list(first)
    ends = [list(joined)[-1], reports[-1], list(direct.begin(completion_token="t1"))[-1]]
    assert direct.stops == 1
    assert [end.sequence for end in ends] == [ends[0].sequence] * 3
    assert [end.result.outcome for end in ends] == [Result.OUTCOME_STOPPED] * 3
    assert [end.completion_token for end in ends] == ["t1"] * 3
    assert all(not report.HasField("result") and not report.completion_token for report in reports[:-1])
    sequences, phases = [report.sequence for report in reports], [report.phase for report in reports]
    assert sequences == sorted(set(sequences)) and phases == sorted(phases)


def test_reports_come_while_nothing_happens_and_nothing_is_killed(direct: Direct) -> None:
    call = direct.begin(grace_period=seconds(0.1))
    began = time.monotonic()
    for _ in range(6):
        next(call)
    assert time.monotonic() - began < 6 * 0.2 + 5, "they do not wait for the application"
    assert direct.alive and direct.kills == 0


def test_the_end_of_the_call_is_not_the_end_of_the_shutdown(direct: Direct) -> None:
    next(direct.begin())
    eventually(lambda: direct.stops or None)
    direct.alive = False

    def over() -> bool | None:
        status = direct.stub.GetShutdown(shutdown_hook_pb2.GetShutdownRequest(), metadata=direct.metadata).status
        return status.HasField("result") or None

    eventually(over)


def test_one_shutdown_at_a_time_and_later_ones_take_over(direct: Direct) -> None:
    first = direct.begin("s1", operation="operations/a", attempt=1, epoch=5)
    next(first)
    others: list[dict[str, object]] = [
        {"operation": "operations/a", "attempt": 1, "epoch": 5},
        {"operation": "operations/b", "attempt": 9, "epoch": 5},
        {"operation": "operations/b", "attempt": 9, "epoch": 4},
        {"operation": "operations/b", "attempt": 9},
    ]
    for other in others:
        problem = refused(direct.begin("s2", **other))
        assert (problem.code, problem.reason) == (grpc.StatusCode.ABORTED, "SHUTDOWN_IN_PROGRESS")
        assert problem.metadata == {"shutdownId": "s1"} and problem.retry_after is not None

    second = direct.begin("s2", operation="operations/a", attempt=2, epoch=5)
    next(second)
    assert refused(first).reason == "SHUTDOWN_SUPERSEDED"
    third = direct.begin("s3", operation="operations/b", attempt=1, epoch=6)
    next(third)
    assert refused(second).reason == "SHUTDOWN_SUPERSEDED"
    direct.alive = False
    assert list(third)[-1].result.outcome == Result.OUTCOME_STOPPED
    assert refused(direct.begin("s4", operation="operations/c", epoch=5)).reason == "EPOCH_STALE"
    assert list(direct.begin("s4"))[-1].result.outcome == Result.OUTCOME_NOT_RUNNING


def test_only_who_began_the_shutdown_may_kill(direct: Direct) -> None:
    call = direct.begin(completion_token="t1")
    next(call)

    def kill(shutdown_id: str, token: str) -> None:
        request = shutdown_hook_pb2.KillApplicationRequest(shutdown_id=shutdown_id, completion_token=token)
        direct.stub.KillApplication(request, metadata=direct.metadata)

    for wrong, reason in ((("s1", "t2"), "COMPLETION_TOKEN_INVALID"), (("s2", "t1"), "SHUTDOWN_NOT_FOUND")):
        with pytest.raises(grpc.RpcError) as error:
            kill(*wrong)
        assert quiesce.Problem.of(error.value).reason == reason and direct.kills == 0
    kill("s1", "t1")
    assert list(call)[-1].result.outcome == Result.OUTCOME_KILLED
    kill("s1", "t1")
    assert direct.kills == 1


def test_a_stop_that_fails_is_a_result(direct: Direct) -> None:
    def broken() -> None:
        raise OSError("no such command")

    direct.on_stop = broken
    end = list(direct.begin())[-1]
    assert (end.phase, end.result.outcome) == (types_pb2.SHUTDOWN_PHASE_FAILED, Result.OUTCOME_STILL_RUNNING)
    assert "no such command" in end.result.message


def test_wrong_requests_and_strangers_change_nothing(direct: Direct) -> None:
    for wrong in ("", "a b", "x" * 129):
        problem = refused(direct.begin(wrong))
        assert problem.reason == "INVALID_FIELD" and problem.violations[0].field == "shutdown_id"
    assert refused(direct.begin(instance="applications/shop/instances/two")).reason == "WRONG_INSTANCE"
    strangers: list[Metadata] = [(), (("authorization", "Bearer guess"),)]
    for metadata in strangers:
        for call in (
            lambda: direct.stub.GetHookInfo(shutdown_hook_pb2.GetHookInfoRequest(), metadata=metadata),  # noqa: B023
            lambda: direct.stub.CancelShutdown(shutdown_hook_pb2.CancelShutdownRequest(), metadata=metadata),  # noqa: B023
        ):
            with pytest.raises(grpc.RpcError) as error:
                call()
            assert quiesce.Problem.of(error.value).reason == "CREDENTIALS_INVALID"
    with pytest.raises(grpc.RpcError) as unknown:
        direct.stub.CancelShutdown(shutdown_hook_pb2.CancelShutdownRequest(), metadata=direct.metadata)
    assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert direct.stops == 0


def pair_of_another_ca(place: Path) -> tuple[Path, Path]:
    """Certificate and key."""
    quiesce_program = Path(os.environ["QUIESCE_TEST_AGENT"]).with_name("quiesce")
    for arguments in (["init", str(place)], ["issue", str(place), "127.0.0.1"]):
        subprocess.run([quiesce_program, "pki", *arguments], check=True, stdout=subprocess.DEVNULL)
    return place / "127.0.0.1.pem", place / "127.0.0.1.key"


def test_with_a_client_ca_only_who_has_its_certificate_and_the_token_is_let_in(tmp_path: Path) -> None:
    cert, key = Path(os.environ["QUIESCE_TEST_CERT"]), Path(os.environ["QUIESCE_TEST_KEY"])
    hook = Hook("applications/shop/instances/one", stop=lambda request: None, running=lambda: True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    files = {"cert": cert, "key": key, "client_ca": CA}
    thread = threading.Thread(target=hook.listen, args=(address,), kwargs={"hook_token": "a-hook-token", **files})
    thread.start()

    def ask(pair: tuple[Path, Path] | None, metadata: Metadata, patient: bool) -> str:
        shown = (pair[1].read_bytes(), pair[0].read_bytes()) if pair else (None, None)
        credentials = grpc.ssl_channel_credentials(Path(CA).read_bytes(), *shown)
        with grpc.secure_channel(address, credentials) as channel:
            stub = shutdown_hook_pb2_grpc.ShutdownHookStub(channel)
            request = shutdown_hook_pb2.GetHookInfoRequest()
            return stub.GetHookInfo(request, metadata=metadata, wait_for_ready=patient, timeout=30).info.instance

    try:
        token: Metadata = (("authorization", "Bearer a-hook-token"),)
        assert ask((cert, key), token, True) == "applications/shop/instances/one"
        with pytest.raises(grpc.RpcError) as error:
            ask((cert, key), (), True)
        assert quiesce.Problem.of(error.value).reason == "CREDENTIALS_INVALID"
        for stranger in (None, pair_of_another_ca(tmp_path / "pki")):
            with pytest.raises(grpc.RpcError) as error:
                ask(stranger, token, False)
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE, "turned away before the call"
    finally:
        hook.close()
        thread.join()


def test_whether_it_serves_is_for_everybody_and_what_it_serves_for_who_has_the_token(direct: Direct) -> None:
    health = health_pb2_grpc.HealthStub(direct.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    ask = reflection_pb2_grpc.ServerReflectionStub(direct.channel).ServerReflectionInfo
    wanted = reflection_pb2.ServerReflectionRequest(list_services="*")
    (listed,) = ask(iter([wanted]), metadata=direct.metadata, timeout=30)
    assert "quiesce.v1.ShutdownHook" in [service.name for service in listed.list_services_response.service]
    with pytest.raises(grpc.RpcError) as error:
        list(ask(iter([wanted]), timeout=30))
    assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_the_completion_token_is_not_written_down(direct: Direct, tmp_path: Path) -> None:
    call = direct.begin(completion_token="a-secret-token")
    next(call)
    direct.alive = False
    list(call)
    record = tmp_path / "state" / "hook.json"
    assert "a-secret-token" not in record.read_text() and stat.S_IMODE(record.stat().st_mode) == 0o600


def test_a_process_is_told_from_another_that_was_given_its_pid(world: World) -> None:
    application = world.application()
    file = world.place / "pid"
    assert Process(file).running()
    written = file.stat().st_mtime
    os.utime(file, (written - 3600, written - 3600))
    stranger = Process(file)
    assert not stranger.running(), "it began after the file was written"
    stranger.terminate()
    assert world.signals() == 0
    os.utime(file, (written, written))
    process = Process(file)
    process.terminate()
    os.waitid(os.P_PID, application.pid, os.WEXITED | os.WNOWAIT)
    assert not process.running(), "a zombie has ended"
    assert application.wait() == 0 and world.signals() == 1
    assert not process.running()


def test_a_process_that_removes_its_file_has_not_ended_by_that(world: World) -> None:
    application = world.application()
    process = Process(world.place / "pid")
    assert process.running()
    (world.place / "pid").unlink()
    assert process.running()
    process.terminate()
    assert application.wait() == 0 and world.signals() == 1
    assert not process.running()
    with pytest.raises(FileNotFoundError):
        Process(world.place / "pid").running()
    (world.place / "pid").write_text("")
    with pytest.raises(ValueError):
        Process(world.place / "pid").running()
