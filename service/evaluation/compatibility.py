"""Whether a data set and the models of an evaluation fit each other: shapes, classes, bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fount.readers import Dataset
from service.domain import Encoding, ServedModel, Target
from service.errors import EvaluationRefused
from service.evaluation.specification import PinnedModel

__all__ = ["PinnedRole", "check_fit", "name_list", "shape_words"]

_NAMES_TOLD = 5
_MOST_IMAGE_BYTES = 3 << 20  # read by one message, which holds 4 MiB


@dataclass(frozen=True, kw_only=True, eq=False)
class PinnedRole:
    """A model of an evaluation, with the workers that may be asked."""

    target: Target
    model: ServedModel

    @property
    def pin(self) -> PinnedModel:
        """What names it in a specification."""
        key = self.target.model
        return PinnedModel(name=key.name, version=key.version, digest=key.digest, numerics=self.target.numerics)


def check_fit(dataset: Dataset, generator: PinnedRole, classifier: PinnedRole, extractor: PinnedRole) -> None:
    """Insist that models are for the data set's images, know its classes, and that the generator gives bytes.

    Raises:
        EvaluationRefused: the first thing that does not fit, with the remedy.
    """
    for role, pinned in (("generator", generator), ("classifier", classifier), ("extractor", extractor)):
        name, dims = f"{pinned.model.key.name}, the {role},", pinned.model.sample_dims
        if dims != dataset.shape:
            raise EvaluationRefused(
                f"{name} is for images of {shape_words(dims)}, and {dataset.name} has {shape_words(dataset.shape)}; "
                f"name another {role} or reference"
            )
    if (size := math.prod(dataset.shape)) > _MOST_IMAGE_BYTES:
        raise EvaluationRefused(
            f"an image of {dataset.name} has {size} bytes, and at most {_MOST_IMAGE_BYTES} can be compared; "
            "evaluate on smaller images"
        )
    if Encoding.UINT8 not in generator.model.encodings:
        raise EvaluationRefused(f"{generator.model.key.name} cannot give UINT8, in which samples are compared")
    if generator.model.labels:
        _check_classes("generator", generator.model, dataset)
    _check_classes("classifier", classifier.model, dataset)


def shape_words(dims: Sequence[int]) -> str:
    """A shape for people, as in 28×28×1."""
    return "×".join(map(str, dims))


def name_list(names: Sequence[str]) -> str:
    """Names for people; the first few."""
    shown = ", ".join(repr(each[:80]) for each in names[:_NAMES_TOLD])
    return shown if len(names) <= _NAMES_TOLD else f"{shown} and {len(names) - _NAMES_TOLD} more"


def _check_classes(role: str, model: ServedModel, dataset: Dataset) -> None:
    """Insist that a model knows every class of a data set, by name."""
    known = set(model.labels)
    if unknown := [each for each in dataset.classes if each not in known]:
        raise EvaluationRefused(
            f"{model.key.name}, the {role}, does not know the {'class' if len(unknown) == 1 else 'classes'} "
            f"{name_list(unknown)} of {dataset.name}; its labels are {name_list(model.labels)}; "
            "labels and classes are matched by name"
        )
