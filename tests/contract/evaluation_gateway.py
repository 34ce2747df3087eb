"""A gateway's evaluation services with in-memory workers, a small data set and an in-memory store of evaluations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from fount.readers import DatasetSource
from fount.runner.v1 import runner_pb2_grpc
from fount.v1 import evaluation_pb2, evaluation_pb2_grpc, model_pb2, sampling_pb2_grpc
from service.caller import Caller
from service.catalog import Catalog
from service.config import GatewayConfig
from service.datasets import Datasets, DatasetSettings
from service.domain import Encoding, Operation, Parameters
from service.evaluation.results import Panel
from service.evaluation.specification import PinnedModel, Specification
from service.rpc.evaluation import EvaluationServicer
from service.rpc.interceptor import CallInterceptor
from service.rpc.reading import ReadingServicer
from service.rpc.sampling import SamplingServicer
from service.scheduler.inference import InferenceClient
from service.scheduler.scheduler import BatchingScheduler
from service.telemetry.metrics import Metrics
from service.workers.memory import MemoryPool, memory_model
from tests.contract.memory_evaluations import MemoryEvaluations

SHAPE = (4, 4, 1)
CLASSES = ("zero", "one", "two")

PAINTER = memory_model("painter", labels=("two", "one", "zero", "three"), dims=SHAPE)
BLIND = memory_model("blind", labels=(), dims=SHAPE)
READER = memory_model("reader", labels=CLASSES, dims=SHAPE, operations=frozenset({Operation.CLASSIFY, Operation.EMBED}))
EYES = memory_model("eyes", labels=(), dims=SHAPE, operations=frozenset({Operation.EMBED}))
WIDE = memory_model("wide", labels=CLASSES, dims=(4, 5, 1))
FEW = memory_model("few", labels=("zero",), dims=SHAPE, operations=frozenset(Operation))
FLOATS = memory_model("floats", dims=SHAPE, labels=CLASSES, encodings=frozenset({Encoding.FLOAT32}))
SCORER = memory_model(
    "scorer", labels=("two", "one", "zero", "three"), dims=SHAPE, score_columns=("log-density",),
    operations=frozenset({Operation.SAMPLE, Operation.SCORE}),
)  # fmt: skip
POINTS = memory_model("points", labels=(), dims=(2,), encodings=frozenset({Encoding.FLOAT32}))
MODELS = [SCORER, POINTS, PAINTER, BLIND, READER, EYES, WIDE, FEW, FLOATS]


def settings(folder: Path, name: str = "small", classifier: str = "reader", *, rows: int = 60) -> DatasetSettings:
    """A data set of 60 training rows and `rows` held-out ones; the first pixel of every image is its label."""
    rng, arrays = np.random.default_rng(0), dict[str, Any]()
    for split, count in (("train", 60), ("test", rows)):
        labels = (np.arange(count) % 3).astype(np.uint8)
        images = rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
        images[:, 0, 0, 0] = labels
        arrays |= {f"x_{split}": images, f"y_{split}": labels}
    np.savez(folder / f"{name}.npz", **arrays)
    source = DatasetSource(name=name, path=folder / f"{name}.npz", classes=CLASSES)
    return DatasetSettings(source=source, classifier=classifier)


def pinned(name: str) -> PinnedModel:
    return PinnedModel(name=name, version="1", digest=memory_model(name).key.digest, numerics="memory")


def specification(**changed) -> Specification:
    """A specification with every panel."""
    complete = Specification(
        model=pinned("painter"),
        model_labels=(2, 1, 0),
        extractor=pinned("reader"),
        classifier=pinned("reader"),
        classifier_labels=(0, 1, 2),
        dataset="small",
        dataset_digest="sha256:" + "0" * 64,
        training_split="train",
        held_out_split="test",
        training_rows=60,
        held_out_rows=60,
        classes=CLASSES,
        image_shape=SHAPE,
        count=100,
        seed=1,
        parameters=Parameters(),
        panels=tuple(Panel),
        gates=(),
        code_version="1.0",
    )
    return replace(complete, **changed)


class Policy:
    """Takes a caller's name and grants from metadata; every grant is the default."""

    def identify(self, peer: str, metadata: tuple[tuple[str, str | bytes], ...]) -> Caller:
        given = {key: str(value) for key, value in metadata}
        grants = frozenset(given["x-grants"].split()) if "x-grants" in given else frozenset({"*"})
        return Caller(subject=given.get("x-subject", "anonymous"), grants=grants)


@dataclass
class EvaluationServer:
    """A server of evaluations, reading and samples, and stubs to it."""

    pool: MemoryPool
    evaluations: MemoryEvaluations
    servicer: EvaluationServicer
    channel: grpc.aio.Channel
    catalog: Catalog
    inference: InferenceClient
    server: str

    @property
    def stub(self) -> evaluation_pb2_grpc.EvaluationServiceStub:
        return evaluation_pb2_grpc.EvaluationServiceStub(self.channel)

    @property
    def reading(self) -> runner_pb2_grpc.ReadingServiceStub:
        return runner_pb2_grpc.ReadingServiceStub(self.channel)

    async def create(self, metadata=(), **fields) -> evaluation_pb2.Evaluation:
        fields = {"model": model_pb2.ModelRef(name="painter"), "count": 100, "seed": 1} | fields
        request = evaluation_pb2.CreateEvaluationRequest(**fields)
        return (await self.stub.CreateEvaluation(request, timeout=20, metadata=metadata)).evaluation


@asynccontextmanager
async def serve_evaluations(folder: Path, *, off: bool = False, **changed) -> AsyncIterator[EvaluationServer]:
    """Serve on a free port, with one data set; `off`: without evaluations."""
    config, metrics, pool = GatewayConfig(**changed), Metrics("0"), MemoryPool(models=list(MODELS))
    scheduler, catalog = BatchingScheduler(pool, config, metrics), Catalog(pool)
    evaluations, inference = MemoryEvaluations(), InferenceClient(scheduler)
    servicer = EvaluationServicer(
        evaluations=None if off else evaluations,
        catalog=catalog,
        datasets=Datasets([settings(folder)]),
        config=config,
        poll_interval_s=0.02,
    )
    options = [("grpc.so_reuseport", 0), ("grpc.max_send_message_length", 64 << 20)]
    server = grpc.aio.server(interceptors=[CallInterceptor(Policy(), metrics, config)], options=options)
    evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server(servicer, server)
    runner_pb2_grpc.add_ReadingServiceServicer_to_server(ReadingServicer(catalog, inference), server)
    sampling_pb2_grpc.add_SamplingServiceServicer_to_server(SamplingServicer(catalog, scheduler, metrics), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await pool.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield EvaluationServer(pool, evaluations, servicer, channel, catalog, inference, f"127.0.0.1:{port}")
    await server.stop(0)
    await scheduler.close()
