"""Real rows as the extractor and the classifier read them, cached for later evaluations with the same models.

The cache is `WORK/references/<key>`; the key is a digest of everything the content depends on. Several runners may
share the folder. Its size is bounded: the least recently used references are removed first.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np

from fount.readers import DatasetSplit
from service.evaluation.evidence import NEIGHBOURS, RealRows
from service.evaluation.pipeline.features import ImageReader
from service.evaluation.pipeline.files import Arrays, StepFiles
from service.evaluation.pipeline.sampling import chunk_rows, chunks
from service.evaluation.specification import FORMAT, Specification
from service.evaluation.statistics.distances import Rows, nearest

__all__ = ["HeldOutNeighbours", "SplitRows", "limit_references"]

_READ_ROWS, _QUERY_ROWS = 2000, 500  # of one step
_KEY_DIGITS = 32

_log = logging.getLogger(__name__)


class SplitRows:
    """The rows of one split, read and cached chunk by chunk.

    Args:
        specification: names data set and models.
        split: of the data set.
        reader: reads images.
        references: the folder of all references.

    Attributes:
        key: of the reference.
        chunks: of the rows.
    """

    def __init__(
        self, specification: Specification, split: DatasetSplit, reader: ImageReader, references: Path
    ) -> None:
        self._split, self._reader = split, reader
        self.key = _key(specification, split.name)
        self._files = StepFiles(references / self.key)
        self.chunks = chunks(len(split), chunk_rows(split.shape, _READ_ROWS))

    async def read(self, number: int) -> Arrays:
        """Read one chunk: features and probabilities, NaN where a worker failed."""

        async def make() -> Arrays:
            chunk = self.chunks[number]
            rows = np.arange(chunk.start, chunk.stop, dtype=np.int64)
            return await self._reader.read(await asyncio.to_thread(self._split.images, rows))

        return await self._files.arrays(f"rows-{number:05d}", make)

    async def load(self) -> RealRows:
        """Return all rows that were read without failure, in order."""
        parts = [await self.read(number) for number in range(len(self.chunks))]
        await asyncio.to_thread(_touch, self._files.folder)
        return await asyncio.to_thread(self._join, parts)

    def _join(self, parts: list[Arrays]) -> RealRows:
        features = np.concatenate([each["features"] for each in parts])
        probabilities = np.concatenate([each["probabilities"] for each in parts])
        rows = np.flatnonzero(np.isfinite(features).all(axis=1) & np.isfinite(probabilities).all(axis=1))
        if len(rows) < len(features):
            _log.warning("%d rows of %s could not be read", len(features) - len(rows), self._split.name)
        return RealRows(
            images=self._split.images(rows),
            labels=self._split.labels[rows].astype(np.int64),
            features=features[rows],
            probabilities=probabilities[rows],
        )


class HeldOutNeighbours:
    """The nearest training rows of held-out rows, computed and cached chunk by chunk.

    Args:
        specification: names data set and models.
        references: the folder of all references.

    Attributes:
        key: of the reference.
        chunks: of the held-out rows.
    """

    def __init__(self, specification: Specification, references: Path) -> None:
        self.key = _key(specification, specification.training_split, specification.held_out_split)
        self._files = StepFiles(references / self.key)
        self.chunks = chunks(specification.held_out_rows, _QUERY_ROWS)

    async def nearest(self, space: str, number: int, held_out: RealRows, training: Rows) -> Arrays:
        """Return the distances of one chunk of held-out rows: (n, NEIGHBOURS) float64."""

        async def make() -> Arrays:
            queries = (held_out.images if space == "pixels" else held_out.features)[self.chunks[number]]
            if not len(queries):  # rows that could not be read are left out, so the last chunk may be empty
                return {"distances": np.zeros((0, NEIGHBOURS))}
            distances, _ = await asyncio.to_thread(nearest, queries, training, NEIGHBOURS)
            return {"distances": distances}

        await asyncio.to_thread(_touch, self._files.folder)
        return await self._files.arrays(f"{space}-{number:05d}", make)


def limit_references(references: Path, max_bytes: int, used: Collection[str]) -> None:
    """Remove the least recently used references until all together have at most `max_bytes`.

    Args:
        references: the folder of all references.
        max_bytes: of all references together.
        used: keys of those in use, which stay.
    """
    found = []
    try:
        for folder in filter(_is_reference, references.iterdir()):
            size = sum(each.stat().st_size for each in folder.iterdir())
            found.append((folder.stat().st_mtime, size, folder))
    except OSError:  # another runner removes them at this moment
        return
    total = sum(size for _, size, _ in found)
    for _, size, folder in sorted(found):
        if total <= max_bytes:
            return
        if folder.name not in used:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _key(specification: Specification, *splits: str) -> str:
    models = (specification.extractor, specification.classifier)
    content = [
        FORMAT,
        specification.dataset_digest,
        splits,
        [(each.digest, each.numerics) for each in models],
        specification.classifier_labels,
        specification.image_shape,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:_KEY_DIGITS]


def _is_reference(folder: Path) -> bool:
    """Whether the name is a key; other folders, which users may have put there, are never removed."""
    return len(folder.name) == _KEY_DIGITS and not set(folder.name) - set("0123456789abcdef")


def _touch(folder: Path) -> None:
    try:
        os.utime(folder)
    except OSError:
        return  # another runner removed it; missing files are made again
