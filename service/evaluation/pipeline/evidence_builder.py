"""Builds the evidence of one evaluation from the files its steps left: samples, real rows, nearest rows, label grid.

Evidence stays in memory once it is built: the panels and figures read it one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import NEIGHBOURS, Duplicates, Evidence, Nearest, RealRows, Samples
from service.evaluation.panels.registry import FEWEST_SAMPLES, needs_label_grid, needs_neighbours
from service.evaluation.pipeline.duplicates import leave_out_duplicates
from service.evaluation.pipeline.files import Arrays, StepFiles
from service.evaluation.pipeline.reference import ReferenceFiles, SplitRows
from service.evaluation.pipeline.reporter import Failed
from service.evaluation.pipeline.sampling import SamplingStage, chunks
from service.evaluation.pipeline.scoring import ScoringStage
from service.evaluation.specification import Specification
from service.evaluation.statistics.distances import Rows, nearest, prepare

__all__ = ["SPACES", "EvidenceBuilder"]

Space = Literal["pixels", "features"]
Split = Literal["training", "held_out"]

SPACES: tuple[Space, ...] = ("pixels", "features")
"""In which nearest rows are searched."""

_MIN_ROWS = 50
_QUERY_ROWS = 500  # held-out rows of one step


@dataclass(kw_only=True, eq=False)
class EvidenceBuilder:
    """Builds what the panels of one evaluation need, and nothing else.

    Attributes:
        specification: of the evaluation.
        sampling: its samples.
        training, held_out: its real rows.
        scoring: the scores of its real rows; None: none are needed.
        held_out_neighbours: where the nearest training rows of held-out rows are cached.
        files: where the nearest training rows of samples are left.
    """

    specification: Specification
    sampling: SamplingStage
    training: SplitRows
    held_out: SplitRows
    scoring: ScoringStage | None
    held_out_neighbours: ReferenceFiles
    files: StepFiles
    _loaded: dict[Split, RealRows] = field(default_factory=dict)
    _duplicates: Duplicates = field(default_factory=Duplicates)
    _prepared: dict[Space, Rows] = field(default_factory=dict)
    _evidence: Evidence | None = None

    @property
    def reference_keys(self) -> list[str]:
        """The cached references it uses."""
        return [self.training.files.key, self.held_out.files.key, self.held_out_neighbours.key]

    @property
    def held_out_chunks(self) -> list[slice]:
        """Held-out rows whose nearest training rows are found in one step."""
        return chunks(self.specification.held_out_rows, _QUERY_ROWS)

    async def nearest(self, space: Space, number: int) -> Arrays:
        """Find the nearest training rows of one chunk of samples: distances (n, NEIGHBOURS), rows (n,)."""

        async def make() -> Arrays:
            samples = await self.sampling.valid_samples(number)
            if samples is None:
                return {"distances": np.zeros((0, NEIGHBOURS)), "rows": np.zeros(0, np.int64)}
            rows = await self._training_rows(space)
            distances, found = await asyncio.to_thread(nearest, _in(space, samples), rows, NEIGHBOURS)
            return {"distances": distances, "rows": found[:, 0]}

        return await self.files.arrays(f"nearest-{space}-{number:05d}", make)

    async def held_out_nearest(self, space: Space, number: int) -> Arrays:
        """Find the nearest training rows of one chunk of held-out rows: distances (n, NEIGHBOURS)."""

        async def make() -> Arrays:
            queries = _in(space, await self._rows("held_out"))[self.held_out_chunks[number]]
            if not len(queries):  # rows are left out, so the last chunks may be empty
                return {"distances": np.zeros((0, NEIGHBOURS))}
            rows = await self._training_rows(space)
            return {"distances": (await asyncio.to_thread(nearest, queries, rows, NEIGHBOURS))[0]}

        await asyncio.to_thread(self.held_out_neighbours.touch)
        return await self.held_out_neighbours.arrays(f"{space}-{number:05d}", make)

    async def score(self, number: int) -> Arrays:
        """Score one chunk of real rows."""
        assert self.scoring is not None
        return await self.scoring.score(number, await self._rows("held_out"), await self._rows("training"))

    async def evidence(self) -> Evidence:
        """Return all evidence.

        Raises:
            Failed: too many samples or rows failed.
        """
        if self._evidence is None:
            self._evidence = await self._build()
        return self._evidence

    async def _build(self) -> Evidence:
        panels, count = self.specification.panels, self.specification.count
        parts = [await self.sampling.valid_samples(number) for number in range(len(self.sampling.chunks))]
        samples = _join([each for each in parts if each is not None])
        valid = 0 if samples is None else len(samples)
        for panel in panels:
            if valid < FEWEST_SAMPLES[panel]:
                raise Failed(f"{count - valid} of {count} samples failed or were not finite; {valid} remain, and "
                             f"{panel.value} needs {FEWEST_SAMPLES[panel]}; check the generator")  # fmt: skip
        assert samples is not None  # every panel needs some
        held_out, training = await self._rows("held_out"), await self._rows("training")
        scoring = self.scoring
        spaces = SPACES if needs_neighbours(panels) else ()
        self._prepared.clear()  # the searches are done
        return Evidence(
            samples=samples,
            failed=count - valid,
            held_out=held_out,
            training=training,
            nearest={space: await self._all_nearest(space) for space in spaces},
            label_grid=await self.sampling.label_grid() if needs_label_grid(panels) else None,
            classes=self.specification.classes,
            seed=self.specification.seed,
            extractor=self.specification.extractor.name,
            classifier=self.specification.classifier.name,
            duplicates=self._duplicates,
            log_likelihoods=await scoring.log_likelihoods(held_out, training) if scoring else None,
        )

    async def _all_nearest(self, space: Space) -> Nearest:
        of_samples = [await self.nearest(space, number) for number in range(len(self.sampling.chunks))]
        of_rows = [await self.held_out_nearest(space, number) for number in range(len(self.held_out_chunks))]
        return Nearest(
            sample_distances=np.concatenate([each["distances"] for each in of_samples]),
            sample_rows=np.concatenate([each["rows"] for each in of_samples]),
            held_out_distances=np.concatenate([each["distances"] for each in of_rows]),
        )

    async def _rows(self, split: Split) -> RealRows:
        if not self._loaded:
            training, held_out = await self.training.load(), await self.held_out.load()
            for name, read in (("training", training), ("held-out", held_out)):
                if len(read) < _MIN_ROWS:
                    raise Failed(f"{len(read)} rows of the {name} split could be read, and {_MIN_ROWS} are needed; "
                                 "check the extractor and the classifier")  # fmt: skip
            training, held_out, self._duplicates = await asyncio.to_thread(leave_out_duplicates, training, held_out)
            self._loaded |= {"training": training, "held_out": held_out}
        return self._loaded[split]

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
