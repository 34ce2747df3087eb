"""Find the models of a plan: those that a request names or leaves to configuration, and those that a ticket pins.

A reference in a field of the request enters; a `PinnedModel` leaves, or None with the reason noted: wrong names in
`Violations`, the first model that is named correctly and cannot serve in `refusal`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fount.readers import Dataset
from fount.v1 import augmentation_pb2, model_pb2
from service.catalog import ROLES, TRANSFORMER, Catalog, PinnedModel, not_ready
from service.domain import ServedModel
from service.errors import FountServiceError, InvalidRequest, NotReady, PlanRefused, Retired, UnknownName
from service.rpc.fields import NO_TRANSFORMER, Violations

__all__ = ["ModelFinder", "Pins"]

Pins = Iterable[augmentation_pb2.PinnedModel]
"""The models of a ticket."""


class ModelFinder:
    """Finds the models of one request.

    Args:
        dataset: whose rows they make or read.
        classifier: its classifier by configuration; empty: it has none.
        catalog: the served models.
        pins: of a ticket, which needs no others; None: the request is a client's.
        wrong: appended to.

    Attributes:
        refusal: the first reason why a correctly named model cannot serve; None: all can.
    """

    def __init__(
        self, dataset: Dataset, classifier: str, catalog: Catalog, pins: Pins | None, wrong: Violations
    ) -> None:
        self._dataset, self._classifier, self._catalog, self._wrong = dataset, classifier, catalog, wrong
        self._pins = None if pins is None else {(each.role, each.model.digest): each for each in pins}
        self.refusal: FountServiceError | None = None

    def is_needed(self, role: str) -> bool:
        """Whether to find a model: of a ticket, only those it pins, since rows depend on no other."""
        return self._pins is None or any(role == pinned for pinned, _ in self._pins)

    def find(self, role: str, reference: model_pb2.ModelRef, field: str) -> PinnedModel | None:
        """Find the model of a reference in `field` of the request; None, with the reason noted, when there is none."""
        pin = (self._pins or {}).get((role, reference.digest))
        numerics = pin.numerics if pin else ""
        try:
            entry = self._catalog.find(reference.name, reference.version, reference.digest)
            for operation in ROLES[role]:
                target, model = self._catalog.choose(entry, operation, digest=reference.digest, numerics=numerics)
        except InvalidRequest as error:
            self._wrong += [replace(each, field=each.field.replace("model", field, 1)) for each in error.violations]
            return None
        except (NotReady, Retired) as error:
            self._refuse(error)
            return None
        if role != "transformer":
            self._check_shape(role, model)
        return PinnedModel(role=role, target=target, model=model)

    def find_default(self, role: str) -> PinnedModel | None:
        """Find the classifier that configuration names; None, with nothing noted, when it is not served."""
        name = self._classifier
        if not name or not any(entry.name == name for entry in self._catalog.entries()):
            return None
        return self.find(role, model_pb2.ModelRef(name=name), role)

    def find_transformer(self) -> PinnedModel | None:
        """Find the model that transforms images; None: a ticket has none, or, with the reason noted, none is served."""
        if self._pins is not None:
            pins = [pin for (role, _), pin in self._pins.items() if role == "transformer"]
            return self.find("transformer", pins[0].model, "transformer") if pins else None
        if entry := self._catalog.transformer():
            reference = model_pb2.ModelRef(name=entry.name, version=entry.version)
            return self.find("transformer", reference, "transformer")
        try:
            self._refuse(not_ready(self._catalog.find(TRANSFORMER)))
        except UnknownName:
            self._refuse(PlanRefused(NO_TRANSFORMER))
        except NotReady as error:
            self._refuse(error)
        return None

    def _check_shape(self, role: str, model: ServedModel) -> None:
        """Refuse a model whose images, or those that it translates, are not of the data set's shape."""
        shapes = {"is for": model.sample_dims} | ({"translates": model.input_dims} if role == "translator" else {})
        for verb, dims in shapes.items():
            if dims != self._dataset.shape:
                theirs, ours = ("×".join(map(str, each)) for each in (dims, self._dataset.shape))
                kind = "texts" if model.is_text else f"{'images' if model.is_image else 'vectors'} of {theirs}"
                message = f"{model.key.name}, the {role}, {verb} {kind}, and {self._dataset.name} has {ours}"
                self._refuse(PlanRefused(f"{message}; name a {role} of that shape"))

    def _refuse(self, error: FountServiceError) -> None:
        self.refusal = self.refusal or error
