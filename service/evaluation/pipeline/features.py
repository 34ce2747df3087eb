"""Images through the extractor and the classifier: features, and probabilities in the data set's order of classes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.errors import NotReady, Overloaded, Retired, TooLate, UnknownName, WorkerFault
from service.evaluation.pipeline.files import Arrays
from service.evaluation.pipeline.reporter import Failed
from service.evaluation.specification import Specification
from service.evaluation.workers import Workers

__all__ = ["MOST_WAIT_S", "Patience", "Reader"]


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


# FOLDED FROM service.evaluation.pipeline.features:
# Workers that come and go: asked again until they answer, or until it takes too long.


MOST_WAIT_S = 600.0
"""How long an evaluation waits for workers without getting any further."""

_FIRST_S, _MOST_S = 0.5, 5.0

T = TypeVar("T")


class Patience:
    """Asks workers, again and again where that may help.

    Args:
        waiting: told what it waits for before each new attempt, and "" once it goes on; it may raise to stop waiting.
        most_wait_s: how long without an answer.
    """

    def __init__(self, waiting: Callable[[str], Awaitable[None]], most_wait_s: float = MOST_WAIT_S) -> None:
        self._waiting, self._most_wait_s = waiting, most_wait_s

    async def ask(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """What the workers of a model answer.

        Raises:
            Failed: they do not come back, or never will.
        """
        began, pause, waited = time.monotonic(), _FIRST_S, False
        while True:
            try:
                answer = await call()
            except (Retired, UnknownName, WorkerFault) as error:
                raise Failed(f"{name}: {error}") from error
            except (NotReady, Overloaded, TooLate) as error:
                if time.monotonic() - began > self._most_wait_s:
                    told = f"waited {self._most_wait_s / 60:.0f} minutes for workers of {name} in vain ({error}); "
                    raise Failed(f"{told}ask again when they are ready") from error
                asked_s = error.retry_after_s if isinstance(error, Overloaded) else 0.0
            else:
                if waited:
                    await self._waiting("")
                return answer
            waited = True
            await self._waiting(f"waits for workers of {name}")
            await asyncio.sleep(min(_MOST_S, max(pause, asked_s)))
            pause = min(_MOST_S, pause * 1.5)
