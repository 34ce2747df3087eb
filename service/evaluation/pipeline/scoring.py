"""The scoring stage: what the generator's own log-likelihood says of held-out rows and of as many training rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import LogLikelihoods, RealRows
from service.evaluation.panels.parts import random_generator
from service.evaluation.pipeline.features import WorkerRetry
from service.evaluation.pipeline.files import Arrays, StepFiles
from service.evaluation.pipeline.sampling import chunk_rows, chunks
from service.evaluation.specification import Specification
from service.evaluation.workers import Workers

__all__ = ["ScoringStage"]


class ScoringStage:
    """The scores of one evaluation's real rows.

    Args:
        specification: of the evaluation.
        workers, retry: score the rows.
        files: where results are left.

    Attributes:
        chunks: of the rows of either split; the last ones may be empty, since rows are left out.
    """

    def __init__(self, specification: Specification, *, workers: Workers, retry: WorkerRetry, files: StepFiles) -> None:
        self._specification, self._files = specification, files
        self._workers, self._retry = workers, retry
        rows = min(specification.held_out_rows, specification.score_rows)
        self.chunks = chunks(rows, chunk_rows(specification.image_shape))

    async def score(self, number: int, held_out: RealRows, training: RealRows) -> Arrays:
        """Score one chunk of both: held_out (n,) and training (n,) float32, NaN where a worker failed."""

        async def make() -> Arrays:
            chunk = self.chunks[number]
            of_held_out = self._choose("scores of held-out rows", held_out, self._specification.score_rows)
            of_training = self._choose("scores", training, len(of_held_out))
            first = self._specification.held_out_rows + chunk.start  # whose noise is that of no held-out row
            return {
                "held_out": await self._score(held_out, of_held_out[chunk], chunk.start),
                "training": await self._score(training, of_training[chunk], first),
            }

        return await self._files.arrays(f"score-{number:05d}", make)

    async def log_likelihoods(self, held_out: RealRows, training: RealRows) -> LogLikelihoods:
        """Return all scores, without rows that failed."""
        parts = [await self.score(number, held_out, training) for number in range(len(self.chunks))]
        scores = {name: np.concatenate([each[name] for each in parts]) for name in ("training", "held_out")}
        finite = {name: each[np.isfinite(each)].astype(np.float64) for name, each in scores.items()}
        return LogLikelihoods(name=self._specification.score, **finite)

    def _choose(self, purpose: str, rows: RealRows, count: int) -> NDArray[np.int64]:
        """Choose that many rows, or all if there are fewer; ascending."""
        random = random_generator(self._specification.seed, purpose)
        return np.sort(random.choice(len(rows), min(count, len(rows)), replace=False))

    async def _score(self, rows: RealRows, chosen: NDArray[np.int64], first: int) -> NDArray[np.float32]:
        spec = self._specification
        if not len(chosen):
            return np.zeros(0, np.float32)
        labels = np.asarray(spec.model_labels, np.uint32)[rows.labels[chosen]] if spec.conditional else None
        scores = await self._retry.call(
            spec.model.name,
            lambda: self._workers.score(
                spec.model, rows.images[chosen], seed=spec.seed, start_index=first, labels=labels
            ),
        )
        return np.ascontiguousarray(scores[:, 0])
