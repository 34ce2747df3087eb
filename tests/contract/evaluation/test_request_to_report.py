"""One evaluation from a client's request to its report: gateway, pipeline and panels, with in-memory workers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from fount.v1 import evaluation_pb2, evaluation_pb2_grpc, model_pb2
from service.config import GatewayConfig
from service.evaluation.pipeline.pipeline import Pipeline
from service.gateway import Gateway
from service.rpc.runner_client import RemoteWorkers
from service.workers.memory import MemoryPool
from tests.contract.evaluation_gateway import MODELS, settings
from tests.contract.memory_evaluations import MemoryEvaluations

Fetch, Evaluation = evaluation_pb2.GetEvaluationReportRequest, evaluation_pb2.Evaluation


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[evaluation_pb2_grpc.EvaluationServiceStub]:
    async def run(evaluation_id, specification, reporter) -> None:
        workers = RemoteWorkers(f"127.0.0.1:{gateway.port}")
        pipeline = Pipeline(workers=workers, datasets=gateway.datasets, folder=tmp_path / "work")
        await pipeline.run(evaluation_id, specification, reporter)
        await workers.close()

    config = GatewayConfig(port=0, http_port=0, datasets=(settings(tmp_path),))
    gateway = Gateway(MemoryPool(models=list(MODELS)), config, evaluations=MemoryEvaluations(run))
    await gateway.start()
    await gateway.wait_ready(5)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        yield evaluation_pb2_grpc.EvaluationServiceStub(channel)
    await gateway.stop(grace_s=0)


async def test_a_request_becomes_a_report(stub: evaluation_pb2_grpc.EvaluationServiceStub) -> None:
    request = evaluation_pb2.CreateEvaluationRequest(
        model=model_pb2.ModelRef(name="painter"),
        reference=evaluation_pb2.Reference(dataset="small"),
        count=100,
        seed=5,
        panels=[evaluation_pb2.PANEL_LABEL_FIDELITY],
        gates=["label_agreement >= 0.3", "label_agreement >= 0.4"],
    )
    created = (await stub.CreateEvaluation(request, timeout=20)).evaluation
    watch = stub.WatchEvaluation(evaluation_pb2.WatchEvaluationRequest(id=created.id), timeout=60)
    *_, last = [each.evaluation async for each in watch]
    assert (Evaluation.State.Name(last.state), last.state_reason) == ("STATE_SUCCEEDED", "")
    assert ([gate.passed for gate in last.gates], last.gates_passed) == ([True, False], False)
    (agreement,) = [metric for metric in last.metrics if metric.name == "label_agreement"]
    # The classifier reads the painter's label id from the first pixel; only "one" has the same id in both.
    assert (agreement.value, agreement.samples) == (pytest.approx(1 / 3, abs=0.01), 100)
    assert [panel.panel for panel in last.panels] == [evaluation_pb2.PANEL_LABEL_FIDELITY]
    parts = [each async for each in stub.GetEvaluationReport(Fetch(id=created.id), timeout=20)]
    report = json.loads(b"".join(each.data for each in parts))
    assert report["job"]["id"] == created.id
    assert last.report_bytes > 0
