"""Synthesise rows: draw one sample after another for each row, until the filters accept one.

Rows to make enter; for each leaves its first sample that a classifier reads as its label and that is no copy of a
training row, or none. Attempt a of row i is the ordinary sample i of seed s_a, which depends on the plan's seed and a
alone; so rows never depend on each other, and anyone who knows (s_a, i) can draw the sample again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from service.augmentation.copy_filter import CopyFilter, PixelCache
from service.augmentation.plan_spec import OpenPlan
from service.calls import Failure, FailureCode, Labels
from service.catalog import PinnedModel
from service.datasets import unreadable_errors
from service.errors import FountServiceError, NotReady, TooLate
from service.scheduler.inference import InferenceClient
from service.scheduler.work import RequestContext
from service.threads import run_in_thread

__all__ = ["SynthesisedRows", "Synthesiser", "attempt_seed"]

_TRANSIENT: dict[int, type[FountServiceError]] = {
    FailureCode.DEADLINE_EXCEEDED: TooLate,
    FailureCode.UNAVAILABLE: NotReady,
    FailureCode.RESOURCE_EXHAUSTED: NotReady,
    FailureCode.CANCELLED: NotReady,
}
"""Failures that would not happen another time. Counted as a rejection, one would change the bytes of the row."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesisedRows:
    """Synthesised rows, one column for each fact.

    Attributes:
        images: (n, H, W, C) uint8, zero where no attempt was accepted.
        accepted: (n,) bool.
        attempts: (n,) uint32, number of samples rejected.
        seeds: (n,) uint64, of the accepted sample, or of the last one rejected.
        confidences: (n,) float32, of that same sample; NaN where it was not classified.
        copy_ratios: (n,) float32, of that same sample; NaN where it was not compared.
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


class Synthesiser:
    """Makes the synthesised rows of one plan, which has a generator; filters of all plans share a cache."""

    def __init__(self, plan: OpenPlan, cache: PixelCache, inference: InferenceClient) -> None:
        if plan.synthesis is None:
            raise ValueError("the plan has no generator")
        self._plan, self._synthesis = plan, plan.synthesis
        self._copies = CopyFilter(plan.spec.split, cache, plan.spec.dataset.digest)
        self._inference = inference
        self._seeds = [attempt_seed(plan.spec.seed, attempt) for attempt in range(plan.synthesis.attempts)]

    async def rows(self, indices: NDArray[np.uint64], labels: Labels, context: RequestContext) -> SynthesisedRows:
        """Make rows.

        Args:
            indices: (n,) rows of the plan.
            labels: (n,) their classes, as the data set numbers them.
            context: of the request.

        Raises:
            NotReady: no worker is ready; also whatever else `InferenceClient` raises.
            DatasetUnreadable: a training row cannot be read.
        """
        count = len(indices)
        made = SynthesisedRows(
            images=np.zeros((count, *self._plan.spec.dataset.shape), np.uint8),
            accepted=np.zeros(count, np.bool_),
            attempts=np.zeros(count, np.uint32),
            seeds=np.zeros(count, np.uint64),
            confidences=np.full(count, np.nan, np.float32),
            copy_ratios=np.full(count, np.nan, np.float32),
        )
        rows = np.arange(count)
        for seed in self._seeds:
            await self._attempt(seed, rows, indices, labels, context, made)
            rows = rows[~made.accepted[rows]]
            made.attempts[rows] += 1
            context = replace(context, retry_overloaded=True)  # work that has started waits for capacity
            if not len(rows):
                break
        return made

    async def _attempt(
        self,
        seed: int,
        rows: NDArray[np.intp],
        indices: NDArray[np.uint64],
        labels: Labels,
        context: RequestContext,
        made: SynthesisedRows,
    ) -> None:
        """Draw one sample for each of some rows, apply the filters, and write the outcome to `made`."""
        images, failures = await self._draw(seed, indices[rows], labels[rows], context)
        context = replace(context, retry_overloaded=True)
        passed = np.ones(len(rows), np.bool_)
        passed[list(failures)] = False
        confidences, copy_ratios = (np.full(len(rows), np.nan, np.float32) for _ in range(2))
        left = np.flatnonzero(passed)
        classifier = self._synthesis.classifier
        if len(left) and classifier and self._synthesis.min_confidence > 0:
            confidences[left] = await self._confidences(classifier, images[left], labels[rows[left]], context)
            passed[left] = confidences[left] >= self._synthesis.min_confidence  # False for NaN: the worker failed
            left = np.flatnonzero(passed)
        if len(left) and self._plan.copy_threshold:
            with unreadable_errors(self._plan.spec.dataset.name, self._plan.spec.dataset.path):
                ratios = await run_in_thread(self._copies.ratios, images[left], labels[rows[left]])
            copy_ratios[left] = ratios
            passed[left] = ~(ratios < self._plan.copy_threshold)  # True for NaN: the class has too few rows to filter
        made.seeds[rows], made.accepted[rows] = seed, passed
        made.confidences[rows], made.copy_ratios[rows] = confidences, copy_ratios
        made.images[rows[passed]] = images[passed]

    async def _draw(
        self, seed: int, indices: NDArray[np.uint64], labels: Labels, context: RequestContext
    ) -> tuple[NDArray[np.uint8], dict[int, Failure]]:
        images, failures = await self._inference.sample(
            self._synthesis.generator.target,
            self._synthesis.generator.model,
            seed=seed,
            indices=indices,
            labels=self._synthesis.generator_labels[labels],
            parameters=self._synthesis.parameters,
            context=context,
        )
        for failure in failures.values():
            if failure.code in _TRANSIENT:
                raise _TRANSIENT[failure.code](failure.message)
        return images, failures

    async def _confidences(
        self, classifier: PinnedModel, images: NDArray[np.uint8], labels: Labels, context: RequestContext
    ) -> NDArray[np.float32]:
        """Return the probability of each image's own label: (n,)."""
        probabilities = await self._inference.classify(classifier.target, classifier.model, images, context)
        return probabilities[np.arange(len(labels)), self._synthesis.classifier_labels[labels]]
