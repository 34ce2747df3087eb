"""The specification of a plan: a request with names resolved, defaults filled in, models pinned and rows allocated.

`service/rpc/plan_request.py` reads a `PlanSpec` from a request or a ticket; `service/rpc/plans.py` writes it there.
`OpenPlan` adds the layout of slots and the copy threshold: everything that rows are made from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.readers import Dataset, DatasetSplit
from fount.transforms import Policy
from service.augmentation.slots import Layout, RealMode, Source
from service.augmentation.targets import Allocation, CellCounts, Mix
from service.catalog import PinnedModel
from service.domain import Parameters

__all__ = ["OpenPlan", "PlanSpec", "SynthesisSpec", "VerificationSpec", "held_out_split"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesisSpec:
    """How rows are synthesised.

    Attributes:
        generator: draws the samples.
        classifier: accepts or rejects them; None: no sample is classified.
        parameters: of the draws, with the defaults of the model card filled in.
        min_confidence: least probability of a sample's label; 0: no filter.
        copy_quantile: share of held-out rows below the copy threshold; 0: no filter.
        attempts: most samples to draw for one row.
        generator_labels, classifier_labels: (classes,) uint32, the model's label of each class of the data set; the
            number of its labels where it has none.
    """

    generator: PinnedModel
    classifier: PinnedModel | None
    parameters: Parameters
    min_confidence: float
    copy_quantile: float
    attempts: int
    generator_labels: NDArray[np.uint32]
    classifier_labels: NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class VerificationSpec:
    """How the labels of transformed rows are checked.

    Attributes:
        verifier: the classifier; None: labels are not checked.
        min_agreement: share of labels that transforms must keep.
        rows: how many rows are tried.
    """

    verifier: PinnedModel | None
    min_agreement: float
    rows: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanSpec:
    """A complete, checked specification: names are resolved, models pinned, rows allocated.

    Attributes:
        dataset, split: what is augmented.
        cells: rows of the split by class and group.
        seed: keys everything that is drawn.
        mode, mix: where the rows come from.
        allocation: how many there are by class, group and source.
        policy: how rows are transformed.
        transformer: None when nothing is transformed.
        synthesis: None when nothing is synthesised.
        verification: of transformed labels.
        shards: number of parts the rows are planned to be pulled in.
        time_to_live_s: of the ticket.
    """

    dataset: Dataset
    split: DatasetSplit
    cells: CellCounts
    seed: int
    mode: RealMode
    mix: Mix
    allocation: Allocation
    policy: Policy
    transformer: PinnedModel | None
    synthesis: SynthesisSpec | None
    verification: VerificationSpec
    shards: int
    time_to_live_s: float

    def lay_out(self) -> Layout:
        """Lay out the slots. Slow for large data sets: not for an event loop."""
        return Layout(
            labels=self.split.labels,
            groups=self.split.groups,
            group_count=len(self.dataset.groups),
            strata=self.allocation.strata,
            mode=self.mode,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenPlan:
    """A plan whose rows can be made on this gateway.

    Attributes:
        spec: its specification.
        layout: its slots.
        copy_threshold: ratio below which a sample is a copy; None: no filter.
        id: of the plan; empty while it is planned.
    """

    spec: PlanSpec
    layout: Layout
    copy_threshold: float | None
    id: str = ""

    @property
    def synthesis(self) -> SynthesisSpec | None:
        """How rows are synthesised; None when no row is."""
        return self.spec.synthesis if self.count(Source.SYNTHESISED) else None

    @property
    def transformer(self) -> PinnedModel | None:
        """The model that transforms rows; None when no row is transformed."""
        return self.spec.transformer if self.count(Source.TRANSFORMED) else None

    @property
    def models(self) -> list[PinnedModel]:
        """The models that rows depend on: generator, classifier, transformer."""
        synthesis = [self.synthesis.generator, self.synthesis.classifier] if self.synthesis else []
        return [each for each in (*synthesis, self.transformer) if each]

    def count(self, source: Source) -> int:
        """Return the number of rows of a source."""
        return self.layout.source_counts[source]


def held_out_split(dataset: Dataset, split: DatasetSplit) -> DatasetSplit | None:
    """Choose the rows that calibrate a copy filter: "test", or else another split with rows; None: there is none."""
    others = [each for name, each in dataset.splits.items() if name != split.name and len(each)]
    return min(others, key=lambda each: each.name != "test", default=None)
