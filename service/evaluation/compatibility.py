"""Check whether a data set and the models of an evaluation fit each other: image shapes, classes, encoding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fount.readers import Dataset
from service.domain import Encoding, ServedModel, Target
from service.errors import EvaluationRefused
from service.evaluation.specification import PinnedModel

__all__ = ["PinnedRole", "check_fit", "check_kind", "format_names", "format_shape"]

_LISTED_NAMES = 5
_MOST_IMAGE_BYTES = 3 << 20  # an image is sent in one message, which holds 4 MiB


@dataclass(frozen=True, kw_only=True, eq=False)
class PinnedRole:
    """A model of an evaluation, with the workers that serve it."""

    target: Target
    model: ServedModel

    @property
    def pin(self) -> PinnedModel:
        """Its identity in a specification."""
        key = self.target.model
        return PinnedModel(name=key.name, version=key.version, digest=key.digest, numerics=self.target.numerics)


def check_kind(model: ServedModel) -> None:
    """Check that a generator draws images.

    Raises:
        EvaluationRefused: it draws vectors or texts.
    """
    if not model.is_image:
        drawn = "texts" if model.is_text else f"vectors of length {format_shape(model.sample_dims)}"
        raise EvaluationRefused(
            f"{model.key.name} draws {drawn}, and the panels compare "
            "images, as an extractor and a classifier read them; see the quality in its card, which `fount quality` "
            "measures again"
        )


def check_fit(dataset: Dataset, generator: PinnedRole, classifier: PinnedRole, extractor: PinnedRole) -> None:
    """Check that models take the data set's images and know its classes, and that the generator can return bytes.

    Raises:
        EvaluationRefused: the first mismatch, with the remedy.
    """
    for role, pinned in (("generator", generator), ("classifier", classifier), ("extractor", extractor)):
        name, dims = f"{pinned.model.key.name}, the {role},", pinned.model.sample_dims
        if dims != dataset.shape:
            raise EvaluationRefused(
                f"{name} is for images of {format_shape(dims)}, and {dataset.name} has {format_shape(dataset.shape)}; "
                f"name another {role} or reference"
            )
    if (size := math.prod(dataset.shape)) > _MOST_IMAGE_BYTES:
        raise EvaluationRefused(
            f"an image of {dataset.name} has {size} bytes, and at most {_MOST_IMAGE_BYTES} can be compared; "
            "evaluate on smaller images"
        )
    if Encoding.UINT8 not in generator.model.encodings:
        raise EvaluationRefused(
            f"{generator.model.key.name} cannot return UINT8, the encoding in which samples are compared"
        )
    roles = {"generator": generator.model, "classifier": classifier.model}
    for role, model in roles.items():
        known = set(model.labels)
        unknown = [each for each in dataset.classes if each not in known]
        if unknown and (model.labels or role == "classifier"):  # a generator without labels is unconditional
            raise EvaluationRefused(
                f"{model.key.name}, the {role}, does not know the {'class' if len(unknown) == 1 else 'classes'} "
                f"{format_names(unknown)} of {dataset.name}; its labels are {format_names(model.labels)}; "
                "labels and classes are matched by name"
            )


def format_shape(dims: Sequence[int]) -> str:
    """Format a shape as in 28×28×1."""
    return "×".join(map(str, dims))


def format_names(names: Sequence[str]) -> str:
    """List the first few names."""
    shown = ", ".join(repr(each[:80]) for each in names[:_LISTED_NAMES])
    return shown if len(names) <= _LISTED_NAMES else f"{shown} and {len(names) - _LISTED_NAMES} more"
