"""What a figure is: a named function of the evidence that leaves JSON, so that it can be a step of a job."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import Evidence
from service.evaluation.results import Panel

__all__ = ["Figure", "FigureData", "finite", "read_classes", "shown_classes"]

FigureData = dict[str, Any]
"""JSON: text, numbers without NaN, lists, and pictures as base64 of PNG."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: names it, lower case with dashes.
        stage: what people are told while it is made.
        needs: panels that must have been asked for; without them it is left out.
        compute: a few seconds at most; the same evidence gives the same JSON, to the last byte on one machine.
        restricted: it shows training rows, which only callers with a grant of their own may see.
    """

    name: str
    stage: str
    needs: frozenset[Panel]
    compute: Callable[[Evidence], FigureData]
    restricted: bool = False


def finite(value: float) -> float | None:
    """The number as JSON holds it; None: it is not finite."""
    return float(value) if math.isfinite(value) else None


def read_classes(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class the classifier reads: (n, classes) -> (n,) int64."""
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def shown_classes(evidence: Evidence) -> tuple[str, NDArray[np.int64]]:
    """By which class samples are sorted for people: "asked", or for unconditional models "read"; and (n,) int64."""
    if evidence.samples.labels is not None:
        return "asked", evidence.samples.labels
    return "read", read_classes(evidence.samples.probabilities)
