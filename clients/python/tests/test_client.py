"""The client against real schedulers and the real agent."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import grpc
import pytest
from conftest import CA, EXAMPLES, OPEN, SECURE, TOKEN_FILE, Relay, World, eventually
from google.protobuf import duration_pb2, message_factory

import quiesce
import quiesce.aio
from quiesce.v1 import access_pb2, agent_gateway_pb2, scheduler_pb2, types_pb2

Operation, Event = types_pb2.Operation, types_pb2.OperationEvent


def test_an_application_is_created_read_and_listed(client: quiesce.Client, world: World) -> None:
    world.create(client, grace_period=duration_pb2.Duration(seconds=7))
    name = f"applications/{world.name}"
    read = client.scheduler.GetApplication(scheduler_pb2.GetApplicationRequest(name=name)).application
    assert (read.cluster, read.policy.grace_period.seconds) == ("a", 7)
    request = scheduler_pb2.ListApplicationsRequest(filter=f'name = "{name}"')
    assert [found.name for found in client.scheduler.ListApplications(request).applications] == [name]


def test_a_repeated_request_of_the_same_id_has_no_further_effect(client: quiesce.Client, world: World) -> None:
    world.create(client)
    world.agent(OPEN)
    world.ready(client)
    first = client.migrate(world.name, "b", request_id="once-" + world.name)
    assert client.migrate(world.name, "b", request_id="once-" + world.name).name == first.name
    unnamed = scheduler_pb2.MigrateApplicationRequest(name=f"applications/{world.name}", target_cluster="c")
    assert unnamed.request_id == "", "the caller's message is left as it is"


def test_progress_is_followed_and_resumed(client: quiesce.Client, world: World) -> None:
    world.create(client)
    world.agent(OPEN)
    world.ready(client)
    operation = client.migrate(world.name, "b")
    events = list(client.follow(operation.name))
    assert events[0].type == Event.TYPE_SNAPSHOT
    assert events[-1].operation.state == Operation.STATE_SUCCEEDED and events[-1].operation.done
    told = [event for event in events if event.resume_token]
    revisions = [event.revision for event in told]
    assert revisions == sorted(set(revisions))
    # From each place on the rest is the same, on a connection of its own.
    with quiesce.connect(OPEN) as another:
        for place, event in enumerate(told):
            rest = [later.revision for later in another.follow(operation.name, resume_token=event.resume_token)]
            assert rest == revisions[place + 1 :]


def test_following_survives_lost_connections(client: quiesce.Client, world: World) -> None:
    world.create(client)
    application = world.application("deaf")
    world.hook(OPEN)
    world.ready(client)
    with contextlib.closing(Relay(OPEN)) as relay, quiesce.connect(relay.url) as cut:
        operation = cut.migrate(world.name, "b")

        def end_after_return() -> None:
            eventually(lambda: relay.connections > 1 or None)
            application.kill()

        events, first = [], ""
        with concurrent.futures.ThreadPoolExecutor() as beside:
            for event in cut.follow(operation.name):
                events.append(event)
                # Once there is something to go on behind.
                if event.resume_token and not first:
                    first, events = event.resume_token, []
                    relay.cut()
                    returned = beside.submit(end_after_return)
            returned.result()
        application.wait()
    assert events[-1].operation.state == Operation.STATE_SUCCEEDED
    whole = client.follow(operation.name, resume_token=first)
    assert happened(events) == happened(whole), "nothing is missing, nothing comes twice"


def happened(events: Iterable[types_pb2.OperationEvent]) -> list[int]:
    """Without bookmarks, which come where nothing happens, on each stream elsewhere."""
    return [event.revision for event in events if event.type != types_pb2.OperationEvent.TYPE_BOOKMARK]


def test_the_example_migrates(client: quiesce.Client, world: World) -> None:
    world.create(client)
    world.agent(OPEN)
    world.ready(client)
    command: list[str | Path] = [sys.executable, EXAMPLES / "migrate.py", world.name, "b", OPEN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "SUCCEEDED" in done.stdout.splitlines()[-1]
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 1 and "FAILED_PRECONDITION / ALREADY_ON_TARGET" in again.stderr


def test_errors_are_decoded(client: quiesce.Client) -> None:
    with pytest.raises(grpc.RpcError) as missing:
        client.scheduler.GetApplication(scheduler_pb2.GetApplicationRequest(name="applications/nobody"))
    problem = quiesce.Problem.of(missing.value)
    assert (problem.code, problem.reason) == (grpc.StatusCode.NOT_FOUND, "APPLICATION_NOT_FOUND")
    assert problem.metadata == {"name": "applications/nobody"} and problem.retry_after is None

    wrong = types_pb2.Application(name="applications/NO", cluster="")
    with pytest.raises(grpc.RpcError) as invalid:
        client.scheduler.CreateApplication(scheduler_pb2.CreateApplicationRequest(application=wrong))
    problem = quiesce.Problem.of(invalid.value)
    assert problem.reason == "INVALID_FIELD"
    assert {found.field for found in problem.violations} == {"application.name", "application.cluster"}
    assert "application.cluster" in str(problem)


def test_a_busy_application_says_when_to_try_again(client: quiesce.Client, world: World) -> None:
    world.create(client)
    world.application("deaf")
    world.hook(OPEN)
    world.ready(client)
    first = client.migrate(world.name, "b")
    with pytest.raises(grpc.RpcError) as busy:
        client.migrate(world.name, "c")
    problem = quiesce.Problem.of(busy.value)
    assert (problem.reason, problem.metadata) == ("OPERATION_IN_PROGRESS", {"operation": first.name})
    assert problem.retry_after is not None and problem.retry_after > 0


def test_a_deadline_is_kept() -> None:
    # Somebody who takes connections and never says a word.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with quiesce.connect(url, deadline=0.2) as hurried, pytest.raises(grpc.RpcError) as late:
            hurried.scheduler.GetServerInfo(scheduler_pb2.GetServerInfoRequest())
        assert quiesce.Problem.of(late.value).code == grpc.StatusCode.DEADLINE_EXCEEDED
        with quiesce.connect(url, deadline=1000) as patient, pytest.raises(grpc.RpcError) as late:
            patient.scheduler.GetServerInfo(scheduler_pb2.GetServerInfoRequest(), timeout=0.2)
        assert quiesce.Problem.of(late.value).code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_tls_and_a_token_are_needed_where_access_is_enforced(secure: quiesce.Client, tmp_path: Path) -> None:
    information = scheduler_pb2.ListApplicationsRequest()
    secure.scheduler.ListApplications(information)
    with quiesce.connect(SECURE, ca=CA) as nobody, pytest.raises(grpc.RpcError) as refused:
        nobody.scheduler.ListApplications(information)
    assert quiesce.Problem.of(refused.value).reason == "CREDENTIALS_INVALID"
    with quiesce.connect(SECURE) as stranger, pytest.raises(grpc.RpcError) as untrusted:
        stranger.scheduler.ListApplications(information)
    assert quiesce.Problem.of(untrusted.value).code == grpc.StatusCode.UNAVAILABLE

    token = new_token(secure, access_pb2.Token.ROLE_VIEWER)
    with quiesce.connect(SECURE, ca=CA, token=token) as viewer:
        viewer.scheduler.ListApplications(information)
        with pytest.raises(grpc.RpcError) as forbidden:
            viewer.delete("whatever")
    problem = quiesce.Problem.of(forbidden.value)
    assert problem.reason == "CALLER_NOT_ALLOWED" and token not in str(problem)

    readable = tmp_path / "token"
    readable.write_text("qbt1.x")
    readable.chmod(0o644)
    with pytest.raises(PermissionError):
        quiesce.connect(SECURE, ca=CA, token_file=readable)


def new_token(secure: quiesce.Client, role: access_pb2.Token.Role.ValueType) -> str:
    request = access_pb2.CreateTokenRequest(token=access_pb2.Token(display_name="a test", role=role))
    return secure.access.CreateToken(request).bearer_token


def test_addresses_that_cannot_be_meant_are_refused() -> None:
    for wrong in ("127.0.0.1:7600", "ftp://x", "http://", "http://x/path"):
        with pytest.raises(ValueError):
            quiesce.connect(wrong)
    with pytest.raises(ValueError):
        quiesce.connect("http://127.0.0.1:7600", ca=CA)


def test_every_rpc_of_the_contract_is_answered(client: quiesce.Client) -> None:
    services = [
        (client.scheduler, scheduler_pb2.DESCRIPTOR.services_by_name["Scheduler"]),
        (client.access, access_pb2.DESCRIPTOR.services_by_name["Access"]),
        (client.gateway, agent_gateway_pb2.DESCRIPTOR.services_by_name["AgentGateway"]),
    ]
    answered = 0
    for stub, service in services:
        for method in service.methods:
            # With nothing in it: most are refused, and say which field it is that is missing.
            request = message_factory.GetMessageClass(method.input_type)()
            call = getattr(stub, method.name)
            try:
                if method.server_streaming:
                    next(iter(call(request)))
                else:
                    call(request)
            except grpc.RpcError as error:
                assert quiesce.Problem.of(error).reason == "INVALID_FIELD", method.full_name
            answered += 1
    assert answered >= 31


def test_the_example_of_the_readme_migrates(
    client: quiesce.Client, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.create(client)
    world.agent(OPEN)
    world.ready(client)
    readme = (EXAMPLES.parent / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 10
    exec(code.replace("http://127.0.0.1:7600", OPEN).replace('"shop"', repr(world.name)), {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("SUCCEEDED ")


def test_asyncio_does_the_same(client: quiesce.Client, world: World) -> None:
    world.create(client)
    world.agent(OPEN)
    world.ready(client)

    async def follow() -> list[types_pb2.OperationEvent]:
        async with quiesce.aio.connect(OPEN) as awaited:
            operation = await awaited.delete(world.name)
            events = [event async for event in awaited.follow(operation.name)]
            told = [event for event in events if event.resume_token]
            rest = [event async for event in awaited.follow(operation.name, resume_token=told[0].resume_token)]
            assert [event.revision for event in rest] == [event.revision for event in told[1:]]
            return events

    assert asyncio.run(follow())[-1].operation.state == Operation.STATE_SUCCEEDED

    async def refused() -> quiesce.Problem:
        async with quiesce.aio.connect(SECURE, ca=CA, token_file=TOKEN_FILE) as awaited:
            try:
                await awaited.scheduler.GetApplication(scheduler_pb2.GetApplicationRequest(name="applications/nobody"))
            except grpc.RpcError as error:
                return quiesce.Problem.of(error)
        raise AssertionError("it is there")

    assert asyncio.run(refused()).reason == "APPLICATION_NOT_FOUND"
