"""The synthesis of a PlanDatasetRequest, read: generator, filters and attempts; every wrong field is noted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.readers import Dataset, DatasetSplit
from fount.v1 import augmentation_pb2
from service.augmentation.open_plan import Pinned
from service.catalog.roles import Roles, class_labels
from service.domain import Parameters
from service.errors import Violation
from service.validation import read_parameters

__all__ = ["SynthesisReader", "SynthesisWish", "held_out_split"]

_MAX_ATTEMPTS = 64
_ATTEMPTS, _CONFIDENCE, _QUANTILE = 8, 0.5, 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesisWish:
    """How rows are synthesised.

    Attributes:
        generator: makes them.
        classifier: accepts or refuses them; None: nothing is asked.
        parameters: of the draws, the card's defaults filled in.
        min_confidence: 0: no filter.
        copy_quantile: 0: no filter.
        attempts: samples a row may try.
        generator_labels, classifier_labels: (classes,) uint32, as in `OpenPlan`.
    """

    generator: Pinned
    classifier: Pinned | None
    parameters: Parameters
    min_confidence: float
    copy_quantile: float
    attempts: int
    generator_labels: NDArray[np.uint32]
    classifier_labels: NDArray[np.uint32]


def held_out_split(dataset: Dataset, split: DatasetSplit) -> DatasetSplit | None:
    """The rows that a copy filter is calibrated on: "test", or else another split with rows; None if there is none."""
    others = [each for name, each in dataset.splits.items() if name != split.name and len(each)]
    return min(others, key=lambda each: each.name != "test", default=None)


class SynthesisReader:
    """Reads the synthesis of one request.

    Args:
        request: to be read.
        dataset, split: that it is for.
        roles: finds the models.
        default_classifier: the data set's; empty: none.
    """

    def __init__(
        self,
        request: augmentation_pb2.PlanDatasetRequest,
        dataset: Dataset,
        split: DatasetSplit,
        roles: Roles,
        default_classifier: str,
    ) -> None:
        self._request, self._dataset, self._split = request, dataset, split
        self._roles, self._default_classifier = roles, default_classifier
        self._violations: list[Violation] = []

    def read(self, violations: list[Violation]) -> SynthesisWish | None:
        """Read it; None, noted among `violations`, when there is none, or no generator.

        Other wrong fields are noted, too, and leave a wish.
        """
        self._violations = violations
        if not self._request.HasField("synthesis"):
            self._add("synthesis", "is needed, for mix.synthesised is above 0; name a generator in synthesis.model")
            return None
        wish = self._request.synthesis
        attempts = wish.attempts or _ATTEMPTS
        if attempts > _MAX_ATTEMPTS:
            self._add("synthesis.attempts", f"must be 1 to {_MAX_ATTEMPTS}, got {attempts}")
        quantile, classifier = self._read_quantile(), self._read_classifier()
        confidence = wish.min_confidence if wish.HasField("min_confidence") else _CONFIDENCE if classifier else 0.0
        generator = self._roles.find("generator", wish.model, "synthesis.model")
        if generator is None:
            return None
        if not generator.model.labels:
            self._add("synthesis.model", f"{generator.model.key.name} is unconditional; name a conditional generator")
        return SynthesisWish(
            generator=generator,
            classifier=classifier,
            parameters=read_parameters(wish.parameters, "synthesis.parameters", generator.model, self._violations),
            min_confidence=confidence,
            copy_quantile=quantile,
            attempts=attempts,
            generator_labels=class_labels(self._dataset, generator.model),
            classifier_labels=class_labels(self._dataset, classifier.model if classifier else None),
        )

    def _read_quantile(self) -> float:
        wish, held_out = self._request.synthesis, held_out_split(self._dataset, self._split)
        if not wish.HasField("copy_quantile"):
            return _QUANTILE if held_out else 0.0
        if not 0 <= wish.copy_quantile <= 0.5:  # NaN as well
            self._add("synthesis.copy_quantile", f"must be 0 to 0.5, got {wish.copy_quantile:g}")
        elif wish.copy_quantile and held_out is None:
            self._add(
                "synthesis.copy_quantile", f"must be 0: {self._dataset.name} has no other split to calibrate it on"
            )
        return wish.copy_quantile

    def _read_classifier(self) -> Pinned | None:
        wish, field = self._request.synthesis, "synthesis.min_confidence"
        wanted = wish.min_confidence if wish.HasField("min_confidence") else _CONFIDENCE
        if not 0 <= wanted <= 1:
            self._add(field, f"must be 0 to 1, got {wanted:g}")
        if wanted == 0:
            return None
        if wish.HasField("classifier"):
            return self._roles.find("classifier", wish.classifier, "synthesis.classifier")
        found = self._roles.find_default("classifier", self._default_classifier)
        if found is None and wish.HasField("min_confidence") and self._roles.refusal is None:
            self._add(field, f"must be 0: no classifier of {self._dataset.name} is served; or name one")
        return found

    def _add(self, field: str, description: str) -> None:
        self._violations.append(Violation(field=field, description=description))
