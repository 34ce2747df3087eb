"""What an evaluation was asked for, resolved: all that its result depends on, and nothing else.

It is made once, when the evaluation is created, and kept as JSON; runners read it, whichever takes the evaluation up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from service.domain import ModelKey, Parameters, Target
from service.evaluation.results import Panel

__all__ = ["FORMAT", "PinnedModel", "Specification"]

FORMAT = 1
"""Of the specification and of what steps leave behind. A runner refuses another one."""


@dataclass(frozen=True, kw_only=True)
class PinnedModel:
    """A model, exactly: which version with which digest, on which numerics."""

    name: str
    version: str
    digest: str
    numerics: str

    @property
    def target(self) -> Target:
        """The workers that may be asked."""
        key = ModelKey(name=self.name, version=self.version, digest=self.digest)
        return Target(model=key, numerics=self.numerics)


@dataclass(frozen=True, kw_only=True)
class Specification:
    """One evaluation, resolved.

    Attributes:
        model: the generator.
        model_labels: the generator's label of each class of the data set, in order of its id; empty: unconditional.
        extractor: whose features are compared; it has EMBED.
        classifier: whose labels are compared; it has CLASSIFY.
        classifier_labels: the classifier's label of each class of the data set.
        dataset, dataset_digest: the real data.
        training_split, held_out_split: its parts.
        training_rows, held_out_rows: how many rows those have.
        classes: the data set's, in order of their id.
        image_shape: (H, W, C) of samples and rows alike.
        count: samples.
        seed: of the samples, and of everything else that is drawn.
        parameters: of the draw, whole.
        panels: in the order of the report.
        gates: as given; they parse.
        code_version: Fount's, when it was asked.
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
    format: int = FORMAT

    @property
    def conditional(self) -> bool:
        """Whether samples are asked for by label."""
        return bool(self.model_labels)

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"panels": [each.value for each in self.panels]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            ValueError: it is of another format, or not a specification.
        """
        if value.get("format") != FORMAT:
            raise ValueError(f"the specification has format {value.get('format')!r}, this code reads {FORMAT}")
        try:
            read = {field.name: value[field.name] for field in fields(cls)}
            models = {role: PinnedModel(**read[role]) for role in ("model", "extractor", "classifier")}
            tuples = {name: tuple(read[name]) for name in ("model_labels", "classifier_labels", "classes", "gates")}
            height, width, channels = read["image_shape"]
            return cls(
                **read
                | models
                | tuples
                | {
                    "image_shape": (height, width, channels),
                    "parameters": Parameters(**read["parameters"]),
                    "panels": tuple(Panel(each) for each in read["panels"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a specification: {error}") from error
