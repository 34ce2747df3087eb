"""The specification of an evaluation: everything its result depends on, and nothing else.

It is made once, when the evaluation is created, and stored as JSON; every runner that works on the evaluation reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

from fount.documents import parse, record
from service.domain import Parameters
from service.evaluation.results import Panel

__all__ = ["FORMAT", "MOST_SCORED", "PinnedModel", "Specification"]

FORMAT = 1
"""Version of the specification and of the files that steps leave. A runner refuses any other."""
MOST_SCORED = 2000
"""Rows of either split that are scored: enough for a difference of a twentieth of a standard deviation."""


@record
class PinnedModel:
    """An exact model: which version with which digest, on which numerics."""

    name: str
    version: str
    digest: str
    numerics: str


@record
class Specification:
    """One evaluation, with every default filled in and every model pinned.

    Attributes:
        model: the generator.
        model_labels: the generator's label of each class of the data set, in order of its id; empty: unconditional.
        extractor: whose features are compared; it has EMBED.
        classifier: whose labels are compared; it has CLASSIFY.
        classifier_labels: the classifier's label of each class of the data set.
        dataset, dataset_digest: the real data.
        training_split, held_out_split: its parts.
        training_rows, held_out_rows: sizes of the parts.
        classes: the data set's, in order of their id.
        image_shape: (H, W, C) of samples and rows alike.
        count: samples.
        seed: of the samples and of everything else that is random.
        parameters: sampling parameters with the defaults of the model's card.
        panels: in the order of the report.
        gates: as given; they can be parsed.
        score: the name of the log-likelihood that real rows are compared by, the first column of the generator's SCORE;
            empty: it has none, the caller may not score, or memorisation is not evaluated.
        score_rows: the most rows of either split that are scored.
        code_version: Fount's version at creation.
        format: of this value.
    """

    model: PinnedModel
    model_labels: tuple[int, ...]
    extractor: PinnedModel
    classifier: PinnedModel
    classifier_labels: tuple[int, ...]
    dataset: str
    dataset_digest: str
    training_split: str
    held_out_split: str
    training_rows: int
    held_out_rows: int
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    count: int
    seed: int
    parameters: Parameters
    panels: tuple[Panel, ...]
    gates: tuple[str, ...]
    code_version: str
    score: str = ""
    score_rows: int = MOST_SCORED
    format: int = FORMAT

    @property
    def conditional(self) -> bool:
        """Whether samples are requested by label."""
        return bool(self.model_labels)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"panels": [each.value for each in self.panels]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned.

        Raises:
            ValueError: it has another format, or is no specification.
        """
        if value.get("format") != FORMAT:
            raise ValueError(f"the specification has format {value.get('format')!r}, and this code reads {FORMAT}")
        return parse(cls, value)
