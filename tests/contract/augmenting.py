"""Augmentation with in-memory workers and a small data set: its service with given plans, its planning, a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format

from fount.readers import Dataset, DatasetSource, read_dataset
from fount.transforms import Kind, Policy, Transform
from fount.v1 import augmentation_pb2, augmentation_pb2_grpc
from service.augmentation.copy_filter import PixelCache
from service.augmentation.plan_spec import GenerationSpec, OpenPlan, PlanSpec, VerificationSpec
from service.augmentation.planner import Planner
from service.augmentation.slots import RealMode, Source, Stratum
from service.augmentation.targets import Allocation, Mix
from service.caller import Anonymous, Caller, CallerPolicy
from service.catalog import Catalog, PinnedModel
from service.config import GatewayConfig
from service.datasets import Datasets, DatasetSettings
from service.domain import Operation, Parameters, ServedModel, Target
from service.errors import FountServiceError, InvalidRequest, TicketInvalid
from service.gateway import Gateway
from service.rpc.augmentation import AugmentationServicer
from service.rpc.interceptor import CallInterceptor
from service.rpc.plan_store import PlanStore
from service.rpc.plans import PlanIssuer
from service.rpc.tickets import TicketKeys
from service.scheduler.inference import InferenceClient
from service.scheduler.scheduler import BatchingScheduler
from service.scheduler.work import RequestContext
from service.telemetry.metrics import Metrics
from service.workers.memory import MemoryPool
from service.workers.memory_models import memory_model
from tests.contract.gateways import Running

SHAPE = (4, 4, 1)
CLASSES = ("zero", "one", "two")
COUNTS = (40, 20, 4)
"""Training rows of each class; the test split has 10 of each."""

ADA = Caller(subject="ada", grants=frozenset({"*"}))
BOB = Caller(subject="bob", grants=frozenset({"*"}))
KEYS = TicketKeys(keys={"k": b"k" * 32})
SYNTHESIS = 'synthesis { model { name: "painter" } copy_quantile: 0 }'
ALL_SOURCES = (
    f"seed: 5 target {{ balance_to_largest: true }} mix {{ resampled: 1 transformed: 1 synthesised: 1 }} {SYNTHESIS}"
)

DOUBLE = "seed: 5 target { factor: 2 }"
TRANSLATED = f"{DOUBLE} mix {{ translated: 1 }} "
RECONSTRUCTED = f"{DOUBLE} mix {{ reconstructed: 1 }} "

GENERATOR = memory_model("painter", labels=CLASSES, dims=SHAPE)
CLASSIFIER = memory_model("reader", labels=CLASSES, dims=SHAPE, operations=frozenset({Operation.CLASSIFY}))
TRANSFORMER = memory_model("transforms", labels=(), dims=SHAPE, operations=frozenset({Operation.TRANSFORM}))
TRANSLATOR = memory_model(
    "repainter", labels=CLASSES, dims=SHAPE, operations=frozenset({Operation.TRANSLATE}), input_dims=SHAPE
)
AUTOENCODER = memory_model(
    "copier", labels=(), dims=SHAPE, operations=frozenset({Operation.ENCODE, Operation.DECODE}), latent_dim=15
)
POLICY = Policy(
    transforms=(Transform(kind=Kind.ROTATE, max=15.0), Transform(kind=Kind.SHIFT, probability=0.5, max=0.1))
)
EVERYTHING = {(0, 1): 40, (0, 4): 10, (1, 1): 20, (1, 2): 10, (1, 3): 20, (2, 1): 4, (2, 3): 16, (2, 4): 30}
"""Rows by class and source: real ones of all classes, and something of every source; 150 in all."""


def augmenting_pool() -> MemoryPool:
    """Workers for every role."""
    return MemoryPool(models=[GENERATOR, CLASSIFIER, TRANSFORMER])


def generating_pool() -> MemoryPool:
    """Workers for every role, of every source that models generate."""
    return MemoryPool(models=[GENERATOR, CLASSIFIER, TRANSFORMER, TRANSLATOR, AUTOENCODER])


def write_npz(folder: Path) -> Path:
    """A small labelled data set; every image's first pixel is its label, as the in-memory classifier reads it."""
    file, rng = folder / "small.npz", np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, counts in (("train", COUNTS), ("test", (10, 10, 10))):
        labels = rng.permutation(np.repeat(np.arange(3, dtype=np.uint8), counts))
        images = rng.integers(0, 256, (len(labels), *SHAPE), dtype=np.uint8)
        images[:, 0, 0, 0] = labels
        arrays |= {f"x_{split}": images, f"y_{split}": labels}
    np.savez(file, **arrays)
    return file


def small_settings(folder: Path) -> DatasetSettings:
    """The data set `small` as a gateway is configured with it."""
    source = DatasetSource(name="small", path=write_npz(folder), classes=CLASSES)
    return DatasetSettings(source=source, classifier="reader", policy=POLICY)


def small_dataset(folder: Path) -> Dataset:
    return read_dataset(small_settings(folder).source)


def open_plan(
    dataset: Dataset, counts: dict[tuple[int, int], int] = EVERYTHING, *, copy_threshold: float | None = None, **changed
) -> OpenPlan:
    """A plan of so many rows by class and source; `changed` are fields of its specification, or of its synthesis."""
    own = np.arange(len(CLASSES), dtype=np.uint32)
    synthesis = {
        "source": Source.SYNTHESISED,
        "model": pinned("generator", GENERATOR),
        "draw": Parameters(),
        "labels": own,
        "classifier": pinned("classifier", CLASSIFIER),
        "classifier_labels": own,
        "min_confidence": 0.5,
        "attempts": 4,
    }
    synthesis |= {name: changed.pop(name) for name in synthesis.keys() & changed.keys()}
    strata = tuple(
        Stratum(label=label, group=0, source=Source(source), count=count) for (label, source), count in counts.items()
    )
    values = {
        "dataset": dataset,
        "split": dataset.splits["train"],
        "cells": np.array(COUNTS)[:, None],
        "seed": 7,
        "mode": RealMode.ONCE,
        "mix": Mix(),
        "allocation": Allocation(strata=strata),
        "policy": POLICY,
        "transformer": pinned("transformer", TRANSFORMER),
        "generation": {Source.SYNTHESISED: GenerationSpec(**synthesis)},
        "verification": VerificationSpec(verifier=None, min_agreement=0.9, rows=256),
        "shards": 1,
        "time_to_live_s": 60.0,
    }
    spec = PlanSpec(**(values | changed))
    return OpenPlan(id="planned", spec=spec, layout=spec.lay_out(), copy_threshold=copy_threshold)


def translation(fields: str = "") -> str:
    """The translation of a request, with these fields besides the model."""
    return f'translation {{ model {{ name: "repainter" }} {fields} }} '


def reconstruction(fields: str = "latents: LATENTS_MEAN") -> str:
    """The reconstruction of a request; unless it says otherwise, of the mean, which keeps labels."""
    return f'reconstruction {{ model {{ name: "copier" }} {fields} }} '


def every_source(translation: str, reconstruction: str) -> str:
    """A request for rows of every source, with a copy filter."""
    mix = "mix { resampled: 1 transformed: 1 synthesised: 1 translated: 1 reconstructed: 1 }"
    synthesis = SYNTHESIS.replace("copy_quantile: 0", "copy_quantile: 0.1")
    return f"seed: 5 target {{ factor: 6 }} {mix} {synthesis} {translation} {reconstruction}"


def pinned(role: str, model: ServedModel) -> PinnedModel:
    return PinnedModel(role=role, target=Target(model=model.key, numerics="memory"), model=model)


@dataclass
class GivenPlans:
    """An issuer that opens the tickets that tests give it."""

    plans: dict[bytes, OpenPlan] = field(default_factory=dict)

    async def open(self, ticket: bytes, caller: Caller) -> OpenPlan:
        if ticket not in self.plans:
            raise TicketInvalid("is not one of this gateway; plan again")
        return self.plans[ticket]


@dataclass
class Augmenting:
    """A running service, and a client that knows only the protos."""

    pool: MemoryPool
    issuer: GivenPlans
    metrics: Metrics
    channel: grpc.aio.Channel

    @property
    def stub(self) -> augmentation_pb2_grpc.AugmentationServiceStub:
        return augmentation_pb2_grpc.AugmentationServiceStub(self.channel)

    async def pull(self, ticket: bytes = b"plan", **fields):
        """The header and the chunks of a whole stream."""
        request = augmentation_pb2.PullDatasetRequest(ticket=ticket, **fields)
        responses = [each async for each in self.stub.PullDataset(request, timeout=20)]
        return responses[0].header, [each.chunk for each in responses[1:]]

    async def refused(self, ticket: bytes = b"plan", **fields) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.pull(ticket, **fields)
        return error.value

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def give_plan(service: Augmenting, ticket: bytes = b"other", counts=EVERYTHING, **changed) -> OpenPlan:
    """Let a ticket open to another plan of the same data set."""
    plan = service.issuer.plans[ticket] = open_plan(service.issuer.plans[b"plan"].spec.dataset, counts, **changed)
    return plan


@asynccontextmanager
async def augmenting(
    folder: Path, *, pool: MemoryPool | None = None, policy: CallerPolicy | None = None, **settings
) -> AsyncIterator[Augmenting]:
    """The service on a free port, with the plan of EVERYTHING under the ticket `plan`."""
    pool, issuer, metrics = pool or augmenting_pool(), GivenPlans(), Metrics("test")
    config = GatewayConfig(port=0, http_port=0, **settings)
    scheduler = BatchingScheduler(pool, config, metrics)
    own = small_settings(folder)
    issuer.plans[b"plan"] = open_plan(read_dataset(own.source))
    catalog, datasets = Catalog(pool), Datasets((own,))
    servicer = AugmentationServicer(
        issuer=issuer,  # type: ignore[arg-type]
        plans=PlanStore(),
        catalog=catalog,
        datasets=datasets,
        inference=InferenceClient(scheduler),
        cache=PixelCache(),
        metrics=metrics,
        config=config,
    )
    server = grpc.aio.server(interceptors=[CallInterceptor(policy or Anonymous(), metrics, config)])
    augmentation_pb2_grpc.add_AugmentationServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await pool.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    try:
        yield Augmenting(pool, issuer, metrics, channel)
    finally:
        await channel.close()
        await server.stop(0)
        await scheduler.close()
        await pool.close()


@dataclass
class Planning:
    """An issuer of plans with its parts; requests are in text format, for the data set `small` unless they name one."""

    pool: MemoryPool
    datasets: Datasets
    catalog: Catalog
    inference: InferenceClient

    def __post_init__(self) -> None:
        self.issuer = self.another_issuer()

    async def plan(self, text: str = "", caller: Caller = ADA, **context) -> augmentation_pb2.Plan:
        return await self.issuer.plan(plan_request(text), RequestContext(caller=caller, **context))

    async def refusal(self, text: str, kind: type[FountServiceError] = InvalidRequest) -> FountServiceError:
        with pytest.raises(kind) as error:
            await self.plan(text)
        assert type(error.value) is kind
        return error.value

    def another_issuer(self, keys: TicketKeys = KEYS) -> PlanIssuer:
        """The issuer of another gateway."""
        planner = Planner(catalog=self.catalog, inference=self.inference, cache=PixelCache())
        return PlanIssuer(datasets=self.datasets, catalog=self.catalog, planner=planner, keys=keys)


def plan_request(text: str) -> augmentation_pb2.PlanDatasetRequest:
    default = "" if "dataset:" in text else 'dataset: "small" '
    return text_format.Parse(default + text, augmentation_pb2.PlanDatasetRequest())


@asynccontextmanager
async def planning_with(pool: MemoryPool, *settings: DatasetSettings) -> AsyncIterator[Planning]:
    """An issuer of plans of these data sets, before these workers."""
    await pool.start()
    scheduler = BatchingScheduler(pool, GatewayConfig(), Metrics("test"))
    yield Planning(pool, Datasets(settings), Catalog(pool), InferenceClient(scheduler))
    await scheduler.close()
    await pool.close()


class NamedCallers:
    """A policy that names callers by their metadata, and gives them all these grants."""

    def __init__(self, *grants: str) -> None:
        self.grants = frozenset(grants or {"*"})

    def identify(self, peer, metadata) -> Caller:
        return Caller(subject=str(dict(metadata).get("caller", "nobody")), grants=self.grants)


@asynccontextmanager
async def augmenting_gateway(
    folder: Path, *, pool: MemoryPool | None = None, policy: CallerPolicy | None = None, **settings
) -> AsyncIterator[Running]:
    """A whole gateway with the data set `small`, which makes and opens real plans."""
    config = GatewayConfig(port=0, http_port=0, datasets=(small_settings(folder),), **settings)
    gateway = Gateway(pool or augmenting_pool(), config, policy)
    await gateway.start()
    await gateway.wait_ready(5)
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}")
    try:
        yield Running(gateway, gateway.pool, channel)
    finally:
        await channel.close()
        await gateway.stop(grace_s=0)


@dataclass(frozen=True)
class Row:
    """One row as a client has it."""

    index: int
    image: bytes
    label: int
    error: str = ""
    source: int = 0
    source_row: int = 0
    seed: int = 0
    address: int = 0
    attempts: int = 0


def rows_of(chunks) -> list[Row]:
    """Return every row of some chunks, whatever their boundaries."""
    rows = []
    for chunk in chunks:
        samples, provenance = chunk.samples, chunk.provenance
        size = len(samples.data) // samples.count
        errors = {each.index: each.status.message for each in samples.errors}
        for k in range(samples.count):
            index = samples.start_index + k
            row = Row(
                index=index,
                image=samples.data[k * size : (k + 1) * size],
                label=samples.labels[k] if samples.labels else -1,
                error=errors.get(index, ""),
            )
            if provenance.sources:
                row = replace(
                    row,
                    source=provenance.sources[k],
                    source_row=provenance.source_rows[k],
                    seed=provenance.seeds[k],
                    address=provenance.indices[k],
                    attempts=provenance.attempts[k] if provenance.attempts else 0,
                )
            rows.append(row)
    return rows
