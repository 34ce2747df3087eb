"""The rows of a plan in one process without a server: `python -m benchmarks.augmentation.local UNPACKED DATASET`.

The same code computes the same rows: layout, transforms, filters and networks of the plan, with direct calls of the
networks in the fastest batch size.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from contextlib import aclosing
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.child import serve_commands
from fount.address import Addresses
from fount.readers import Dataset, DatasetSource, read_dataset
from fount.v1 import augmentation_pb2
from handlers.execution.batches import fitting_size
from handlers.execution.network import Operation
from handlers.execution.pixels import floats_to_uint8, uint8_to_floats
from handlers.execution.rows import ImageRows, ManipulationRows, Rows, SampleRows, pad_rows
from handlers.loading.load import Engine
from handlers.worker.worker import Worker
from service.augmentation.copy_filter import PixelCache
from service.augmentation.plan_spec import GenerationSpec, OpenPlan, PlanSpec, VerificationSpec
from service.augmentation.rows import ProvenanceLevel, RowMaker
from service.augmentation.slots import RealMode, Source, Stratum
from service.augmentation.targets import Allocation, Mix
from service.caller import Caller
from service.calls import Failure
from service.catalog import PinnedModel
from service.domain import Parameters
from service.rpc.fields import policy_from_proto
from service.scheduler.work import RequestContext

__all__ = ["main"]

_CONTEXT = RequestContext(caller=Caller(subject="benchmark", grants=frozenset({"*"})))


class _Local:
    """The methods of `service.scheduler.inference.InferenceClient`, with networks of this process."""

    def __init__(self, unpacked: Path) -> None:
        self._unpacked = unpacked

    async def sample(
        self, target: object, model: Any, *, seed: int, indices: NDArray[np.uint64], labels: Any, parameters: object,
        context: object,
    ) -> tuple[NDArray[np.uint8], dict[int, Failure]]:  # fmt: skip
        engine = self._engine("generator", model.key.name)
        addresses = Addresses(seeds=np.full(len(indices), seed, np.uint64), indices=indices)
        floats = _run(engine, "SAMPLE", SampleRows(addresses=addresses, labels=labels.astype(np.int64)))
        return floats_to_uint8(floats, engine.network.card.sample.value_range), {}

    async def classify(self, target: object, model: Any, images: NDArray[np.uint8], context: object) -> Any:
        engine = self._engine("classifier", model.key.name)
        return _run(
            engine, "CLASSIFY", ImageRows(images=uint8_to_floats(images, engine.network.card.sample.value_range))
        )

    async def transform(
        self, target: object, model: Any, images: NDArray[np.uint8], table: NDArray[np.float32], *, seed: int,
        indices: NDArray[np.uint64], context: object,
    ) -> Any:  # fmt: skip
        addresses = Addresses(seeds=np.full(len(indices), seed, np.uint64), indices=indices)
        rows = ManipulationRows(images=images, table=table, addresses=addresses)
        return _run(self._engine("transformer", model.key.name), "TRANSFORM", rows)

    @cache  # noqa: B019 - one object for the whole process
    def _engine(self, role: str, name: str) -> Engine:
        engine = Worker.load(self._unpacked / name).model.engine
        assert engine is not None, f"the {role} {name} did not load"
        return engine


def _run(engine: Engine, operation: Operation, rows: Rows) -> NDArray[Any]:
    sizes = engine.profile.exec_batch_sizes
    size = min(sizes, key=lambda each: engine.profile.seconds_per_batch[each] / each)
    parts = []
    for start in range(0, len(rows), size):
        part = rows.take(slice(start, start + size))
        padded = pad_rows(part, size if len(part) > size // 2 else fitting_size(sizes, len(part)))
        parts.append(engine.network.run(operation, padded)[: len(part)])
    return np.concatenate(parts)


def _open(plan: augmentation_pb2.Plan, dataset: Dataset) -> OpenPlan:
    request, ids = plan.request, np.arange(len(dataset.classes), dtype=np.uint32)
    slots = [Stratum(label=s.label, group=s.group, source=Source(s.source), count=s.count) for s in plan.slots]
    pinned = {each.role: _pinned(each) for each in plan.models}
    generation = {}
    if "generator" in pinned:
        generation[Source.SYNTHESISED] = GenerationSpec(
            source=Source.SYNTHESISED, model=pinned["generator"], draw=Parameters(), labels=ids,
            classifier=pinned.get("classifier"), classifier_labels=ids,
            min_confidence=request.synthesis.min_confidence, copy_quantile=request.synthesis.copy_quantile,
            attempts=request.synthesis.attempts,
        )  # fmt: skip
    spec = PlanSpec(
        dataset=dataset, split=dataset.splits[request.split], cells=np.zeros((0, 1), np.int64), seed=request.seed,
        mode=RealMode(request.real.mode or RealMode.ONCE),
        mix=Mix(), allocation=Allocation(strata=tuple(slots)), policy=policy_from_proto(request.policy),
        transformer=pinned.get("transformer"), generation=generation,
        verification=VerificationSpec(verifier=None, min_agreement=0.0, rows=0), shards=1, time_to_live_s=0.0,
    )  # fmt: skip
    return OpenPlan(id=plan.id, spec=spec, layout=spec.lay_out(), copy_threshold=plan.copy_threshold or None)


def _pinned(each: augmentation_pb2.PinnedModel) -> PinnedModel:
    model = SimpleNamespace(key=SimpleNamespace(name=each.model.name))
    return PinnedModel(role=each.role, target=None, model=model)  # type: ignore[arg-type]  # only the name is read


async def _make(maker: RowMaker, plan: OpenPlan, rows: int) -> tuple[int, float, str]:
    """Compute rows; returns their number, the seconds, and a digest of their images."""
    digest, made, start = hashlib.sha256(), 0, time.monotonic()
    async with aclosing(maker.rows(plan, 0, min(rows, plan.layout.count), ProvenanceLevel.IDS, _CONTEXT)) as batches:
        async for batch in batches:
            made += len(batch.images)
            digest.update(batch.images.tobytes())
    return made, time.monotonic() - start, digest.hexdigest()


def main(unpacked: Path, file: Path) -> None:
    """Compute the rows of plans, one for each command {"plan": FILE, "rows": N, "threads": T}."""
    dataset = read_dataset(DatasetSource(name="bench", path=file))
    maker = RowMaker(_Local(unpacked), PixelCache())  # type: ignore[arg-type]  # has the same three methods

    def handle(command: dict[str, Any]) -> dict[str, Any]:
        torch.set_num_threads(command["threads"])
        plan = _open(augmentation_pb2.Plan.FromString(Path(command["plan"]).read_bytes()), dataset)
        rows, seconds, digest = asyncio.run(_make(maker, plan, command["rows"]))
        return {"rows": rows, "rows_per_s": rows / seconds, "digest": digest}

    serve_commands(handle)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
