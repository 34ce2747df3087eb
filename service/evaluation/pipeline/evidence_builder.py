"""From what steps left to the evidence: samples, real rows, nearest training rows, answers.

Everything is kept in memory once it was gathered; panels and figures look at it one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import NEIGHBOURS, Evidence, Nearest, RealRows, Samples
from service.evaluation.panels.registry import FEWEST_SAMPLES, needs_label_grid, needs_neighbours
from service.evaluation.pipeline.files import Arrays, Files
from service.evaluation.pipeline.reference import Reference, SplitRows
from service.evaluation.pipeline.reporter import Failed
from service.evaluation.pipeline.sampling import Drawing
from service.evaluation.specification import Specification
from service.evaluation.statistics.distances import Rows, nearest, prepare

__all__ = ["SPACES", "Gathering"]

Space = Literal["pixels", "features"]

SPACES: tuple[Space, ...] = ("pixels", "features")

_FEWEST_ROWS = 50


class Gathering:
    """The evidence of one evaluation, as far as it is needed.

    Args:
        specification: of the evaluation.
        drawing: its samples.
        training, held_out: its real rows.
        reference: what held-out rows are to training rows.
        files: where nearest rows are left.
    """

    def __init__(
        self,
        specification: Specification,
        *,
        drawing: Drawing,
        training: SplitRows,
        held_out: SplitRows,
        reference: Reference,
        files: Files,
    ) -> None:
        self._specification, self._drawing, self._files = specification, drawing, files
        self._splits = {"training": training, "held_out": held_out}
        self._reference = reference
        self._real: dict[str, RealRows] = {}
        self._prepared: dict[Space, Rows] = {}
        self._evidence: Evidence | None = None

    async def nearest(self, space: Space, number: int) -> Arrays:
        """The nearest training rows of one chunk's samples: distances (n, NEIGHBOURS), rows (n,)."""

        async def make() -> Arrays:
            samples = await self._drawing.kept(number)
            if samples is None:
                return {"distances": np.zeros((0, NEIGHBOURS)), "rows": np.zeros(0, np.int64)}
            rows = await self._training_rows(space)
            distances, found = await asyncio.to_thread(nearest, _in(space, samples), rows, NEIGHBOURS)
            return {"distances": distances, "rows": found[:, 0]}

        return await self._files.arrays(f"nearest-{space}-{number:05d}", make)

    async def held_out_nearest(self, space: Space, number: int) -> Arrays:
        """The same for one chunk of held-out rows."""
        held_out, training = await self._rows("held_out"), await self._training_rows(space)
        return await self._reference.nearest(space, number, held_out, training)

    async def evidence(self) -> Evidence:
        """All of it.

        Raises:
            Failed: there is too little to look at.
        """
        if self._evidence is None:
            self._evidence = await self._gather()
        return self._evidence

    async def _gather(self) -> Evidence:
        panels = self._specification.panels
        parts = [await self._drawing.kept(number) for number in range(len(self._drawing.chunks))]
        samples = _join([each for each in parts if each is not None])
        self._check_enough(0 if samples is None else len(samples))
        assert samples is not None  # some are enough
        held_out, training = await self._rows("held_out"), await self._rows("training")
        spaces = SPACES if needs_neighbours(panels) else ()
        self._prepared.clear()  # they are through with
        return Evidence(
            samples=samples,
            failed=self._specification.count - len(samples),
            held_out=held_out,
            training=training,
            nearest={space: await self._all_nearest(space) for space in spaces},
            label_grid=await self._drawing.answers() if needs_label_grid(panels) else None,
            classes=self._specification.classes,
            seed=self._specification.seed,
        )

    def _check_enough(self, samples: int) -> None:
        for panel in self._specification.panels:
            if samples < FEWEST_SAMPLES[panel]:
                lost = self._specification.count - samples
                raise Failed(
                    f"{lost} of {self._specification.count} samples failed or were not finite; {samples} are "
                    f"left, and {panel.value} needs {FEWEST_SAMPLES[panel]}; look at the generator"
                )

    async def _all_nearest(self, space: Space) -> Nearest:
        of_samples = [await self.nearest(space, number) for number in range(len(self._drawing.chunks))]
        of_rows = [await self.held_out_nearest(space, number) for number in range(len(self._reference.chunks))]
        return Nearest(
            sample_distances=np.concatenate([each["distances"] for each in of_samples]),
            sample_rows=np.concatenate([each["rows"] for each in of_samples]),
            held_out_distances=np.concatenate([each["distances"] for each in of_rows]),
        )

    async def _rows(self, split: str) -> RealRows:
        if split not in self._real:
            rows = await self._splits[split].gather()
            if len(rows) < _FEWEST_ROWS:
                raise Failed(f"{len(rows)} rows of the {split.replace('_', '-')} split could be read, and "
                             f"{_FEWEST_ROWS} are needed; look at the extractor and the classifier")  # fmt: skip
            self._real[split] = rows
        return self._real[split]

    async def _training_rows(self, space: Space) -> Rows:
        if space not in self._prepared:
            rows = await self._rows("training")
            self._prepared[space] = await asyncio.to_thread(prepare, _in(space, rows))
        return self._prepared[space]


def _in(space: Space, rows: Samples | RealRows) -> NDArray[np.uint8] | NDArray[np.float32]:
    return rows.images if space == "pixels" else rows.features


def _join(parts: Sequence[Samples]) -> Samples | None:
    if not parts:
        return None
    labels = [each.labels for each in parts if each.labels is not None]
    return Samples(
        indices=np.concatenate([each.indices for each in parts]),
        images=np.concatenate([each.images for each in parts]),
        labels=np.concatenate(labels) if labels else None,
        features=np.concatenate([each.features for each in parts]),
        probabilities=np.concatenate([each.probabilities for each in parts]),
    )
