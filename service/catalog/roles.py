"""The models of a plan in their roles: generator, classifier, transformer, verifier.

References enter, as a request or a ticket has them; what workers serve now leaves, or the reason why not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fount.readers import Dataset
from fount.v1 import model_pb2
from service.augmentation.open_plan import Pinned
from service.catalog import Catalog, Entry
from service.domain import Operation, ServedModel
from service.errors import FountServiceError, InvalidRequest, NotReady, PlanRefused, Retired, UnknownName, Violation

__all__ = ["Roles", "class_labels", "unknown_classes"]

_TRANSFORMER = "transforms"
"""The built-in transformer; any other model with the operation serves when it is absent."""

_OPERATIONS = {
    "generator": Operation.SAMPLE,
    "classifier": Operation.CLASSIFY,
    "verifier": Operation.CLASSIFY,
    "transformer": Operation.TRANSFORM,
}


class Roles:
    """Finds models for one request.

    Args:
        catalog: what is served.
        dataset: whose images they make or read.
        numerics: by role, where they are pinned.

    Attributes:
        violations: wrong references.
        refusal: the first reason why a well-named model cannot do it; None so far.
    """

    def __init__(self, catalog: Catalog, dataset: Dataset, numerics: Mapping[str, str]) -> None:
        self._catalog, self._dataset, self._numerics = catalog, dataset, numerics
        self.violations: list[Violation] = []
        self.refusal: FountServiceError | None = None

    def find(self, role: str, ref: model_pb2.ModelRef, field: str) -> Pinned | None:
        """The model of a reference; None, noted, when there is none."""
        try:
            entry = self._catalog.find(ref.name, ref.version, ref.digest)
            pinned = self._pin(role, entry, ref.digest)
        except InvalidRequest as error:
            self.violations += [
                Violation(
                    field=each.field.replace("model", field, 1), description=each.description, unknown=each.unknown
                )
                for each in error.violations
            ]
            return None
        except (NotReady, Retired) as error:
            self.refuse(error)
            return None
        self._check_shape(role, pinned.model)
        return pinned

    def find_default(self, role: str, name: str) -> Pinned | None:
        """The model that configuration names, if it is served; None without a word if not."""
        if not name or not any(entry.name == name for entry in self._catalog.entries()):
            return None
        return self.find(role, model_pb2.ModelRef(name=name), role)

    def transformer(self) -> Pinned | None:
        """The model that transforms images; None, noted, when none is served."""
        able = [entry for entry in self._catalog.entries() if entry.is_default and _can_transform(entry)]
        if not able:
            self.refuse(self._why_no_transformer())
            return None
        entry = min(able, key=lambda each: (each.name != _TRANSFORMER, each.name))
        return self.find("transformer", model_pb2.ModelRef(name=entry.name, version=entry.version), "transformer")

    def _why_no_transformer(self) -> FountServiceError:
        try:
            entry = self._catalog.find(_TRANSFORMER)
        except UnknownName:
            return PlanRefused(
                "no model with the operation TRANSFORM is served; serve the archive `transforms` beside the others"
            )
        except NotReady as error:
            return error
        return NotReady(f"{entry.name} {entry.version} is not ready: {entry.reason}")

    def refuse(self, refusal: FountServiceError) -> None:
        """Note why it cannot be done; the first reason counts."""
        self.refusal = self.refusal or refusal

    def _pin(self, role: str, entry: Entry, digest: str) -> Pinned:
        numerics = self._numerics.get(role, "")
        target, model = self._catalog.choose(entry, _OPERATIONS[role], digest=digest, numerics=numerics)
        return Pinned(role=role, target=target, model=model)

    def _check_shape(self, role: str, model: ServedModel) -> None:
        if role == "transformer" or model.sample_dims == self._dataset.shape:
            return
        theirs, ours = ("×".join(map(str, each)) for each in (model.sample_dims, self._dataset.shape))
        self.refuse(
            PlanRefused(
                f"{model.key.name}, the {role}, is for images of {theirs}, and {self._dataset.name} has {ours}; "
                f"name a {role} of that shape"
            )
        )


def class_labels(dataset: Dataset, model: ServedModel | None) -> NDArray[np.uint32]:
    """A model's label of each class of a data set, by name; a number beyond its labels where it has none."""
    labels = model.labels if model else ()
    places = {name: place for place, name in enumerate(labels)}
    return np.array([places.get(name, len(labels)) for name in dataset.classes], np.uint32)


def unknown_classes(dataset: Dataset, labels: NDArray[np.uint32], model: ServedModel, of: set[int]) -> list[str]:
    """The names of those classes, among some, that a model does not know."""
    return [dataset.classes[k] for k in sorted(of) if labels[k] >= len(model.labels)]


def _can_transform(entry: Entry) -> bool:
    return entry.model is not None and Operation.TRANSFORM in entry.model.operations
