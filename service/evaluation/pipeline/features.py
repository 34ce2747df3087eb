"""Images through the extractor and the classifier of an evaluation, and the retry policy for its calls to workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fount.retry import RetryPolicy
from service.errors import NotReady, Overloaded, Retired, UnknownName, WorkerFault
from service.evaluation.pipeline.files import Arrays
from service.evaluation.pipeline.reporter import Failed
from service.evaluation.specification import Specification
from service.evaluation.workers import Workers

__all__ = ["MAX_WAIT_S", "ImageReader", "WorkerRetry"]

MAX_WAIT_S = 600.0
"""How long an evaluation waits for workers without any progress."""

_BACKOFF = RetryPolicy(base_s=0.5, cap_s=5.0)

T = TypeVar("T")


class WorkerRetry:
    """Repeats calls to workers that are absent or overloaded: with backoff, until they answer or the time is over.

    Args:
        report_wait: receives what the evaluation waits for before each repetition, and "" once it goes on. It may raise
            to stop waiting.
        max_wait_s: how long to repeat one call.
    """

    def __init__(self, report_wait: Callable[[str], Awaitable[None]], max_wait_s: float = MAX_WAIT_S) -> None:
        self._report_wait, self._max_wait_s = report_wait, max_wait_s

    async def call(self, model: str, call: Callable[[], Awaitable[T]]) -> T:
        """Call the workers of a model.

        Raises:
            Failed: they did not return in time, or repeating cannot help.
        """
        start_s, failures = time.monotonic(), 0
        while True:
            try:
                result = await call()
            except (Retired, UnknownName, WorkerFault) as error:
                raise Failed(f"{model}: {error}") from error
            except (NotReady, Overloaded) as error:
                if time.monotonic() - start_s > self._max_wait_s:
                    raise Failed(f"workers of {model} did not return within {self._max_wait_s / 60:.0f} minutes "
                                 f"({error}); evaluate again when they are ready") from error  # fmt: skip
                failures += 1
                requested_s = error.retry_after_s if isinstance(error, Overloaded) else 0.0
            else:
                if failures:
                    await self._report_wait("")
                return result
            await self._report_wait(f"waits for workers of {model}")
            await asyncio.sleep(min(_BACKOFF.cap_s, max(_BACKOFF.delay_s(failures), requested_s)))


class ImageReader:
    """Turns images into features and class probabilities."""

    def __init__(self, specification: Specification, workers: Workers, retry: WorkerRetry) -> None:
        self._specification, self._workers, self._retry = specification, workers, retry

    async def read(self, images: NDArray[np.uint8]) -> Arrays:
        """Embed and classify images (n, H, W, C), concurrently.

        Returns:
            features (n, d) float32, probabilities (n, classes) float32; NaN where a worker failed.
        """
        calls = [asyncio.ensure_future(self._embed(images)), asyncio.ensure_future(self.classify(images))]
        try:
            return {"features": await calls[0], "probabilities": await calls[1]}
        finally:
            for each in calls:
                each.cancel()
            await asyncio.wait(calls)

    async def classify(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities of the data set's classes, in its order: (n, classes) float32."""
        classifier, labels = self._specification.classifier, list(self._specification.classifier_labels)
        found = await self._retry.call(classifier.name, lambda: self._workers.classify(classifier, images))
        if found.shape[1] <= max(labels):
            raise Failed(f"{classifier.name} returned {found.shape[1]} probabilities, too few for label {max(labels)}")
        probabilities: NDArray[np.float32] = np.ascontiguousarray(found[:, labels])  # (n, labels) -> (n, classes)
        if found.shape[1] == len(labels):
            return probabilities
        with np.errstate(invalid="ignore", divide="ignore"):  # the model has more classes than the data set
            normalised: NDArray[np.float32] = probabilities / probabilities.sum(axis=1, keepdims=True)
        return normalised

    async def _embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        extractor = self._specification.extractor
        return await self._retry.call(extractor.name, lambda: self._workers.embed(extractor, images))
