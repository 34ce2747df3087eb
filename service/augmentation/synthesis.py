"""Synthesised rows: attempt after attempt, until the filters let one through.

Rows to make enter; for each leaves its first sample that a classifier reads as its label and that is no copy of a
training row, or none. Attempt a of row i is the ordinary sample i of seed s_a, which the plan's seed and a alone
decide; so rows never depend on each other, and whoever knows (s_a, i) can draw the sample again by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import numpy as np
from google.rpc import code_pb2
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from service.augmentation.copy_filter import CopyFilter
from service.augmentation.open_plan import OpenPlan, Pinned
from service.domain import Failure, Labels
from service.errors import NotReady, TooLate
from service.scheduler.inference import DrawnSamples, InferenceClient, RequestContext

__all__ = ["Synthesised", "Synthesiser", "attempt_seed"]

_PASSING = {
    code_pb2.DEADLINE_EXCEEDED: TooLate,
    code_pb2.UNAVAILABLE: NotReady,
    code_pb2.RESOURCE_EXHAUSTED: NotReady,
    code_pb2.CANCELLED: NotReady,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Synthesised:
    """Rows of a generator, a column a fact.

    Attributes:
        images: (n, H, W, C) uint8, zero where no attempt was accepted.
        accepted: (n,) bool.
        attempts: (n,) uint32, how many samples were refused.
        seeds: (n,) uint64, of the sample accepted, or of the last one refused.
        confidences: (n,) float32, of that same sample; NaN where the classifier was not asked.
        copy_ratios: (n,) float32, likewise; NaN where it was not compared.
    """

    images: NDArray[np.uint8]
    accepted: NDArray[np.bool_]
    attempts: NDArray[np.uint32]
    seeds: NDArray[np.uint64]
    confidences: NDArray[np.float32]
    copy_ratios: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tried:
    """One attempt of some rows: which passed, and what the filters read."""

    images: NDArray[np.uint8]
    passed: NDArray[np.bool_]
    confidences: NDArray[np.float32]
    copy_ratios: NDArray[np.float32]


def attempt_seed(seed: int, attempt: int) -> int:
    """The seed that attempt `attempt` of every row of a plan is drawn with."""
    low, high = Addresses.of_range(seed, attempt, 1).words(Stream.ATTEMPT, 2)[0].tolist()
    return int(low | high << 32)


class Synthesiser:
    """Makes the synthesised rows of one plan.

    Args:
        plan: with a generator.
        copies: refuses copies; None: nothing does.
        inference: classifies, embeds, transforms and samples on workers.
    """

    def __init__(self, plan: OpenPlan, copies: CopyFilter | None, inference: InferenceClient) -> None:
        if plan.generator is None:
            raise ValueError("the plan has no generator")
        self._generator: Pinned = plan.generator
        self._plan = plan
        self._copies = copies
        self._inference = inference
        self._seeds = [attempt_seed(plan.seed, attempt) for attempt in range(plan.attempts)]

    async def rows(self, indices: NDArray[np.uint64], labels: Labels, context: RequestContext) -> Synthesised:
        """Make rows.

        Args:
            indices: (n,) rows of the plan.
            labels: (n,) their classes, as the data set numbers them.
            context: on whose behalf.

        Raises:
            NotReady: the workers are gone; also whatever else `InferenceClient` raises.
            DataError: a training row cannot be read.
        """
        made = _nothing(len(indices), self._plan.dataset.shape)
        left = np.arange(len(indices))
        for seed in self._seeds:
            tried = await self._try(seed, indices[left], labels[left], context)
            made.seeds[left], made.accepted[left] = seed, tried.passed
            made.confidences[left], made.copy_ratios[left] = tried.confidences, tried.copy_ratios
            made.images[left[tried.passed]] = tried.images[tried.passed]
            left = left[~tried.passed]
            made.attempts[left] += 1
            context = replace(context, retry_overloaded=True)  # what has begun waits its turn
            if not len(left):
                break
        return made

    async def _try(self, seed: int, indices: NDArray[np.uint64], labels: Labels, context: RequestContext) -> _Tried:
        """Draw one sample for each row, and let the filters look at those that came out."""
        drawn, context = await self._draw(seed, indices, labels, context), replace(context, retry_overloaded=True)
        passed = np.ones(len(indices), np.bool_)
        passed[list(drawn.failures)] = False
        confidences = np.full(len(indices), np.nan, np.float32)
        copy_ratios = np.full(len(indices), np.nan, np.float32)
        rows = np.flatnonzero(passed)
        if len(rows) and self._plan.classifier and self._plan.min_confidence > 0:
            confidences[rows] = await self._confidences(
                self._plan.classifier, drawn.images[rows], labels[rows], context
            )
            passed[rows] = confidences[rows] >= self._plan.min_confidence  # NaN, which a failed row has, is not
            rows = np.flatnonzero(passed)
        if len(rows) and self._copies and self._plan.copy_threshold > 0:
            ratios = await asyncio.to_thread(self._copies.ratios, drawn.images[rows], labels[rows])
            copy_ratios[rows] = ratios
            passed[rows] = ~(ratios < self._plan.copy_threshold)  # NaN: the class has too few rows to have a filter
        return _Tried(images=drawn.images, passed=passed, confidences=confidences, copy_ratios=copy_ratios)

    async def _draw(
        self, seed: int, indices: NDArray[np.uint64], labels: Labels, context: RequestContext
    ) -> DrawnSamples:
        drawn = await self._inference.sample(
            self._generator.target,
            self._generator.model,
            seed=seed,
            indices=indices,
            labels=self._plan.generator_labels[labels],
            parameters=self._plan.parameters,
            context=context,
        )
        for failure in drawn.failures.values():
            _raise_passing(failure)
        return drawn

    async def _confidences(
        self, classifier: Pinned, images: NDArray[np.uint8], labels: Labels, context: RequestContext
    ) -> NDArray[np.float32]:
        """The probability of each image's own label: (n,)."""
        probabilities = await self._inference.classify(classifier.target, classifier.model, images, context)
        return probabilities[np.arange(len(labels)), self._plan.classifier_labels[labels]]


def _nothing(count: int, shape: tuple[int, int, int]) -> Synthesised:
    return Synthesised(
        images=np.zeros((count, *shape), np.uint8),
        accepted=np.zeros(count, np.bool_),
        attempts=np.zeros(count, np.uint32),
        seeds=np.zeros(count, np.uint64),
        confidences=np.full(count, np.nan, np.float32),
        copy_ratios=np.full(count, np.nan, np.float32),
    )


def _raise_passing(failure: Failure) -> None:
    """End the stream for what another time would not be: counted as a refusal, it would make the row another one."""
    if failure.code in _PASSING:
        raise _PASSING[failure.code](failure.message)
