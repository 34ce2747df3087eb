"""A gateway's evaluations with in-memory workers, a small data set, and a place that keeps evaluations as tests say."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
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
from service.errors import EvaluationNotDone, UnknownEvaluation
from service.evaluation.record import Evaluations, Record, State, Usage
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

SHAPE = (4, 4, 1)
CLASSES = ("zero", "one", "two")

PAINTER = memory_model("painter", labels=("two", "one", "zero", "three"), dims=SHAPE)
BLIND = memory_model("blind", labels=(), dims=SHAPE)
JUDGE = memory_model("judge", labels=CLASSES, dims=SHAPE, operations=frozenset({Operation.CLASSIFY, Operation.EMBED}))
EYES = memory_model("eyes", labels=(), dims=SHAPE, operations=frozenset({Operation.EMBED}))
WIDE = memory_model("wide", labels=CLASSES, dims=(4, 5, 1))
FEW = memory_model("few", labels=("zero",), dims=SHAPE, operations=frozenset(Operation))
FLOATS = memory_model("floats", dims=SHAPE, labels=CLASSES, encodings=frozenset({Encoding.FLOAT32}))
MODELS = [PAINTER, BLIND, JUDGE, EYES, WIDE, FEW, FLOATS]


def settings(folder: Path, name: str = "small", classifier: str = "judge", *, rows: int = 60) -> DatasetSettings:
    """A data set of 60 training rows and so many held-out ones; every image's first pixel is its label."""
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
    """One whose panels are all there are."""
    whole = Specification(
        model=pinned("painter"),
        model_labels=(2, 1, 0),
        extractor=pinned("judge"),
        classifier=pinned("judge"),
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
    return replace(whole, **changed)


@dataclass
class KeptEvaluations:
    """Keeps evaluations in a dict, and does nothing with them: tests say what becomes of each."""

    records: dict[str, Record] = field(default_factory=dict)
    bundles: dict[str, bytes] = field(default_factory=dict)
    started: int = 0
    failure: Exception | None = None

    async def start(self) -> None:
        self.started += 1

    async def close(self) -> None:
        self.started -= 1

    async def create(
        self, subject: str, specification: Specification, *, request_id: str = "", request_digest: str = ""
    ) -> Record:
        self._fail()
        if request_id and (earlier := await self.find(subject, request_id)):
            return earlier
        record = Record(
            id=f"e{len(self.records):04}",
            subject=subject,
            request_id=request_id,
            request_digest=request_digest,
            specification=specification,
            state=State.QUEUED,
            create_unix_s=time.time(),
        )
        self.records[record.id] = record
        return record

    async def find(self, subject: str, request_id: str) -> Record | None:
        mine = (each for each in self.records.values() if (each.subject, each.request_id) == (subject, request_id))
        return next(mine, None)

    async def get(self, subject: str, evaluation_id: str) -> Record:
        self._fail()
        record = self.records.get(evaluation_id)
        if record is None or record.subject != subject:
            raise UnknownEvaluation(f"you have no evaluation {evaluation_id!r}")
        return record

    async def list(
        self, subject: str, *, states: Collection[State] = (), model: str = "", after: str = "", limit: int = 100
    ) -> Sequence[Record]:
        mine = [each for each in self.records.values() if each.subject == subject and (not after or each.id < after)]
        mine = [each for each in mine if not states or each.state in states]
        mine = [each for each in mine if not model or each.specification.model.name == model]
        return sorted(mine, key=lambda each: each.id, reverse=True)[:limit]

    async def cancel(self, subject: str, evaluation_id: str) -> Record:
        if not (await self.get(subject, evaluation_id)).state.ended:
            self.change(evaluation_id, state=State.CANCELLED, reason="somebody cancelled it")
        return self.records[evaluation_id]

    async def delete(self, subject: str, evaluation_id: str) -> None:
        del self.records[(await self.get(subject, evaluation_id)).id]

    async def report(self, subject: str, evaluation_id: str) -> bytes:
        record = await self.get(subject, evaluation_id)
        if record.state is not State.SUCCEEDED:
            raise EvaluationNotDone(f"{evaluation_id} is {record.state}")
        return self.bundles[evaluation_id]

    async def usage(self) -> Usage:
        self._fail()
        states = {state: sum(each.state is state for each in self.records.values()) for state in State}
        return Usage(states=states, report_bytes=12, oldest_queued_s=3.5)

    def change(self, evaluation_id: str, **changed) -> Record:
        """Let something become of one."""
        self.records[evaluation_id] = replace(self.records[evaluation_id], **changed)
        return self.records[evaluation_id]

    def _fail(self) -> None:
        if self.failure:
            raise self.failure


class Policy:
    """Takes a caller's name and grants from metadata; everyone may do everything unless they say otherwise."""

    def identify(self, peer: str, metadata: tuple[tuple[str, str | bytes], ...]) -> Caller:
        told = {key: str(value) for key, value in metadata}
        grants = frozenset(told["x-grants"].split()) if "x-grants" in told else frozenset({"*"})
        return Caller(subject=told.get("x-subject", "anonymous"), grants=grants)


@dataclass
class Evaluating:
    """A server of evaluations, reading and samples, and stubs to it."""

    pool: MemoryPool
    kept: KeptEvaluations
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
async def evaluating(folder: Path, *, off: bool = False, **changed) -> AsyncIterator[Evaluating]:
    """Serve them on a free port, with one data set; `off`: without evaluations."""
    config, metrics, pool = GatewayConfig(**changed), Metrics("0"), MemoryPool(models=list(MODELS))
    scheduler, catalog = BatchingScheduler(pool, config, metrics), Catalog(pool)
    kept, inference = KeptEvaluations(), InferenceClient(scheduler)
    found: Evaluations | None = None if off else kept
    servicer = EvaluationServicer(
        evaluations=found, catalog=catalog, datasets=Datasets([settings(folder)]), config=config, look_s=0.02
    )
    options = [("grpc.so_reuseport", 0), ("grpc.max_send_message_length", 64 << 20)]
    server = grpc.aio.server(interceptors=[CallInterceptor(Policy(), metrics)], options=options)
    evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server(servicer, server)
    runner_pb2_grpc.add_ReadingServiceServicer_to_server(ReadingServicer(catalog, inference), server)
    sampling_pb2_grpc.add_SamplingServiceServicer_to_server(SamplingServicer(catalog, scheduler, metrics), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await pool.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Evaluating(pool, kept, servicer, channel, catalog, inference, f"127.0.0.1:{port}")
    await server.stop(0)
    await scheduler.close()
