"""Find served models for the roles of a plan: generator, classifier, verifier and transformer.

References enter as a request or a ticket names them. Models with their workers leave; wrong references and the first
reason why a named model cannot serve are collected, so that a caller learns everything at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.readers import Dataset
from service.catalog.catalog import Catalog, Entry
from service.domain import ModelKey, Operation, ServedModel, Target
from service.errors import FountServiceError, InvalidRequest, NotReady, PlanRefused, Retired, UnknownName, Violation

__all__ = [
    "NO_TRANSFORMER",
    "PinnedModel",
    "RoleResolver",
    "class_labels",
    "default_transformer",
]

NO_TRANSFORMER = "no model with the operation TRANSFORM is served; serve the archive `transforms` as well"

_TRANSFORMER = "transforms"
"""The built-in transformer; without it, any other model with the operation serves."""

_OPERATIONS = {
    "generator": Operation.SAMPLE,
    "classifier": Operation.CLASSIFY,
    "verifier": Operation.CLASSIFY,
    "transformer": Operation.TRANSFORM,
}


@dataclass(frozen=True, kw_only=True)
class PinnedModel:
    """A model in a role of a plan, with the workers that must run it.

    Attributes:
        role: "generator", "classifier", "transformer" or "verifier".
        target: its workers, all of the pinned numerics.
        model: what it accepts.
    """

    role: str
    target: Target
    model: ServedModel


class RoleResolver:
    """Finds the models of one request.

    Args:
        catalog: the served models.
        dataset: the data set whose images the models make or read.
        numerics: pinned numerics by role; any numerics for other roles.

    Attributes:
        violations: wrong references.
        refusal: the first reason why a correctly named model cannot serve; None so far.
    """

    def __init__(self, catalog: Catalog, dataset: Dataset, numerics: Mapping[str, str]) -> None:
        self._catalog, self._dataset, self._numerics = catalog, dataset, numerics
        self.violations: list[Violation] = []
        self.refusal: FountServiceError | None = None

    def find(self, role: str, reference: ModelKey, field: str) -> PinnedModel | None:
        """Find the model of a reference, which `field` of the request holds; None, with the reason noted, without one.

        The reference's version and digest may be empty.
        """
        try:
            entry = self._catalog.find(reference.name, reference.version, reference.digest)
            numerics = self._numerics.get(role, "")
            target, model = self._catalog.choose(entry, _OPERATIONS[role], digest=reference.digest, numerics=numerics)
        except InvalidRequest as error:
            self.violations += [
                Violation(
                    field=each.field.replace("model", field, 1), description=each.description, unknown=each.unknown
                )
                for each in error.violations
            ]
            return None
        except (NotReady, Retired) as error:
            self._refuse(error)
            return None
        self._check_shape(role, model)
        return PinnedModel(role=role, target=target, model=model)

    def find_default(self, role: str, name: str) -> PinnedModel | None:
        """Find the model that configuration names; None, with nothing noted, when it is not served."""
        if not name or not any(entry.name == name for entry in self._catalog.entries()):
            return None
        return self.find(role, ModelKey(name=name, version="", digest=""), role)

    def find_transformer(self) -> PinnedModel | None:
        """Find a model that transforms images; None, with the reason noted, when none is served."""
        entry = default_transformer(self._catalog)
        if entry is None:
            self._refuse(self._why_no_transformer())
            return None
        return self.find("transformer", ModelKey(name=entry.name, version=entry.version, digest=""), "transformer")

    def _why_no_transformer(self) -> FountServiceError:
        try:
            entry = self._catalog.find(_TRANSFORMER)
        except UnknownName:
            return PlanRefused(NO_TRANSFORMER)
        except NotReady as error:
            return error
        return NotReady(f"{entry.name} {entry.version} is not ready: {entry.reason}")

    def _refuse(self, refusal: FountServiceError) -> None:
        self.refusal = self.refusal or refusal

    def _check_shape(self, role: str, model: ServedModel) -> None:
        if role == "transformer" or model.sample_dims == self._dataset.shape:
            return
        theirs, ours = ("×".join(map(str, each)) for each in (model.sample_dims, self._dataset.shape))
        self._refuse(
            PlanRefused(
                f"{model.key.name}, the {role}, is for images of {theirs}, and {self._dataset.name} has {ours}; "
                f"name a {role} of that shape"
            )
        )


def default_transformer(catalog: Catalog) -> Entry | None:
    """Choose the served model that transforms images where a request names none."""
    able = [
        entry
        for entry in catalog.entries()
        if entry.is_default and entry.model and Operation.TRANSFORM in entry.model.operations
    ]
    return min(able, key=lambda each: (each.name != _TRANSFORMER, each.name), default=None)


def class_labels(dataset: Dataset, model: ServedModel | None) -> NDArray[np.uint32]:
    """Map the classes of a data set to a model's labels by name; the number of labels where it has no such label."""
    labels = model.labels if model else ()
    places = {name: place for place, name in enumerate(labels)}
    return np.array([places.get(name, len(labels)) for name in dataset.classes], np.uint32)
