"""The in-memory worker pool: a test double of the TorchServe pool, which ships with it.

Its results are computed by `memory_models`. `Faults` select what fails, by the index of a row or by the call.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.calls import (
    Call,
    Failure,
    FailureCode,
    GivenItem,
    Item,
    Outcome,
    RangeItem,
    Reply,
    Rows,
    SamplerState,
    TensorItem,
)
from service.domain import Dtype, ModelState, Operation, ServedModel, Target
from service.errors import NotReady, WorkerBusy, WorkerLost
from service.workers import CALLS_PER_WORKER, Offer
from service.workers.memory_models import (
    indices_of,
    memory_classify,
    memory_embed,
    memory_given,
    memory_model,
    memory_sample,
    memory_transform,
    memory_translate,
)

__all__ = ["Faults", "MemoryPool", "memory_model", "memory_sample"]


@dataclass(kw_only=True)
class Faults:
    """Faults of the workers, which a test may change at any time.

    Attributes:
        delay_s: how long each call takes.
        sample_s: how much longer for each sample.
        busy_calls: how many of the next calls meet a full worker queue.
        lose_calls: how many of the next calls lose their worker.
        bad_indices: samples that become failed rows.
        bad_pixels: images to classify or embed whose first pixel is one of these become failed rows.
        deadly_indices: a call with one of them ends the worker's process.
        refused_indices: an item with one of them fails as a whole.
        crash: an unexpected exception that calls raise.
        crash_truncation: calls with this truncation raise an unexpected exception.
        texts: bytes of the texts with these indices, in place of those drawn.
        spoils: column of a manipulation table: absolute value above which a transformed image loses its label.
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
    texts: Mapping[int, bytes] = field(default_factory=dict)
    spoils: Mapping[int, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class MemoryPool:
    """Workers within this process.

    Attributes:
        models: what is served.
        numerics: ids, each with workers of every model.
        workers_each: number of workers of a model and numerics.
        batch_seconds: warm-up time of a batch of each size.
        faults: of the workers.
        calls: every call made, for assertions.
        extra_offers: offers in addition to those of the models.
        running: number of calls in progress.
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
        """Make all workers ready."""
        self.set_up(up=True)

    async def close(self) -> None:
        """Remove all workers."""
        self.set_up(up=False)

    def set_up(self, *, up: bool) -> None:
        """Make all workers ready, or remove them."""
        self._up = up
        for changed in self._watchers:
            changed()

    def offers(self) -> tuple[Offer, ...]:
        """Return one offer for each model and numerics."""
        state = ModelState.READY if self._up else ModelState.LOADING
        offers = [
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
        return (*offers, *self.extra_offers)

    def is_discovered(self) -> bool:
        """Return True: all models are known from the start."""
        return True

    def hold(self, name: str, version: str) -> None:
        """Do nothing: workers are not started on demand."""

    async def load(self, name: str, version: str) -> bool:
        """Return False: workers are not started on demand."""
        return False

    def report_loads(self, loaded: Callable[[str, str, float], None], evicted: Callable[[str, str], None]) -> None:
        """Do nothing: workers are not started on demand."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` when workers appear or disappear."""
        self._watchers.append(changed)

    def workers(self, target: Target) -> int:
        """Return how many workers a target has."""
        return sum(offer.workers for offer in self.offers() if offer.target == target)

    def capacity(self, target: Target) -> int:
        """Return how many more calls its workers accept now."""
        return max(0, CALLS_PER_WORKER * self.workers(target) - self._in_flight[target])

    async def call(self, call: Call, *, timeout_s: float) -> Reply:
        """Execute a call, one for each worker at a time; see `WorkerPool.call`."""
        self.calls.append(call)
        self._in_flight[call.target] += 1
        try:
            async with self._free.setdefault(call.target, asyncio.Semaphore(self.workers_each)):
                return await self._execute(call)
        finally:
            self._in_flight[call.target] -= 1

    async def _execute(self, call: Call) -> Reply:
        samples = sum(item.count for item in call.items)
        model = next((model for model in self.models if model.key == call.target.model), None)
        compute_s = self.faults.delay_s + self.faults.sample_s * samples * _steps_taken(call, model)
        self.running += 1
        try:
            await asyncio.sleep(compute_s)
        finally:
            self.running -= 1
        if self.faults.busy_calls:
            self.faults.busy_calls -= 1
            raise WorkerBusy("the worker is set to be busy")
        if self.faults.crash_truncation and call.parameters.truncation == self.faults.crash_truncation:
            raise ZeroDivisionError("the call is set to crash")
        if model is None or not self.workers(call.target):
            raise NotReady(f"{call.target.model.name} has no worker")
        if self.faults.lose_calls:
            self.faults.lose_calls -= 1
            raise WorkerLost("the worker is set to die")
        if self.faults.deadly_indices and any(self.faults.deadly_indices & _indices(item) for item in call.items):
            raise WorkerLost("the worker died", died=True)
        if self.faults.crash:
            raise self.faults.crash
        outcomes = tuple(self._outcome(model, call, item) for item in call.items)
        return Reply(outcomes=outcomes, compute_s=compute_s)

    def _outcome(self, model: ServedModel, call: Call, item: Item) -> Outcome:
        if call.operation not in model.operations:
            message = f"{model.key.name} has no {call.operation}"
            return Failure(code=FailureCode.FAILED_PRECONDITION, reason="OPERATION_UNKNOWN", message=message)
        if self.faults.refused_indices & _indices(item):
            return Failure(code=FailureCode.INTERNAL, reason="FAMILY_RAISED", message="the model failed on this item")
        if call.operation.draws and isinstance(item, RangeItem | GivenItem):
            state = _state_of(item)
            step = _first_step(item) + _steps_taken(call, model)
            if step < (call.parameters.steps or model.draw_steps):
                return SamplerState(next_step=step, state=state)
            if call.operation is Operation.TRANSLATE:
                rows = memory_translate(model, state[:, 1:], item)
            else:
                rows = self._rows(model, call, item.resumed(SamplerState(next_step=step, state=state)))
        else:
            rows = self._rows(model, call, item)
        bad = self._bad_rows(item)
        rows[bad] = 0
        failure = Failure(code=FailureCode.INTERNAL, reason="NOT_FINITE", message="the sample is not finite")
        return Rows(array=rows, failures=dict.fromkeys(bad, failure))

    def _bad_rows(self, item: Item) -> list[int]:
        if isinstance(item, TensorItem):
            values, bad = item.rows.reshape(item.count, -1)[:, 0].tolist(), self.faults.bad_pixels
        else:
            values, bad = indices_of(item).tolist(), self.faults.bad_indices
        return [row for row, value in enumerate(values) if value in bad]

    def _rows(self, model: ServedModel, call: Call, item: Item) -> NDArray[np.uint8] | NDArray[np.float32]:
        if isinstance(item, RangeItem):
            samples = memory_sample(model, item, call.parameters.truncation)
            for row, index in enumerate(indices_of(item).tolist() if self.faults.texts else ()):
                if index in self.faults.texts:
                    samples[row] = np.frombuffer(self.faults.texts[index].ljust(samples.shape[1], b"\0"), np.uint8)
            return _with_known(samples, item)
        if isinstance(item, GivenItem):
            return memory_given(model, call.operation, item)
        if isinstance(item, TensorItem):
            return memory_embed(item) if call.operation is Operation.EMBED else memory_classify(model, item)
        images = memory_transform(item)
        for column, size in self.faults.spoils.items():
            images[np.abs(item.table[:, column]) > size, 0, 0, 0] = 255
        return images


def _indices(item: Item) -> set[int]:
    return set(indices_of(item).tolist())


def _first_step(item: Item) -> int:
    return item.resume_from.next_step if isinstance(item, RangeItem) and item.resume_from else 0


def _state_of(item: RangeItem | GivenItem) -> NDArray[np.float32]:
    """Return the state of draws: their indices, so that a state of other samples is detected, and known values.

    Returns:
        (n, 1), or of given values (n, 1 + values), levels of 255 and NaN where a value is drawn.
    """
    indices = indices_of(item).astype(np.float32)[:, None]  # (n, 1)
    if isinstance(item, GivenItem):
        levels = item.rows if item.rows.dtype == np.uint8 else np.rint(item.rows * 255)
        known = levels.astype(np.float32) if item.mask is None else np.where(item.mask == 1, levels, np.float32(np.nan))
        return np.concatenate([indices, known.reshape(item.count, -1)], axis=1)
    if item.resume_from and not np.array_equal(item.resume_from.state[:, :1], indices):
        raise ValueError("a draw was resumed with the state of other samples")
    return item.resume_from.state if item.resume_from else indices


def _with_known(
    samples: NDArray[np.uint8] | NDArray[np.float32], item: RangeItem
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Put the known values of a state in the place of drawn ones."""
    if item.resume_from is None or item.resume_from.state.shape[1] == 1:
        return samples
    known = item.resume_from.state[:, 1:].reshape(samples.shape)  # (n, values) -> (n, ...)
    if item.dtype is Dtype.FLOAT32:
        return np.where(np.isnan(known), samples, known / np.float32(255)).astype(np.float32)
    return np.where(np.isnan(known), samples, known).astype(np.uint8)


def _steps_taken(call: Call, model: ServedModel | None) -> int:
    remaining = (call.parameters.steps or (model.draw_steps if model else 1)) - _first_step(call.items[0])
    return min(remaining, call.step_limit or remaining)
