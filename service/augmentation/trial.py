"""Try the models that generate rows of a plan: what the filters will accept of them, and after how many draws.

An open plan enters; a `Trial` of each source leaves, drawn at the plan's own addresses, so that equal plans have equal
trials. A sample's attempts are independent, so one of each row tells what all will do. Attempts at a translation or a
reconstruction are all made from one row, and are rejected together where that row is odd; so they are all drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.augmentation.copy_filter import PixelCache
from service.augmentation.generation import RowGenerator, RowsToMake
from service.augmentation.permutation import Permutation
from service.augmentation.plan_spec import GenerationSpec, OpenPlan
from service.augmentation.slots import Source
from service.calls import Labels
from service.datasets import unreadable_errors
from service.scheduler.inference import InferenceClient
from service.scheduler.work import RequestContext
from service.threads import run_in_thread

__all__ = ["Trial", "expected_attempts", "try_models"]

_ROWS, _FEWEST_OF_CLASS, _MOST_CLASSES = 128, 4, 32  # of a trial
_FEW = 16  # rows that are drawn again to see whether the model draws anything
_MOST_ATTEMPTS = 8  # that are drawn of a row; what more of them would do is not estimated

Float64s = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """Results of a few rows of one source, by class.

    Attributes:
        spec: how its rows are generated; with one attempt where the model draws nothing.
        rows: how many the plan has.
        labels: (k,) the classes tried.
        accepted: (k,) share of first attempts that passed every filter.
        confidences: (k,) mean probability of the class in first attempts; NaN where none was classified.
        rejected: (k,) share of rows for which no attempt is accepted.
        expected_attempts: images drawn for one row, over all rows of the source.
        expected_rejected: slots for which no image is accepted.
    """

    spec: GenerationSpec
    rows: int
    labels: NDArray[np.int64]
    accepted: Float64s
    confidences: Float64s
    rejected: Float64s
    expected_attempts: float
    expected_rejected: float


async def try_models(
    plan: OpenPlan, cache: PixelCache, inference: InferenceClient, context: RequestContext
) -> tuple[Trial, ...]:
    """Try the model of every source that models generate.

    Raises:
        DatasetUnreadable: a row cannot be read. Also whatever `InferenceClient` raises.
    """
    trials = []
    for spec in plan.generation.values():
        trials.append(await _Trier(plan, cache, inference, context).run(spec))
        context = replace(context, retry_overloaded=True)  # work that has started waits for capacity
    return tuple(trials)


def expected_attempts(trials: Sequence[Trial]) -> float:
    """Return the images drawn for one row, over all rows that models generate."""
    return float(np.average([each.expected_attempts for each in trials], weights=[each.rows for each in trials]))


class _Trier:
    """Tries the models of one plan; arguments as `try_models`."""

    def __init__(self, plan: OpenPlan, cache: PixelCache, inference: InferenceClient, context: RequestContext) -> None:
        self._plan, self._cache, self._inference, self._context = plan, cache, inference, context

    async def run(self, spec: GenerationSpec) -> Trial:
        """Try rows of every class of a source, or of the largest where there are many."""
        counts = Counter[int]()
        for stratum in self._plan.layout.strata:
            counts[stratum.label] += stratum.count if stratum.source is spec.source else 0
        tried = sorted(sorted(+counts, key=lambda label: -counts[label])[:_MOST_CLASSES])
        each = max(_FEWEST_OF_CLASS, _ROWS // len(tried))
        to_make = await self._choose_rows(spec, np.repeat(np.array(tried, np.uint32), each))
        made = await self._generator(spec, 1).rows(to_make, self._context)
        self._context = replace(self._context, retry_overloaded=True)
        accepted = made.accepted.reshape(len(tried), each).mean(axis=1)
        if spec.source is Source.SYNTHESISED:
            rejected, attempts = _independent_attempts(accepted, spec.attempts)
        else:
            spec = await self._limit_attempts(spec, to_make)
            failed, drawn = await self._try_again(spec, to_make, made.accepted)
            rejected, attempts = (values.reshape(len(tried), each).mean(axis=1) for values in (failed, drawn))
        weights = np.array([counts[label] for label in tried], np.float64)
        scale = counts.total() / weights.sum()  # classes not tried are assumed to be like those tried
        return Trial(
            spec=spec,
            rows=counts.total(),
            labels=np.array(tried, np.int64),
            accepted=accepted,
            confidences=made.confidences.astype(np.float64).reshape(len(tried), each).mean(axis=1),
            rejected=rejected,
            expected_attempts=float(np.average(attempts, weights=weights)),
            expected_rejected=float((rejected * weights).sum() * scale),
        )

    async def _limit_attempts(self, spec: GenerationSpec, to_make: RowsToMake) -> GenerationSpec:
        """Leave one attempt to a model that draws nothing, since another would repeat it."""
        few = to_make.take(np.arange(0, len(to_make.labels), max(1, len(to_make.labels) // _FEW)))
        if spec.attempts > 1 and await self._generator(spec, 1).draws_nothing(few, self._context):
            return replace(spec, attempts=1)
        return spec

    async def _try_again(
        self, spec: GenerationSpec, to_make: RowsToMake, accepted: NDArray[np.bool_]
    ) -> tuple[Float64s, Float64s]:
        """Draw all attempts of rows whose first was rejected: (n,) 1 for a rejected row, and the images drawn of it."""
        failed, drawn = (~accepted).astype(np.float64), np.ones(len(accepted))
        attempts, rows = min(spec.attempts, _MOST_ATTEMPTS), np.flatnonzero(~accepted)
        if attempts > 1 and len(rows):
            made = await self._generator(spec, attempts).rows(to_make.take(rows), self._context)
            failed[rows] = ~made.accepted
            drawn[rows] = made.attempts + made.accepted
        drawn[failed > 0] = spec.attempts
        return failed, drawn

    def _generator(self, spec: GenerationSpec, attempts: int) -> RowGenerator:
        return RowGenerator(self._plan, replace(spec, attempts=attempts), self._cache, self._inference)

    async def _choose_rows(self, spec: GenerationSpec, labels: Labels) -> RowsToMake:
        """Choose rows of the data set of each label, as the seed shuffles them, that the first rows are made from."""
        split, indices = self._plan.spec.split, np.arange(len(labels), dtype=np.uint64)
        if spec.source is Source.SYNTHESISED:
            return RowsToMake(indices=indices, labels=labels, images=np.zeros((len(labels), *split.shape), np.uint8))
        chosen = np.empty(len(labels), np.int64)
        for label in np.unique(labels).tolist():
            of_class, places = np.flatnonzero(split.labels == label), np.flatnonzero(labels == label)
            numbers = np.arange(len(places), dtype=np.uint64) % len(of_class)
            chosen[places] = of_class[Permutation(self._plan.spec.seed, len(of_class)).slots(numbers)]
        with unreadable_errors(self._plan.spec.dataset.name, self._plan.spec.dataset.path):
            images = await run_in_thread(split.images, chosen)
        return RowsToMake(indices=indices, labels=labels, images=images)


def _independent_attempts(accepted: Float64s, most: int) -> tuple[Float64s, Float64s]:
    """Compute the share rejected, (1-p)^A, and the expected attempts, (1 - (1-p)^A) / p, where each passes with p."""
    rejected = (1 - accepted) ** most
    with np.errstate(invalid="ignore"):
        return rejected, np.where(accepted > 0, (1 - rejected) / accepted, float(most))
