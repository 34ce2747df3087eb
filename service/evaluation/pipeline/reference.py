"""Real rows as the extractor and the classifier read them, cached for later evaluations with the same models.

The cache is `WORK/references/<key>`; the key is a digest of everything the content depends on. Several runners may
share the folder. Its size is bounded: the least recently used references are removed first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fount.readers import Dataset
from service.datasets import unreadable_errors
from service.evaluation.evidence import RealRows
from service.evaluation.pipeline.features import ImageReader
from service.evaluation.pipeline.files import Arrays, StepFiles
from service.evaluation.pipeline.sampling import chunk_rows, chunks
from service.evaluation.specification import FORMAT, Specification
from service.threads import run_in_thread

__all__ = ["ReferenceFiles", "SplitRows", "limit_references"]

_READ_ROWS = 2000  # of one step
_KEY_DIGITS = 32

_log = logging.getLogger(__name__)


class ReferenceFiles(StepFiles):
    """The files of one reference, in a folder of the folder of all references; `of` names its splits and their form."""

    def __init__(self, references: Path, specification: Specification, *of: str) -> None:
        models = (specification.extractor, specification.classifier)
        content = [
            FORMAT,
            specification.dataset_digest,
            of,
            [(each.digest, each.numerics) for each in models],
            specification.classifier_labels,
            specification.image_shape,
        ]
        self.key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:_KEY_DIGITS]
        super().__init__(references / self.key)

    def touch(self) -> None:
        """Mark the reference as just used."""
        with contextlib.suppress(OSError):  # another runner removed it; missing files are made again
            os.utime(self.folder)


class SplitRows:
    """The rows of one split, read and cached chunk by chunk."""

    def __init__(
        self, specification: Specification, dataset: Dataset, split: str, reader: ImageReader, references: Path
    ) -> None:
        self._dataset, self._split, self._reader = dataset, dataset.splits[split], reader
        self.files = ReferenceFiles(references, specification, split)
        self.chunks = chunks(len(self._split), chunk_rows(dataset.shape, _READ_ROWS))

    async def read(self, number: int) -> Arrays:
        """Read one chunk: features and probabilities, NaN where a worker failed."""

        async def make() -> Arrays:
            chunk = self.chunks[number]
            rows = np.arange(chunk.start, chunk.stop, dtype=np.int64)
            return await self._reader.read(await run_in_thread(self._images, rows))

        return await self.files.arrays(f"rows-{number:05d}", make)

    async def load(self) -> RealRows:
        """Return all rows that were read without failure, in order."""
        parts = [await self.read(number) for number in range(len(self.chunks))]
        await asyncio.to_thread(self.files.touch)
        return await asyncio.to_thread(self._join, parts)

    def _join(self, parts: list[Arrays]) -> RealRows:
        features = np.concatenate([each["features"] for each in parts])
        probabilities = np.concatenate([each["probabilities"] for each in parts])
        rows = np.flatnonzero(np.isfinite(features).all(axis=1) & np.isfinite(probabilities).all(axis=1))
        if len(rows) < len(features):
            _log.warning("%d rows of %s could not be read", len(features) - len(rows), self._split.name)
        return RealRows(
            images=self._images(rows),
            labels=self._split.labels[rows].astype(np.int64),
            features=features[rows],
            probabilities=probabilities[rows],
            numbers=rows,
        )

    def _images(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        with unreadable_errors(self._dataset.name, self._dataset.path):
            return self._split.images(rows)


def limit_references(references: Path, max_bytes: int, used: Collection[str]) -> None:
    """Remove the least recently used references beyond `max_bytes` in all; those with the keys in `used` stay."""
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


def _is_reference(folder: Path) -> bool:
    """Whether the name is a key; other folders, which users may have put there, are never removed."""
    return len(folder.name) == _KEY_DIGITS and not set(folder.name) - set("0123456789abcdef")
