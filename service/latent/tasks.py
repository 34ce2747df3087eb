"""The tasks of given rows: what each stream computes of its rows, with workers and with the arithmetic of `points`.

A `Batch` of rows and a `WorkerAccess` enter; the results of its outputs leave, with failures by output. An output whose
row failed fails as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.calls import Failure, FailureCode, Labels
from service.domain import Dtype, Parameters, ServedModel, Target
from service.latent.points import between, draw_around, draw_posterior, walk
from service.scheduler.inference import GivenRows, InferenceClient
from service.scheduler.work import RequestContext

__all__ = [
    "Batch", "Classify", "Decode", "Encode", "Interpolate", "Jitter", "Reconstruct", "Results", "Score", "Task",
    "Translate", "Walk", "WorkerAccess",
]  # fmt: skip

Float32s = NDArray[np.float32]
_FEW_VALUES = 1 << 12  # computed in less time than a thread needs to start
Results = tuple[NDArray[Any], dict[int, Failure]]
"""(n, ...) results, zero where they failed, and the failures by place."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Some outputs of a stream, and the rows they are made from.

    Attributes:
        rows: (m, ...) uint8 or float32; of pairs (m, 2, ...).
        labels: (m,) of the rows; None without.
        row_indices: (m,) uint64, the addresses of the rows.
        places: (n,) which row each output is made from.
        steps: (n,) the number of each output within its row: of a point, or a variant.
        indices: (n,) uint64, the addresses of the outputs.
    """

    rows: NDArray[np.uint8] | Float32s
    labels: Labels | None
    row_indices: NDArray[np.uint64]
    places: NDArray[np.intp]
    steps: NDArray[np.intp]
    indices: NDArray[np.uint64]

    @classmethod
    def of_rows(cls, rows: NDArray[np.uint8] | Float32s, labels: Labels | None, indices: NDArray[np.uint64]) -> Batch:
        """Make one output of each row, at the row's own address."""
        places, steps = np.arange(len(rows)), np.zeros(len(rows), np.intp)
        return cls(rows=rows, labels=labels, row_indices=indices, places=places, steps=steps, indices=indices)

    @property
    def output_labels(self) -> Labels | None:
        """(n,) labels of the outputs."""
        return None if self.labels is None else self.labels[self.places]


@dataclass(frozen=True, kw_only=True, eq=False)
class WorkerAccess:
    """The workers of a stream's model.

    Attributes:
        inference: by which they are called.
        target: which workers.
        model: what they serve.
        seed: of noise.
        dtype: of decoded samples.
        context: on whose behalf.
    """

    inference: InferenceClient
    target: Target
    model: ServedModel
    seed: int
    dtype: Dtype
    context: RequestContext

    async def encode(
        self, rows: NDArray[np.uint8] | Float32s, labels: Labels | None, indices: NDArray[np.uint64]
    ) -> Results:
        """Encode rows: (n, 2, latent_dim), mean and standard deviation."""
        given = GivenRows(rows=rows, labels=labels, seed=self.seed, indices=indices)
        return await self.inference.encode(self.target, self.model, given, self.context)

    async def decode(self, z: Float32s, labels: Labels | None, indices: NDArray[np.uint64]) -> Results:
        """Decode latents: (n, *sample_dims). Infinite ones fail here: a worker refuses all that are sent with one."""
        z, infinite = drop_infinite(z)
        given = GivenRows(rows=z, labels=labels, seed=self.seed, indices=indices)
        samples, failures = await self.inference.decode(self.target, self.model, given, self.dtype, self.context)
        samples[list(infinite)] = 0
        return samples, failures | infinite


class Task(Protocol):
    """What a stream computes."""

    @property
    def factor(self) -> int:
        """Outputs of each row, or of each pair."""
        ...

    async def run(self, batch: Batch, workers: WorkerAccess) -> Results:
        """Compute the outputs of a batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Encode:
    """The latent of each row: its mean, with its spread (n, 2, latent_dim), or drawn from both."""

    sampled: bool = False
    spread: bool = False
    factor: int = field(default=1, init=False)

    async def run(self, batch: Batch, workers: WorkerAccess) -> Results:
        """Encode the rows."""
        latents, failures = await workers.encode(batch.rows, batch.labels, batch.row_indices)
        if self.spread:
            return latents, failures
        if self.sampled:
            mean, spread = latents[:, 0], latents[:, 1]
            z, infinite = drop_infinite(await _compute(draw_posterior, mean, spread, workers.seed, batch.row_indices))
            return z, infinite | failures
        return np.ascontiguousarray(latents[:, 0]), failures  # (n, 2, latent_dim) -> (n, latent_dim)


@dataclass(frozen=True, kw_only=True)
class Decode:
    """The sample of each latent."""

    factor: int = field(default=1, init=False)

    async def run(self, batch: Batch, workers: WorkerAccess) -> Results:
        """Decode the rows."""
        return await workers.decode(np.asarray(batch.rows, np.float32), batch.labels, batch.row_indices)


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """The sample of each row's own latent."""

    sampled: bool = False
    factor: int = field(default=1, init=False)

    async def run(self, batch: Batch, workers: WorkerAccess) -> Results:
        """Encode the rows and decode their latents."""
        z, failed = await Encode(sampled=self.sampled).run(batch, workers)
        samples, failures = await workers.decode(z, batch.labels, batch.row_indices)
        samples[list(failed)] = 0
        return samples, failures | failed


@dataclass(frozen=True, kw_only=True)
class Interpolate:
    """The points of a line between the two rows of each pair; its ends are the rows themselves."""

    points: int
    spherical: bool = False

    @property
    def factor(self) -> int:
        """Outputs of each pair."""
        return self.points

    async def run(self, batch: Batch, workers: WorkerAccess) -> Results:
        """Encode both rows of each pair, and decode the points between their latents."""
        last = self.points - 1
        outputs = np.zeros((len(batch.places), *workers.model.sample_dims), workers.dtype.numpy)
        for end, step in ((0, 0), (1, last)):
            at_end = batch.steps == step
            rows = batch.rows[batch.places[at_end], end]
            outputs[at_end] = convert(rows, workers.dtype, workers.model.value_range)
        inside = np.flatnonzero((batch.steps > 0) & (batch.steps < last))
        if not len(inside):
            return outputs, {}
        used, places = np.unique(batch.places[inside], return_inverse=True)
        flat = batch.rows[used].reshape(-1, *batch.rows.shape[2:])  # (m, 2, ...) -> (2m, ...)
        labels = None if batch.labels is None else batch.labels[used].repeat(2)
        latents, failed = await workers.encode(flat, labels, batch.row_indices[used].repeat(2))
        means = latents[:, 0].reshape(len(used), 2, -1)  # (2m, latent_dim) -> (m, 2, latent_dim)
        shares = batch.steps[inside] / last
        line = partial(between, spherical=self.spherical)
        z = await _compute(line, means[places, 0], means[places, 1], shares)
        own = None if batch.labels is None else batch.labels[batch.places[inside]]
        outputs[inside], failures = await workers.decode(z, own, batch.indices[inside])
        at = {int(inside[k]): failure for k, failure in failures.items()}
        of_pair = {row // 2: failure for row, failure in failed.items()}
        at |= {int(inside[k]): of_pair[place] for k, place in enumerate(places.tolist()) if place in of_pair}
        outputs[list(at)] = 0
        return outputs, at


@dataclass(frozen=True, kw_only=True)
class _Variants:
    """Variants of each row."""

    variants: int

    @property
    def factor(self) -> int:
        """Outputs of each row."""
        return self.variants

    async def run(self, batch: Batch, workers: WorkerAccess) -> Results:
        """Encode the rows, and decode points around their latents."""
        latents, failed = await workers.encode(batch.rows, batch.labels, batch.row_indices)
        z = await _compute(self.move, latents[batch.places, 0], batch, workers.seed)
        samples, failures = await workers.decode(z, batch.output_labels, batch.indices)
        failures |= {k: failed[place] for k, place in enumerate(batch.places.tolist()) if place in failed}
        samples[list(failures)] = 0
        return samples, failures

    def move(self, means: Float32s, batch: Batch, seed: int) -> Float32s:
        """Compute the latent of each output from the mean of its row's latent, (n, latent_dim)."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Jitter(_Variants):
    """Variants drawn around each row's latent, at a distance."""

    scale: float

    def move(self, means: Float32s, batch: Batch, seed: int) -> Float32s:
        """Draw around the means."""
        return draw_around(means, self.scale, seed, batch.indices)


@dataclass(frozen=True, kw_only=True, eq=False)
class Walk(_Variants):
    """Variants along a direction, (latent_dim,), from one amount to another."""

    direction: tuple[float, ...]
    from_amount: float
    to_amount: float

    def move(self, means: Float32s, batch: Batch, seed: int) -> Float32s:
        """Move along the direction."""
        amounts = np.linspace(self.from_amount, self.to_amount, self.variants)
        return walk(means, np.asarray(self.direction, np.float64), amounts[batch.steps])


@dataclass(frozen=True, kw_only=True)
class Score:
    """The scores of each row."""

    parameters: Parameters
    factor: int = field(default=1, init=False)

    async def run(self, batch: Batch, workers: WorkerAccess) -> Results:
        """Score the rows."""
        given = GivenRows(rows=batch.rows, labels=batch.labels, seed=workers.seed, indices=batch.row_indices)
        inference, model = workers.inference, workers.model
        return await inference.score(workers.target, model, given, self.parameters, workers.context)


@dataclass(frozen=True, kw_only=True)
class Translate:
    """The image that the model makes of each row."""

    parameters: Parameters
    factor: int = field(default=1, init=False)

    async def run(self, batch: Batch, workers: WorkerAccess) -> Results:
        """Translate the rows."""
        given = GivenRows(rows=batch.rows, labels=batch.labels, seed=workers.seed, indices=batch.row_indices)
        inference, model = workers.inference, workers.model
        return await inference.translate(workers.target, model, given, workers.dtype, self.parameters, workers.context)


@dataclass(frozen=True, kw_only=True, eq=False)
class Classify:
    """p(y|x) of each row.

    Attributes:
        prior: (classes,) p(y) in place of the card's; None: the card's.
    """

    prior: tuple[float, ...] | None = None
    factor: int = field(default=1, init=False)

    async def run(self, batch: Batch, workers: WorkerAccess) -> Results:
        """Classify the rows, and reweight by another prior: p'(y|x) ∝ p(y|x) p'(y) / p(y)."""
        inference, model = workers.inference, workers.model
        probabilities, failures = await inference.probabilities(workers.target, model, batch.rows, workers.context)
        if self.prior is None:
            return probabilities, failures
        ratio = np.divide(self.prior, model.prior, out=np.zeros(len(model.prior)), where=np.asarray(model.prior) > 0)
        weighted = probabilities.astype(np.float64) * ratio  # (n, classes)
        total = weighted.sum(axis=1, keepdims=True)
        # Where every class of the new prior had probability 0 before rounding, the new prior is all that is known.
        known = np.divide(weighted, total, out=np.broadcast_to(self.prior, weighted.shape).copy(), where=total > 0)
        known[list(failures)] = 0
        return np.asarray(known, np.float32), failures


def drop_infinite(z: Float32s) -> Results:
    """Replace latents beyond the range of float32, (n, latent_dim), by zeros; return them and a failure for each."""
    wrong = np.flatnonzero(~np.isfinite(z).all(axis=1)).tolist()
    if not wrong:
        return z, {}
    message = "the latent is beyond the range of float32; use a smaller scale, or another row"
    failure = Failure(code=FailureCode.INTERNAL, reason="NOT_FINITE", message=message)
    kept = z.copy()
    kept[wrong] = 0
    return kept, dict.fromkeys(wrong, failure)


async def _compute(compute: Callable[..., Float32s], means: Float32s, *values: Any) -> Float32s:
    """Compute latents from means, in a thread if they are many, so that the event loop does not wait."""
    if means.size <= _FEW_VALUES:
        return compute(means, *values)
    return await asyncio.to_thread(compute, means, *values)


def convert(rows: NDArray[np.uint8] | Float32s, dtype: Dtype, value_range: tuple[float, float]) -> NDArray[Any]:
    """Convert rows between bytes, 0 to 255, and floats in a value range, as workers do; equal types are kept."""
    if rows.dtype == dtype.numpy:
        return rows
    low, high = (np.float32(end) for end in value_range)
    levels = np.float32(255)
    if dtype is Dtype.FLOAT32:
        return np.asarray(low + (high - low) * (rows.astype(np.float32) / levels), np.float32)
    return np.asarray(np.clip(np.rint(levels * (rows - low) / (high - low)), 0, levels), np.uint8)
