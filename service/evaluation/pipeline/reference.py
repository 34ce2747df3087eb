"""Real rows as the extractor and the classifier read them, kept for the next evaluation with the same models.

`WORK/references/<key>` holds them; the key names all that they depend on. Several runners may share the folder. It is
kept within bounds: what was not used for longest goes.
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
from service.evaluation.pipeline.features import Reader
from service.evaluation.pipeline.files import Arrays, Files
from service.evaluation.pipeline.sampling import chunk_rows, chunks
from service.evaluation.specification import FORMAT, Specification
from service.evaluation.statistics.distances import Rows, nearest

__all__ = ["Reference", "SplitRows", "keep_within"]

_log = logging.getLogger(__name__)

_ROWS = 2000
_QUERIES = 500
_KEY_DIGITS = 32


class SplitRows:
    """The rows of one split.

    Args:
        specification: names data set and models.
        split: of the data set.
        reader: reads them.
        references: the folder of all references.
    """

    def __init__(self, specification: Specification, split: DatasetSplit, reader: Reader, references: Path) -> None:
        self._split, self._reader = split, reader
        self.key = _key(specification, split.name)
        self._files = Files(references / self.key)
        self.chunks = chunks(len(split), chunk_rows(split.shape, _ROWS))

    async def read(self, number: int) -> Arrays:
        """One chunk: features and probabilities, NaN where a worker failed."""

        async def make() -> Arrays:
            chunk = self.chunks[number]
            rows = np.arange(chunk.start, chunk.stop, dtype=np.int64)
            return await self._reader.read(await asyncio.to_thread(self._split.images, rows))

        return await self._files.arrays(f"rows-{number:05d}", make)

    async def gather(self) -> RealRows:
        """All rows that were read well, in order."""
        parts = [await self.read(number) for number in range(len(self.chunks))]
        await asyncio.to_thread(_touch, self._files.folder)
        return await asyncio.to_thread(self._join, parts)

    def _join(self, parts: list[Arrays]) -> RealRows:
        features = np.concatenate([each["features"] for each in parts])
        probabilities = np.concatenate([each["probabilities"] for each in parts])
        rows = np.flatnonzero(np.isfinite(features).all(axis=1) & np.isfinite(probabilities).all(axis=1))
        if len(rows) < len(features):
            _log.warning("%d rows of %s were not read well", len(features) - len(rows), self._split.name)
        return RealRows(
            images=self._split.images(rows),
            labels=self._split.labels[rows].astype(np.int64),
            features=features[rows],
            probabilities=probabilities[rows],
        )


class Reference:
    """What held-out rows are to training rows: their nearest ones, in one space.

    Args:
        specification: names data set and models.
        references: the folder of all references.
    """

    def __init__(self, specification: Specification, references: Path) -> None:
        self.key = _key(specification, specification.training_split, specification.held_out_split)
        self._files = Files(references / self.key)
        self.chunks = chunks(specification.held_out_rows, _QUERIES)

    async def nearest(self, space: str, number: int, held_out: RealRows, training: Rows) -> Arrays:
        """Distances of one chunk of held-out rows: (n, NEIGHBOURS) float64."""

        async def make() -> Arrays:
            queries = (held_out.images if space == "pixels" else held_out.features)[self.chunks[number]]
            if not len(queries):  # rows that were not read well are left out, so that the last chunk may be empty
                return {"distances": np.zeros((0, NEIGHBOURS))}
            distances, _ = await asyncio.to_thread(nearest, queries, training, NEIGHBOURS)
            return {"distances": distances}

        await asyncio.to_thread(_touch, self._files.folder)
        return await self._files.arrays(f"{space}-{number:05d}", make)


def keep_within(references: Path, most_bytes: int, used: Collection[str]) -> None:
    """Remove references until they take `most_bytes` at most, those first that were not used for longest.

    Args:
        references: the folder of all.
        most_bytes: together.
        used: keys that stay.
    """
    found = []
    try:
        for folder in filter(_is_ours, references.iterdir()):
            size = sum(each.stat().st_size for each in folder.iterdir())
            found.append((folder.stat().st_mtime, size, folder))
    except OSError:  # another runner is at it
        return
    total = sum(size for _, size, _ in found)
    for _, size, folder in sorted(found):
        if total <= most_bytes:
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


def _is_ours(folder: Path) -> bool:
    """Whether a key names it: whatever else people keep there stays."""
    return len(folder.name) == _KEY_DIGITS and not set(folder.name) - set("0123456789abcdef")


def _touch(folder: Path) -> None:
    try:
        os.utime(folder)
    except OSError:
        return  # another runner removed it; it is made again where it is missing
