"""A gateway with evaluations: its options, its runners, its gauges, and how it ends."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import click
import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from fount.v1 import evaluation_pb2, evaluation_pb2_grpc
from service.cli.options import gateway_config, gateway_options
from service.config import GatewayConfig
from service.errors import JobsUnreachable, SetupError
from service.evaluation.jobs.hosting import RunnerProcesses
from service.gateway import Gateway
from service.workers.memory import MemoryPool
from tests.contract.evaluation_gateway import specification
from tests.contract.memory_evaluations import MemoryEvaluations
from tests.waiting import until

CONFIG = GatewayConfig(port=0, http_port=0)


@pytest.fixture
async def evaluations() -> MemoryEvaluations:
    return MemoryEvaluations()


@pytest.fixture
async def gateway(evaluations: MemoryEvaluations) -> AsyncIterator[Gateway]:
    gateway = Gateway(MemoryPool(), CONFIG, evaluations=evaluations)
    await gateway.start()
    yield gateway
    await gateway.stop(grace_s=0)


def configured(*args: str, state: Path | None = None) -> GatewayConfig:
    """The settings of a command with these options, and a state folder if one is given."""
    found: list[GatewayConfig] = []

    @click.command()
    @gateway_options
    @click.pass_context
    def command(context: click.Context, /, **_: object) -> None:
        if state is not None:
            context.params["state_dir"] = state
        found.append(gateway_config(context))

    result = CliRunner().invoke(command, args, auto_envvar_prefix="FOUNT")
    assert result.exit_code == 0, result.output
    return found[0]


# --- Options ----------------------------------------------------------------------------------------------------------


def test_a_gateway_alone_has_no_evaluations() -> None:
    config = configured()
    assert (config.jobs, config.runners) == (None, 0)
    assert Gateway(MemoryPool(), config).evaluation.evaluations is None


def test_a_state_folder_holds_the_database_and_there_is_one_runner(tmp_path: Path) -> None:
    config = configured(state=tmp_path)
    assert (config.jobs, config.runners) == (f"sqlite:///{tmp_path}/evaluations.db", 1)
    assert config.runner_options == ("--work-dir", f"{tmp_path}/evaluations")


def test_evaluations_can_be_turned_off(tmp_path: Path) -> None:
    config = configured("--jobs", "", state=tmp_path)
    assert (config.jobs, config.runners) == (None, 0)


def test_runners_may_run_elsewhere() -> None:
    assert configured("--jobs", "sqlite:////x.db", "--runners", "0").runners == 0


def test_runners_without_a_database_are_refused() -> None:
    with pytest.raises(AssertionError, match="runners need --jobs"):
        configured("--runners", "2")


def test_limits_are_settings() -> None:
    config = configured("--max-evaluation-samples", "700", "--keep-reports-days", "2", "--report-bytes", "9")
    assert (config.max_evaluation_samples, config.keep_reports_days, config.report_bytes) == (700, 2.0, 9)


@pytest.mark.parametrize(
    "wrong", [{"max_evaluation_samples": 99}, {"runners": 1}, {"runners": -1}, {"report_bytes": 0}]
)
def test_impossible_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SetupError, match=next(iter(wrong))):
        GatewayConfig(**wrong)


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(SetupError, match="sqlite:///PATH or postgresql://"):
        Gateway(MemoryPool(), GatewayConfig(jobs="mysql://x/y"))


# --- A gateway --------------------------------------------------------------------------------------------------------


class Runners:
    """A double of the child processes."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("started")

    async def close(self) -> None:
        self.calls.append("closed")


async def test_runners_start_and_stop_with_the_gateway(
    evaluations: MemoryEvaluations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get data sets by options, and the database, which may have a password, by their environment."""
    runners, given = Runners(), []
    monkeypatch.setattr("service.evaluation.jobs.hosting.RunnerProcesses", lambda *args: given.append(args) or runners)
    url = "postgresql://fount:secret@db/fount"
    config = configured("--jobs", url, "--runners", "3", "--data-set", "a=/x")
    gateway = Gateway(MemoryPool(), replace(config, host="0.0.0.0", port=0, http_port=0), evaluations=evaluations)
    await gateway.start()
    assert (evaluations.started, runners.calls) == (1, ["started"])
    options = ("--server", f"127.0.0.1:{gateway.port}", "--data-set", "a=/x")
    assert given == [(3, options, {"FOUNT_RUNNER_JOBS": url})]
    await gateway.stop(grace_s=0)
    assert (evaluations.started, runners.calls) == (0, ["started", "closed"])


WHY = "no runner works: the last one ended with status 1 (no module here); see the gateway's log"


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that children run, a shell script to be written."""
    python = tmp_path / "python"
    python.touch(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return python


@pytest.fixture
async def broken(python: Path) -> AsyncIterator[RunnerProcesses]:
    """A runner that has ended at once."""
    python.write_text("#!/bin/sh\necho first >&2; echo no module here >&2; exit 1\n")
    runners = RunnerProcesses(1, (), {})
    await runners.start()
    try:
        await until(runners.why_waiting)
        yield runners
    finally:
        await runners.close()


async def test_a_runner_that_ends_at_once_is_reported_with_its_last_line(broken: RunnerProcesses) -> None:
    assert broken.why_waiting() == WHY


@pytest.mark.usefixtures("broken")
async def test_the_error_output_of_a_runner_is_that_of_the_gateway(capfd: pytest.CaptureFixture[str]) -> None:
    await until(lambda: "first\nno module here\n" in capfd.readouterr().err)  # with its second start


async def test_a_runner_that_runs_for_a_while_is_not_reported(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr("service.evaluation.jobs.hosting._STABLE_S", 0.2)
    runners = RunnerProcesses(1, (), {})
    runners._failed[0] = "ended with status 1"
    await runners.start()
    try:
        assert runners.why_waiting() != ""
        await until(lambda: not runners.why_waiting())
    finally:
        await runners.close()


async def test_one_of_two_runners_that_works_is_enough(broken: RunnerProcesses) -> None:
    broken._count = 2
    assert broken.why_waiting() == ""


async def test_a_queued_evaluation_says_why_it_is_not_started(
    gateway: Gateway, evaluations: MemoryEvaluations, broken: RunnerProcesses
) -> None:
    gateway.evaluation._runners = broken
    created = await evaluations.create("anonymous", specification())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub = evaluation_pb2_grpc.EvaluationServiceStub(channel)
        got = await stub.GetEvaluation(evaluation_pb2.GetEvaluationRequest(id=created.id))
        watch = stub.WatchEvaluation(evaluation_pb2.WatchEvaluationRequest(id=created.id))
        watched = await watch.read()
        (listed,) = (await stub.ListEvaluations(evaluation_pb2.ListEvaluationsRequest())).evaluations
    assert [each.state_reason for each in (got.evaluation, watched.evaluation, listed)] == [WHY, WHY, WHY]


async def test_readyz_says_why_evaluations_wait(gateway: Gateway, broken: RunnerProcesses) -> None:
    assert await scrape(gateway, "readyz") == "ready\n"
    gateway.evaluation._runners = broken
    assert await scrape(gateway, "readyz") == f"ready; evaluations: {WHY}\n"


async def test_a_gateway_that_cannot_open_the_database_does_not_start(evaluations: MemoryEvaluations) -> None:
    async def refuse() -> None:
        raise SetupError("no such database")

    evaluations.start = refuse
    gateway = Gateway(MemoryPool(), CONFIG, evaluations=evaluations)
    with pytest.raises(SetupError, match="no such database"):
        await gateway.start()
    await gateway.stop(grace_s=0)


async def test_watches_end_when_the_gateway_drains(gateway: Gateway, evaluations: MemoryEvaluations) -> None:
    created = await evaluations.create("anonymous", specification())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub = evaluation_pb2_grpc.EvaluationServiceStub(channel)
        watch = stub.WatchEvaluation(evaluation_pb2.WatchEvaluationRequest(id=created.id))
        await watch.read()
        stopping = asyncio.ensure_future(gateway.stop(grace_s=5))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(watch.read(), 3)
        await stopping
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_gauges_count_evaluations(gateway: Gateway, evaluations: MemoryEvaluations) -> None:
    await evaluations.create("a", specification())
    await gateway.evaluation.update_gauges()
    body = await scrape(gateway)
    assert 'fount_evaluations{state="queued"} 1.0' in body
    assert 'fount_evaluations{state="failed"} 0.0' in body
    assert "fount_evaluation_report_bytes 12.0" in body
    assert "fount_evaluation_oldest_queued_seconds 3.5" in body


async def test_a_database_that_does_not_answer_leaves_the_gauges_as_they_were(
    gateway: Gateway, evaluations: MemoryEvaluations, caplog: pytest.LogCaptureFixture
) -> None:
    await gateway.evaluation.update_gauges()
    evaluations.failure = JobsUnreachable("gone")
    await gateway.evaluation.update_gauges()
    assert "could not be counted: gone" in caplog.text
    assert "fount_evaluation_report_bytes 12.0" in await scrape(gateway)


async def scrape(gateway: Gateway, page: str = "metrics") -> str:
    url = f"http://127.0.0.1:{gateway.http_port}/{page}"
    return (await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read())).decode()


async def test_health_covers_the_service_and_reflection_hides_the_private_one(gateway: Gateway) -> None:
    server = f"127.0.0.1:{gateway.port}"
    async with grpc.aio.insecure_channel(server) as channel:
        request = health_pb2.HealthCheckRequest(service="fount.v1.EvaluationService")
        assert (
            await health_pb2_grpc.HealthStub(channel).Check(request)
        ).status == health_pb2.HealthCheckResponse.SERVING
    assert await asyncio.to_thread(shown, server) == ["fount.v1.EvaluationService"]


def shown(server: str) -> list[str]:
    """Of both services, those that reflection lists."""
    with grpc.insecure_channel(server) as channel:
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    return sorted({"fount.v1.EvaluationService", "fount.runner.v1.ReadingService"} & set(services))
