"""The sampling stage: the generator's samples, chunk by chunk, drawn and read; and the same noise under every label.

Chunk boundaries are part of what a result depends on, so they follow from the specification alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import LabelGrid, Samples
from service.evaluation.pipeline.features import ImageReader, WorkerRetry
from service.evaluation.pipeline.files import Arrays, StepFiles
from service.evaluation.specification import Specification
from service.evaluation.workers import DrawnSamples, Workers

__all__ = ["SamplingStage", "chunk_rows", "chunks", "label_samples"]

_CHUNK_ROWS, _CHUNK_BYTES = 500, 32 << 20
_GRID_ADDRESSES, _GRID_IMAGES = 100, 20_000  # addresses under every label; images in all where there are many labels
_MIN_GRID_ADDRESSES = 5


class SamplingStage:
    """The samples of one evaluation.

    Args:
        specification: of the evaluation.
        classes: (count,) int64, the class to request each sample of; None: unconditional.
        workers, retry, reader: draw and read the samples.
        files: where results are left.

    Attributes:
        chunks: of the samples' indices.
        grid_chunks: of the classes, for the label grid.
    """

    def __init__(
        self,
        specification: Specification,
        classes: NDArray[np.int64] | None,
        *,
        workers: Workers,
        retry: WorkerRetry,
        reader: ImageReader,
        files: StepFiles,
    ) -> None:
        self._specification, self._classes, self._files = specification, classes, files
        self._workers, self._retry, self._reader = workers, retry, reader
        rows, labels = chunk_rows(specification.image_shape), len(specification.classes)
        self.chunks = chunks(specification.count, rows)
        self._addresses = min(_GRID_ADDRESSES, max(_MIN_GRID_ADDRESSES, _GRID_IMAGES // max(1, labels)))
        self.grid_chunks = chunks(labels, max(1, rows // self._addresses))

    async def draw(self, number: int) -> Arrays:
        """Draw one chunk: images (n, H, W, C) uint8, failed (n,) bool."""

        async def make() -> Arrays:
            chunk = self.chunks[number]
            classes = None if self._classes is None else self._classes[chunk]
            drawn = await self._sample(chunk.start, chunk.stop - chunk.start, classes)
            return {"images": drawn.images, "failed": drawn.failed}

        return await self._files.arrays(f"draw-{number:05d}", make)

    async def read(self, number: int) -> Arrays:
        """Read one chunk: rows (k,) int64 within it that did not fail; their features and probabilities."""

        async def make() -> Arrays:
            drawn = await self.draw(number)
            rows = np.flatnonzero(~drawn["failed"])
            if not len(rows):
                return {"rows": rows, "features": np.zeros((0, 0), np.float32), "probabilities": np.zeros((0, 0))}
            return {"rows": rows, **await self._reader.read(drawn["images"][rows])}

        return await self._files.arrays(f"read-{number:05d}", make)

    async def valid_samples(self, number: int) -> Samples | None:
        """Return the samples of one chunk that were drawn and read without failure; None: there are none."""
        read = await self.read(number)
        if not len(read["rows"]):
            return None
        finite = np.isfinite(read["features"]).all(axis=1) & np.isfinite(read["probabilities"]).all(axis=1)
        if not finite.any():
            return None
        rows = read["rows"][finite]
        indices = self.chunks[number].start + rows
        return Samples(
            indices=indices.astype(np.uint64),
            images=(await self.draw(number))["images"][rows],
            labels=None if self._classes is None else self._classes[indices],
            features=read["features"][finite],
            probabilities=read["probabilities"][finite],
        )

    async def draw_grid(self, number: int) -> Arrays:
        """Draw some labels at the addresses after the samples: images (a, k, H, W, C), predicted (a, k)."""

        async def make() -> Arrays:
            chunk = self.grid_chunks[number]
            drawn = [
                await self._sample(self._specification.count, self._addresses, np.full(self._addresses, each))
                for each in range(chunk.start, chunk.stop)
            ]
            images = np.stack([each.images for each in drawn], axis=1)  # (a, k, H, W, C)
            failed = np.stack([each.failed for each in drawn], axis=1)  # (a, k)
            read = await self._reader.classify(images.reshape(-1, *images.shape[2:]))  # (a, k, ...) -> (a·k, ...)
            failed |= ~np.isfinite(read).all(axis=1).reshape(failed.shape)
            predicted = np.nan_to_num(read).argmax(axis=1).reshape(failed.shape)  # (a·k, classes) -> (a, k)
            return {"images": images, "predicted": np.where(failed, -1, predicted).astype(np.int64)}

        return await self._files.arrays(f"answers-{number:05d}", make)

    async def label_grid(self) -> LabelGrid:
        """Return the same noise under all labels."""
        parts = [await self.draw_grid(number) for number in range(len(self.grid_chunks))]
        return LabelGrid(
            images=np.concatenate([each["images"] for each in parts], axis=1),
            predicted=np.concatenate([each["predicted"] for each in parts], axis=1),
        )

    async def _sample(self, start: int, count: int, classes: NDArray[np.int64] | None) -> DrawnSamples:
        spec = self._specification
        labels = None if classes is None else np.asarray(spec.model_labels, np.uint32)[classes]
        return await self._retry.call(
            spec.model.name,
            lambda: self._workers.sample(
                spec.model, seed=spec.seed, start_index=start, count=count, labels=labels, parameters=spec.parameters
            ),
        )


def chunk_rows(image_shape: tuple[int, int, int], most: int = _CHUNK_ROWS) -> int:
    """Return how many images one step draws or reads: a few seconds' work, at most 32 MiB."""
    return max(1, min(most, _CHUNK_BYTES // math.prod(image_shape)))


def chunks(count: int, rows: int) -> list[slice]:
    """Split `count` rows into chunks of `rows`; the last may be shorter."""
    return [slice(first, min(first + rows, count)) for first in range(0, count, rows)]


def label_samples(held_out_labels: NDArray[np.integer], classes: int, count: int) -> NDArray[np.int64]:
    """Choose a class for every sample, so that every prefix has the class frequencies of the held-out split.

    Each sample gets the class that is furthest below its frequency so far; of equal ones, the smaller id. So the first
    n samples hold each class as often as its share of n, to within one or two. Integer arithmetic gives the same
    result on every machine.

    Args:
        held_out_labels: (m,) class ids of real rows; at least one.
        classes: the number of classes.
        count: samples.

    Returns:
        (count,) int64; classes without a held-out row do not occur.
    """
    share = np.bincount(held_out_labels.astype(np.int64), minlength=classes).astype(np.int64)  # of m rows
    deficit = np.zeros(classes, np.int64)
    chosen = np.empty(count, np.int64)
    for sample in range(count):
        deficit += share
        chosen[sample] = deficit.argmax()
        deficit[chosen[sample]] -= len(held_out_labels)
    return chosen
