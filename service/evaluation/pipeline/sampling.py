"""The generator's samples, chunk by chunk: drawn at their addresses, read; and the same noise under every label."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import LabelGrid, Samples
from service.evaluation.pipeline.features import Patience, Reader
from service.evaluation.pipeline.files import Arrays, Files
from service.evaluation.specification import Specification
from service.evaluation.workers import DrawnSamples, Workers

__all__ = ["Drawing", "chunk_rows", "chunks", "label_samples"]


_ANSWERS, _ANSWER_IMAGES = 100, 20_000  # addresses under every label; and images in all where there are many labels
_FEWEST_ANSWERS = 5


class Drawing:
    """What one evaluation draws.

    Args:
        specification: of what.
        classes: (count,) int64, the class each sample is asked for; None: unconditional.
        workers, patience, reader: who draws and reads.
        files: where it is left.
    """

    def __init__(
        self,
        specification: Specification,
        classes: NDArray[np.int64] | None,
        *,
        workers: Workers,
        patience: Patience,
        reader: Reader,
        files: Files,
    ) -> None:
        self._specification, self._classes, self._files = specification, classes, files
        self._workers, self._patience, self._reader = workers, patience, reader
        self.chunks = chunks(specification.count, chunk_rows(specification.image_shape))
        self._addresses = min(_ANSWERS, max(_FEWEST_ANSWERS, _ANSWER_IMAGES // max(1, len(specification.classes))))
        labels = max(1, chunk_rows(specification.image_shape) // self._addresses)
        self.answer_chunks = chunks(len(specification.classes), labels)

    async def draw(self, number: int) -> Arrays:
        """One chunk: images (n, H, W, C) uint8, failed (n,) bool."""
        return await self._files.arrays(f"draw-{number:05d}", lambda: self._draw(self.chunks[number]))

    async def _draw(self, chunk: slice) -> Arrays:
        labels = None if self._classes is None else self._classes[chunk]
        drawn = await self._sample(chunk.start, chunk.stop - chunk.start, labels)
        return {"images": drawn.images, "failed": drawn.failed}

    async def _sample(self, start: int, count: int, classes: NDArray[np.int64] | None) -> DrawnSamples:
        asked = self._specification
        labels = None if classes is None else np.asarray(asked.model_labels, np.uint32)[classes]
        return await self._patience.ask(
            asked.model.name,
            lambda: self._workers.sample(
                asked.model,
                seed=asked.seed,
                start_index=start,
                count=count,
                labels=labels,
                parameters=asked.parameters,
            ),
        )

    async def read(self, number: int) -> Arrays:
        """One chunk read: rows (k,) int64 within it, those drawn well; features and probabilities of these."""

        async def make() -> Arrays:
            drawn = await self.draw(number)
            rows = np.flatnonzero(~drawn["failed"])
            if not len(rows):
                return {"rows": rows, "features": np.zeros((0, 0), np.float32), "probabilities": np.zeros((0, 0))}
            return {"rows": rows, **await self._reader.read(drawn["images"][rows])}

        return await self._files.arrays(f"read-{number:05d}", make)

    async def kept(self, number: int) -> Samples | None:
        """One chunk's samples that were drawn and read well; None: there are none."""
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

    async def answer(self, number: int) -> Arrays:
        """Some labels under the addresses behind the samples: images (a, k, H, W, C), predicted (a, k)."""
        return await self._files.arrays(f"answers-{number:05d}", lambda: self._answer(self.answer_chunks[number]))

    async def _answer(self, chunk: slice) -> Arrays:
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

    async def answers(self) -> LabelGrid:
        """All labels."""
        parts = [await self.answer(number) for number in range(len(self.answer_chunks))]
        return LabelGrid(
            images=np.concatenate([each["images"] for each in parts], axis=1),
            predicted=np.concatenate([each["predicted"] for each in parts], axis=1),
        )


# FOLDED FROM service.evaluation.pipeline.sampling:
# Chunk boundaries: part of what a result is made from, so they follow from the specification alone.


_SAMPLES = 500
_BYTES = 32 << 20


def chunk_rows(image_shape: tuple[int, int, int], most: int = _SAMPLES) -> int:
    """How many images are drawn or read in a step: a few seconds' worth."""
    return max(1, min(most, _BYTES // math.prod(image_shape)))


def chunks(count: int, rows: int) -> list[slice]:
    """Cut `count` rows into runs of `rows`; the last may be shorter."""
    return [slice(first, min(first + rows, count)) for first in range(0, count, rows)]


# FOLDED FROM service.evaluation.pipeline.sampling:
# Which class each sample is asked for: the held-out split's shares, matched by every prefix.


def label_samples(held_out_labels: NDArray[np.integer], classes: int, count: int) -> NDArray[np.int64]:
    """Choose a class for every sample.

    After each sample, the class chosen is the one that is furthest behind its share; of equal ones, the smaller id. So
    the first n samples hold each class as often as its share of n says, to within one or two. In whole numbers, so
    that it is the same everywhere.

    Args:
        held_out_labels: (m,) class ids of real rows; at least one.
        classes: how many there are.
        count: samples.

    Returns:
        (count,) int64; classes without a held-out row are never asked for.
    """
    share = np.bincount(held_out_labels.astype(np.int64), minlength=classes).astype(np.int64)  # of m rows
    behind = np.zeros(classes, np.int64)
    chosen = np.empty(count, np.int64)
    for sample in range(count):
        behind += share
        chosen[sample] = behind.argmax()
        behind[chosen[sample]] -= len(held_out_labels)
    return chosen
