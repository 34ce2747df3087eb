"""The specification of a plan: a request with names resolved, defaults filled in, models pinned and rows allocated.

`service/rpc/plan_request.py` reads a `PlanSpec` from a request or a ticket; `service/rpc/plans.py` writes it there.
`OpenPlan` adds the layout of slots and the copy threshold: everything that rows are made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fount.readers import Dataset, DatasetSplit
from fount.transforms import Policy
from service.augmentation.slots import GENERATED, Layout, RealMode, Source
from service.augmentation.targets import Allocation, CellCounts, Mix
from service.calls import Labels
from service.catalog import PinnedModel
from service.domain import Parameters
from service.latent.tasks import Reconstruct, Translate

__all__ = ["SECTIONS", "GenerationSpec", "OpenPlan", "PlanSpec", "VerificationSpec", "held_out_split"]

SECTIONS = dict(zip(GENERATED, ("synthesis", "translation", "reconstruction"), strict=True))
"""The part of a request that configures each source of generated rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerationSpec:
    """How the rows of one source are generated and filtered.

    Attributes:
        source: one of `GENERATED`.
        model: generates them.
        draw: what it does with a row of the data set; of synthesised rows, the parameters of a sample. Defaults of the
            model card are filled in.
        label: of the model, for every row; None: each row has that of its own class.
        labels: (classes,) uint32, the model's label for rows of each class; the number of its labels where it has none.
            None: it is unconditional.
        classifier: accepts or rejects what is drawn; None: nothing is classified, and `min_confidence` is 0.
        classifier_labels: (classes,) uint32, likewise.
        min_confidence: least probability of a row's label.
        copy_quantile: share of held-out rows below the copy threshold; 0: no filter, as for all rows that are made from
            rows of the data set.
        attempts: most draws for one row.
    """

    source: Source
    model: PinnedModel
    draw: Parameters | Translate | Reconstruct
    label: int | None = None
    labels: Labels | None
    classifier: PinnedModel | None
    classifier_labels: Labels
    min_confidence: float
    copy_quantile: float = 0.0
    attempts: int

    @property
    def steps(self) -> int:
        """How many evaluations of the model a draw takes."""
        if isinstance(self.draw, Reconstruct):
            return 2  # one to encode, one to decode
        parameters = self.draw if isinstance(self.draw, Parameters) else self.draw.parameters
        return parameters.steps or self.model.model.draw_steps


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
        generation: of each source of generated rows in the mix.
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
    generation: Mapping[Source, GenerationSpec]
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
        copy_threshold: ratio below which a synthesised row is a copy; None: no filter.
        id: of the plan; empty while it is planned.
    """

    spec: PlanSpec
    layout: Layout
    copy_threshold: float | None
    id: str = ""

    @property
    def generation(self) -> dict[Source, GenerationSpec]:
        """How rows of each source are generated, of those with rows."""
        return {source: each for source, each in self.spec.generation.items() if self.count(source)}

    @property
    def transformer(self) -> PinnedModel | None:
        """The model that transforms rows; None when no row is transformed."""
        return self.spec.transformer if self.count(Source.TRANSFORMED) else None

    @property
    def models(self) -> list[PinnedModel]:
        """The models that rows depend on: those that generate rows, each with its classifier, and the transformer."""
        generating = [pinned for each in self.generation.values() for pinned in (each.model, each.classifier)]
        found = [each for each in (*generating, self.transformer) if each]
        return list({(each.role, each.target): each for each in found}.values())

    def with_generation(self, changed: Mapping[Source, GenerationSpec]) -> OpenPlan:
        """Return the plan with rows of some sources generated otherwise."""
        return replace(self, spec=replace(self.spec, generation={**self.spec.generation, **changed}))

    def count(self, source: Source) -> int:
        """Return the number of rows of a source."""
        return self.layout.source_counts[source]


def held_out_split(dataset: Dataset, split: DatasetSplit) -> DatasetSplit | None:
    """Choose the rows that calibrate a copy filter: "test", or else another split with rows; None: there is none."""
    others = [each for name, each in dataset.splits.items() if name != split.name and len(each)]
    return min(others, key=lambda each: each.name != "test", default=None)
