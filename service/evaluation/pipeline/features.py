"""Images through the extractor and the classifier: features, and probabilities in the data set's order of classes."""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from service.evaluation.pipeline.files import Arrays
from service.evaluation.pipeline.reporter import Failed
from service.evaluation.pipeline.retry import Patience
from service.evaluation.specification import Specification
from service.evaluation.workers import Workers

__all__ = ["Reader"]


class Reader:
    """Reads images for one evaluation.

    Args:
        specification: names the models.
        workers: they run on.
        patience: with them.
    """

    def __init__(self, specification: Specification, workers: Workers, patience: Patience) -> None:
        self._specification, self._workers, self._patience = specification, workers, patience

    async def read(self, images: NDArray[np.uint8]) -> Arrays:
        """Features and probabilities, both calls at once.

        Args:
            images: (n, H, W, C).

        Returns:
            features (n, d) float32, probabilities (n, classes) float32; NaN where a worker failed.
        """
        both = [asyncio.ensure_future(self._embed(images)), asyncio.ensure_future(self.classify(images))]
        try:
            return {"features": await both[0], "probabilities": await both[1]}
        finally:
            for each in both:
                each.cancel()
            await asyncio.wait(both)

    async def _embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        extractor = self._specification.extractor
        return await self._patience.ask(extractor.name, lambda: self._workers.embed(extractor, images))

    async def classify(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities alone: (n, classes) float32."""
        classifier, labels = self._specification.classifier, list(self._specification.classifier_labels)
        read = await self._patience.ask(classifier.name, lambda: self._workers.classify(classifier, images))
        if read.shape[1] <= max(labels):
            raise Failed(f"{classifier.name} gives {read.shape[1]} probabilities, and label {max(labels)} was wanted")
        ordered: NDArray[np.float32] = np.ascontiguousarray(read[:, labels])  # (n, its labels) -> (n, classes)
        if read.shape[1] == len(labels):
            return ordered
        total = ordered.sum(axis=1, keepdims=True)  # of the classes that the data set has
        with np.errstate(invalid="ignore", divide="ignore"):
            whole: NDArray[np.float32] = ordered / total
        return whole
