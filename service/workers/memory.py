"""The in-memory pool: the same promises without TorchServe, for fast tests beside the real ones.

Samples are a plain function of the address and the label, so the address promise holds, and tests can say what they
expect. Faults are planted by the sample's index or by the call.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from google.rpc import code_pb2

from fount.address import Addresses, Stream
from fount.v1 import model_pb2
from service.chunks import sample_spec
from service.domain import (
    Call,
    Carry,
    Dtype,
    Encoding,
    Failure,
    Images,
    ModelKey,
    ModelState,
    Operation,
    Outcome,
    ParameterRange,
    RangeItem,
    Reply,
    Rows,
    ServedModel,
    Target,
)
from service.errors import NotReady, WorkerBusy, WorkerLost
from service.workers import CALLS_PER_WORKER, Offer

__all__ = ["Faults", "MemoryPool", "memory_model", "memory_sample"]


@dataclass(kw_only=True)
class Faults:
    """What goes wrong, changed at will while the pool runs.

    Attributes:
        delay_s: how long each call takes.
        sample_s: how much longer for each sample.
        busy_calls: how many of the next calls find the worker's own queue full.
        lose_calls: how many of the next calls end with a lost worker.
        bad_indices: samples that come out as failed rows.
        deadly_indices: calls that hold one of them end the worker's process.
        refused_indices: items that hold one of them are refused whole.
        crash: an exception nobody expects, raised by calls.
        crash_truncation: calls with this truncation raise an exception nobody expects.
    """

    delay_s: float = 0.0
    sample_s: float = 0.0
    busy_calls: int = 0
    lose_calls: int = 0
    bad_indices: frozenset[int] = frozenset()
    deadly_indices: frozenset[int] = frozenset()
    refused_indices: frozenset[int] = frozenset()
    crash: Exception | None = None
    crash_truncation: float | None = None


def memory_model(
    name: str = "toy",
    version: str = "1",
    *,
    labels: tuple[str, ...] = ("zero", "one", "two"),
    dims: tuple[int, int, int] = (2, 3, 1),
    operations: frozenset[Operation] = frozenset({Operation.SAMPLE}),
    encodings: frozenset[Encoding] = frozenset(Encoding),
    max_count: int = 10_000_000,
) -> ServedModel:
    """A model for the in-memory pool; no labels make it unconditional."""
    key = ModelKey(
        name=name, version=version, digest="sha256:" + hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    )
    served = ServedModel(
        key=key,
        operations=operations,
        labels=labels,
        prior=tuple(1 / len(labels) for _ in labels),
        sample_dims=dims,
        value_range=(0.0, 1.0),
        parameters={
            "truncation": ParameterRange(minimum=0.5, maximum=4.0, default=None),
            "steps": ParameterRange(minimum=1, maximum=1000, default=None),
        },
        encodings=encodings,
        max_count=max_count,
        max_labels=1000,
        card=b"",
    )
    return replace(served, card=_card(served).SerializeToString())


def _card(model: ServedModel) -> model_pb2.Model:
    """The card the model would describe itself with."""
    labels = [model_pb2.Label(id=k, name=name) for k, name in enumerate(model.labels)]
    key = model.key
    return model_pb2.Model(
        ref=model_pb2.ModelRef(name=key.name, version=key.version, digest=key.digest),
        family="memory",
        description="A double.",
        operations=[model_pb2.Operation.Value(f"OPERATION_{each.name}") for each in sorted(model.operations)],
        condition=model_pb2.ConditionSchema(labels=labels, prior=model.prior) if labels else None,
        sample_spec=sample_spec(model, Encoding.UINT8),
        parameters=[
            model_pb2.ParameterSpec(name=name, range=model_pb2.ValueRange(min=each.minimum, max=each.maximum))
            for name, each in model.parameters.items()
        ],
        encodings=[model_pb2.Encoding.Value(f"ENCODING_{each.name}") for each in sorted(model.encodings)],
        limits=model_pb2.Limits(max_count=model.max_count, max_labels=model.max_labels),
        value_range=model_pb2.ValueRange(min=model.value_range[0], max=model.value_range[1]),
    )


def memory_sample(model: ServedModel, item: RangeItem, truncation: float | None = None) -> Images:
    """The samples of a range: noise squeezed into [0, 1], with the label as the first pixel."""
    pixels = int(np.prod(model.sample_dims))
    z = Addresses.of_range(item.seed, item.start_index, item.count).normals(
        Stream.LATENT, pixels, truncation=truncation
    )
    values = np.clip(0.5 + z / 8, 0, 1).astype(np.float32)  # (n, pixels)
    values[:, 0] = 0 if item.labels is None else item.labels / np.float32(255)
    images = values.reshape(item.count, *model.sample_dims)
    return images if item.dtype is Dtype.FLOAT32 else np.rint(images * 255).astype(np.uint8)


@dataclass(kw_only=True)
class MemoryPool:
    """Workers within this process; see the module.

    Attributes:
        models: what is served.
        numerics: the ids with workers each.
        workers_each: how many workers a model and numerics has.
        batch_seconds: what they say a batch of each size took at warm-up.
        faults: what goes wrong.
        calls: every call made, for tests to look at.
        extra_offers: offered beside the models.
        running: calls under way.
    """

    models: list[ServedModel] = field(default_factory=lambda: [memory_model()])
    numerics: tuple[str, ...] = ("memory",)
    workers_each: int = 1
    batch_seconds: dict[int, float] = field(default_factory=lambda: {1: 1e-5, 256: 256e-5})
    faults: Faults = field(default_factory=Faults)
    calls: list[Call] = field(default_factory=list)
    extra_offers: list[Offer] = field(default_factory=list)
    running: int = 0
    _in_flight: Counter[Target] = field(default_factory=Counter)
    _free: dict[Target, asyncio.Semaphore] = field(default_factory=dict)
    _watchers: list[Callable[[], None]] = field(default_factory=list)
    _up: bool = False

    async def start(self) -> None:
        """Be ready at once."""
        self.set_up(True)

    async def close(self) -> None:
        """Be gone."""
        self.set_up(False)

    def set_up(self, up: bool) -> None:
        """Let all workers come or go."""
        self._up = up
        for changed in self._watchers:
            changed()

    def offers(self) -> tuple[Offer, ...]:
        """One offer a model and numerics."""
        state = ModelState.READY if self._up else ModelState.LOADING
        mine = [
            Offer(
                name=model.key.name,
                version=model.key.version,
                model=model,
                numerics=numerics,
                state=state,
                workers=self.workers_each,
                batch_seconds=self.batch_seconds,
            )
            for model in self.models
            for numerics in self.numerics
        ]
        return (*mine, *self.extra_offers)

    def has_looked(self) -> bool:
        """Nothing is ever hidden here."""
        return True

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when workers come or go."""
        self._watchers.append(changed)

    def workers(self, target: Target) -> int:
        """So many a target, when up."""
        return sum(offer.workers for offer in self.offers() if offer.target == target)

    def room(self, target: Target) -> int:
        """How many more calls its workers take now."""
        return max(0, CALLS_PER_WORKER * self.workers(target) - self._in_flight[target])

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        """Do a call, one a worker at a time; see `WorkerPool.call`."""
        self.calls.append(call)
        self._in_flight[call.target] += 1
        try:
            async with self._free.setdefault(call.target, asyncio.Semaphore(self.workers_each)):
                return await self._do(call)
        finally:
            self._in_flight[call.target] -= 1

    async def _do(self, call: Call) -> Reply:
        samples = sum(item.count for item in call.items if isinstance(item, RangeItem))
        compute_s = self.faults.delay_s + self.faults.sample_s * samples * _steps_taken(call)
        self.running += 1
        try:
            await asyncio.sleep(compute_s)
        finally:
            self.running -= 1
        if self.faults.busy_calls:
            self.faults.busy_calls -= 1
            raise WorkerBusy("the worker was told to be busy")
        if self.faults.crash_truncation and call.parameters.truncation == self.faults.crash_truncation:
            raise ZeroDivisionError("the call was told to crash")
        if not self.workers(call.target):
            raise NotReady(f"{call.target.model.name} has no worker")
        if self.faults.lose_calls:
            self.faults.lose_calls -= 1
            raise WorkerLost("the worker was told to die")
        items = [item for item in call.items if isinstance(item, RangeItem)]
        if any(self.faults.deadly_indices & set(range(i.start_index, i.start_index + i.count)) for i in items):
            raise WorkerLost("the worker died", died=True)
        if self.faults.crash:
            raise self.faults.crash
        model = next(model for model in self.models if model.key == call.target.model)
        outcomes = tuple(self._outcome(model, call, item) for item in items)
        return Reply(outcomes=outcomes, queue_s=0.0, compute_s=compute_s, batch_sizes=(samples,))

    def _outcome(self, model: ServedModel, call: Call, item: RangeItem) -> Outcome:
        indices = range(item.start_index, item.start_index + item.count)
        if self.faults.refused_indices & set(indices):
            return Failure(code=code_pb2.INTERNAL, reason="FAMILY_RAISED", message="the model failed on this item")
        if (carry := _carry(call, item)) is not None:
            return carry
        images = memory_sample(model, item, call.parameters.truncation)
        bad = [row for row, index in enumerate(indices) if index in self.faults.bad_indices]
        images[bad] = 0
        failure = Failure(code=code_pb2.INTERNAL, reason="NOT_FINITE", message="the sample is not finite")
        return Rows(array=images, failures=dict.fromkeys(bad, failure))


def _steps_taken(call: Call) -> int:
    item = call.items[0]
    begun = item.carry.next_step if isinstance(item, RangeItem) and item.carry else 0
    left = (call.parameters.steps or 1) - begun
    return min(left, call.step_limit or left)


def _carry(call: Call, item: RangeItem) -> Carry | None:
    """The state of a draw that is not through: the indices of its samples, by which a mix-up would be noticed."""
    indices = np.arange(item.start_index, item.start_index + item.count, dtype=np.float32)[:, None]  # (n, 1)
    begun = item.carry.next_step if item.carry else 0
    if item.carry and not np.array_equal(item.carry.state, indices):
        raise ValueError("a draw was gone on with in another's place")
    step = begun + _steps_taken(call)
    return None if step == (call.parameters.steps or 1) else Carry(next_step=step, state=indices)
