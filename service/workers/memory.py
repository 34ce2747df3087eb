"""The in-memory pool: the same promises without TorchServe, for fast tests beside the real ones.

What it answers is in `memory_models`. Faults are planted by the row's index or by the call.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from google.rpc import code_pb2
from numpy.typing import NDArray

from service.domain import (
    Call,
    Failure,
    Item,
    ManipulationItem,
    ModelState,
    Operation,
    Outcome,
    RangeItem,
    Reply,
    Rows,
    SamplerState,
    ServedModel,
    Target,
    TensorItem,
)
from service.errors import NotReady, WorkerBusy, WorkerLost
from service.workers import CALLS_PER_WORKER, Offer
from service.workers.memory_models import (
    indices_of,
    memory_classify,
    memory_embed,
    memory_model,
    memory_sample,
    memory_transform,
)

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
        bad_pixels: read images whose first pixel is one of these come out as failed rows.
        deadly_indices: calls that hold one of them end the worker's process.
        refused_indices: items that hold one of them are refused whole.
        crash: an exception nobody expects, raised by calls.
        crash_truncation: calls with this truncation raise an exception nobody expects.
        spoils: column of a table to the size above which what it says takes a transformed image's label away.
    """

    delay_s: float = 0.0
    sample_s: float = 0.0
    busy_calls: int = 0
    lose_calls: int = 0
    bad_indices: frozenset[int] = frozenset()
    bad_pixels: frozenset[int] = frozenset()
    deadly_indices: frozenset[int] = frozenset()
    refused_indices: frozenset[int] = frozenset()
    crash: Exception | None = None
    crash_truncation: float | None = None
    spoils: Mapping[int, float] = field(default_factory=dict)


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

    def is_discovered(self) -> bool:
        """Nothing is ever hidden here."""
        return True

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when workers come or go."""
        self._watchers.append(changed)

    def workers(self, target: Target) -> int:
        """So many a target, when up."""
        return sum(offer.workers for offer in self.offers() if offer.target == target)

    def capacity(self, target: Target) -> int:
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
        samples = sum(item.count for item in call.items)
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
        if self.faults.deadly_indices and any(self.faults.deadly_indices & _indices(item) for item in call.items):
            raise WorkerLost("the worker died", died=True)
        if self.faults.crash:
            raise self.faults.crash
        model = next(model for model in self.models if model.key == call.target.model)
        outcomes = tuple(self._outcome(model, call, item) for item in call.items)
        return Reply(outcomes=outcomes, queue_s=0.0, compute_s=compute_s, batch_sizes=(samples,))

    def _outcome(self, model: ServedModel, call: Call, item: Item) -> Outcome:
        if call.operation not in model.operations:
            code = code_pb2.FAILED_PRECONDITION
            return Failure(code=code, reason="OPERATION_UNKNOWN", message=f"{model.key.name} has no {call.operation}")
        if self.faults.refused_indices & _indices(item):
            return Failure(code=code_pb2.INTERNAL, reason="FAMILY_RAISED", message="the model failed on this item")
        if isinstance(item, RangeItem) and (carry := _carry(call, item)) is not None:
            return carry
        rows = self._rows(model, call, item)
        bad = self._bad_rows(item)
        rows[bad] = 0
        failure = Failure(code=code_pb2.INTERNAL, reason="NOT_FINITE", message="the sample is not finite")
        return Rows(array=rows, failures=dict.fromkeys(bad, failure))

    def _bad_rows(self, item: Item) -> list[int]:
        if isinstance(item, TensorItem):
            named, bad = item.rows.reshape(item.count, -1)[:, 0].tolist(), self.faults.bad_pixels
        else:
            named, bad = indices_of(item).tolist(), self.faults.bad_indices
        return [row for row, each in enumerate(named) if each in bad]

    def _rows(self, model: ServedModel, call: Call, item: Item) -> NDArray[np.uint8] | NDArray[np.float32]:
        if isinstance(item, RangeItem):
            return memory_sample(model, item, call.parameters.truncation)
        if not isinstance(item, ManipulationItem):
            return memory_embed(item) if call.operation is Operation.EMBED else memory_classify(model, item)
        images = memory_transform(item)
        for column, size in self.faults.spoils.items():
            images[np.abs(item.table[:, column]) > size, 0, 0, 0] = 255
        return images


def _indices(item: Item) -> set[int]:
    return set(indices_of(item).tolist())


def _steps_taken(call: Call) -> int:
    item = call.items[0]
    begun = item.resume_from.next_step if isinstance(item, RangeItem) and item.resume_from else 0
    left = (call.parameters.steps or 1) - begun
    return min(left, call.step_limit or left)


def _carry(call: Call, item: RangeItem) -> SamplerState | None:
    """The state of a draw that is not through: the indices of its samples, by which a mix-up would be noticed."""
    indices = indices_of(item).astype(np.float32)[:, None]  # (n, 1)
    begun = item.resume_from.next_step if item.resume_from else 0
    if item.resume_from and not np.array_equal(item.resume_from.state, indices):
        raise ValueError("a draw was gone on with in another's place")
    step = begun + _steps_taken(call)
    return None if step == (call.parameters.steps or 1) else SamplerState(next_step=step, state=indices)
