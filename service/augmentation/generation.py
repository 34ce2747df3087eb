"""Generate rows by models: draw one image after another for each row, until the filters accept one.

Rows to make enter, with the rows of the data set that they are made from; for each leaves its first image that a
classifier reads as its label, or none. A synthesised row is a sample, and must be no copy of a training row either; a
translated row is what a model translates its source row to, and a reconstructed one what a model decodes of the source
row's latent. Those are made from a training row, and near it, so they are not compared. Attempt a of row i is what the
model draws at index i of seed s_a, which depends on the plan's seed and a alone; so rows never depend on each other,
and anyone who knows (s_a, i) can draw the image again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from service.augmentation.copy_filter import CopyFilter, PixelCache
from service.augmentation.plan_spec import GenerationSpec, OpenPlan
from service.augmentation.slots import Source
from service.calls import FailureCode, Labels
from service.catalog import PinnedModel
from service.datasets import unreadable_errors
from service.domain import Dtype, Parameters
from service.errors import FountServiceError, NotReady, TooLate
from service.latent.tasks import Batch, Results, WorkerAccess
from service.scheduler.inference import InferenceClient
from service.scheduler.work import RequestContext
from service.threads import run_in_thread

__all__ = ["GeneratedRows", "RowGenerator", "RowsToMake", "attempt_seed"]

_TRANSIENT: dict[int, type[FountServiceError]] = {
    FailureCode.DEADLINE_EXCEEDED: TooLate,
    FailureCode.UNAVAILABLE: NotReady,
    FailureCode.RESOURCE_EXHAUSTED: NotReady,
    FailureCode.CANCELLED: NotReady,
}
"""Failures that would not happen another time. Counted as a rejection, one would change the bytes of the row."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedRows:
    """Generated rows, one column for each fact.

    Attributes:
        images: (n, H, W, C) uint8, zero where no attempt was accepted.
        accepted: (n,) bool.
        attempts: (n,) uint32, number of images rejected.
        seeds: (n,) uint64, of the accepted image, or of the last one rejected.
        confidences: (n,) float32, of that same image; NaN where it was not classified.
        copy_ratios: (n,) float32, of that same image; NaN where it was not compared.
    """

    images: NDArray[np.uint8]
    accepted: NDArray[np.bool_]
    attempts: NDArray[np.uint32]
    seeds: NDArray[np.uint64]
    confidences: NDArray[np.float32]
    copy_ratios: NDArray[np.float32]


def attempt_seed(seed: int, attempt: int) -> int:
    """Return the seed that attempt `attempt` of every row of a plan is drawn with."""
    low, high = Addresses.of_range(seed, attempt, 1).words(Stream.ATTEMPT, 2)[0].tolist()
    return int(low | high << 32)


@dataclass(frozen=True, kw_only=True, eq=False)
class RowsToMake:
    """The rows that an attempt draws images for.

    Attributes:
        indices: (n,) uint64, rows of the plan.
        labels: (n,) their classes, as the data set numbers them.
        images: (n, H, W, C) uint8, the rows of the data set that they are made from; zero for synthesised ones.
    """

    indices: NDArray[np.uint64]
    labels: Labels
    images: NDArray[np.uint8]

    def take(self, rows: NDArray[np.intp]) -> RowsToMake:
        """Choose rows."""
        return RowsToMake(indices=self.indices[rows], labels=self.labels[rows], images=self.images[rows])


class RowGenerator:
    """Makes the rows of one plan and one source of generated rows; copy filters of all plans share a cache."""

    def __init__(self, plan: OpenPlan, spec: GenerationSpec, cache: PixelCache, inference: InferenceClient) -> None:
        self._plan, self._spec, self._inference = plan, spec, inference
        self._copies = CopyFilter(plan.spec.split, cache, plan.spec.dataset.digest)
        self._copy_threshold = plan.copy_threshold if spec.source is Source.SYNTHESISED else None
        self._seeds = [attempt_seed(plan.spec.seed, attempt) for attempt in range(spec.attempts)]

    async def rows(self, to_make: RowsToMake, context: RequestContext) -> GeneratedRows:
        """Make rows.

        Raises:
            NotReady: no worker is ready; also whatever else `InferenceClient` raises.
            DatasetUnreadable: a training row cannot be read.
        """
        count = len(to_make.indices)
        made = GeneratedRows(
            images=np.zeros((count, *self._plan.spec.dataset.shape), np.uint8),
            accepted=np.zeros(count, np.bool_),
            attempts=np.zeros(count, np.uint32),
            seeds=np.zeros(count, np.uint64),
            confidences=np.full(count, np.nan, np.float32),
            copy_ratios=np.full(count, np.nan, np.float32),
        )
        rows = np.arange(count)
        for seed in self._seeds:
            await self._attempt(seed, rows, to_make.take(rows), context, made)
            rows = rows[~made.accepted[rows]]
            made.attempts[rows] += 1
            context = replace(context, retry_overloaded=True)  # work that has started waits for capacity
            if not len(rows):
                break
        return made

    async def draws_nothing(self, to_make: RowsToMake, context: RequestContext) -> bool:
        """Return whether a second attempt repeats the first, since the model gives these rows the same images again."""
        (first, failed), (second, failed_again) = [
            await self._draw(attempt_seed(self._plan.spec.seed, attempt), to_make, context) for attempt in range(2)
        ]
        return not failed and not failed_again and bool(np.array_equal(first, second))

    async def _attempt(
        self, seed: int, rows: NDArray[np.intp], to_make: RowsToMake, context: RequestContext, made: GeneratedRows
    ) -> None:
        """Draw one image for each of some rows, apply the filters, and write the outcome to `made`."""
        images, failures = await self._draw(seed, to_make, context)
        context = replace(context, retry_overloaded=True)
        passed = np.ones(len(rows), np.bool_)
        passed[list(failures)] = False
        confidences, copy_ratios = (np.full(len(rows), np.nan, np.float32) for _ in range(2))
        left = np.flatnonzero(passed)
        if len(left) and (classifier := self._spec.classifier):
            confidences[left] = await self._confidences(classifier, images[left], to_make.labels[left], context)
            passed[left] = confidences[left] >= self._spec.min_confidence  # False for NaN: the worker failed
            left = np.flatnonzero(passed)
        if len(left) and self._copy_threshold:
            with unreadable_errors(self._plan.spec.dataset.name, self._plan.spec.dataset.path):
                ratios = await run_in_thread(self._copies.ratios, images[left], to_make.labels[left])
            copy_ratios[left] = ratios
            passed[left] = ~(ratios < self._copy_threshold)  # True for NaN: the class has too few rows to filter
        made.seeds[rows], made.accepted[rows] = seed, passed
        made.confidences[rows], made.copy_ratios[rows] = confidences, copy_ratios
        made.images[rows[passed]] = images[passed]

    async def _draw(self, seed: int, to_make: RowsToMake, context: RequestContext) -> Results:
        """Have the model draw an image for each row: (n, H, W, C) uint8, and the failures by row."""
        spec, target, model = self._spec, self._spec.model.target, self._spec.model.model
        labels = None if spec.labels is None else spec.labels[to_make.labels]
        if isinstance(spec.draw, Parameters):
            images, failures = await self._inference.sample(
                target,
                model,
                seed=seed,
                indices=to_make.indices,
                labels=labels,
                parameters=spec.draw,
                context=context,
            )
        else:
            workers = WorkerAccess(
                inference=self._inference, target=target, model=model, seed=seed, dtype=Dtype.UINT8, context=context
            )
            images, failures = await spec.draw.run(Batch.of_rows(to_make.images, labels, to_make.indices), workers)
        for failure in failures.values():
            if failure.code in _TRANSIENT:
                raise _TRANSIENT[failure.code](failure.message)
        return images, failures

    async def _confidences(
        self, classifier: PinnedModel, images: NDArray[np.uint8], labels: Labels, context: RequestContext
    ) -> NDArray[np.float32]:
        """Return the probability of each image's own label: (n,)."""
        probabilities = await self._inference.classify(classifier.target, classifier.model, images, context)
        return probabilities[np.arange(len(labels)), self._spec.classifier_labels[labels]]
