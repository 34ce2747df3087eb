"""A part of a panel: one small function of the evidence, whose output is JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast
from weakref import WeakKeyDictionary

from service.evaluation.evidence import Evidence
from service.evaluation.results import Panel

__all__ = ["JSON", "EvidenceSummary", "MetricPart", "cached_per_evidence"]


JSON = Any
"""What `json` writes and reads back the same: None, bool, int, finite float, str, lists and dicts of such."""


@dataclass(frozen=True, kw_only=True)
class MetricPart:
    """A step of a panel, of a few seconds at most.

    Attributes:
        name: unique among all parts; outputs are kept by it.
        panel: the first question it is for; later panels may read its output, too.
        stage: words for people.
        compute: evidence to JSON. The same evidence gives the same output.
    """

    name: str
    panel: Panel
    stage: str
    compute: Callable[[Evidence], JSON]


# FOLDED FROM service.evaluation.panels.part:
# What several parts need of the same evidence, computed once: kept as long as the evidence is, and never
# beyond.


_Value = TypeVar("_Value")
_KEPT: WeakKeyDictionary[Evidence, dict[str, Any]] = WeakKeyDictionary()


def cached_per_evidence(evidence: Evidence, name: str, compute: Callable[[], _Value]) -> _Value:
    """Compute something of the evidence, or give what was computed before.

    Two threads that come at once both compute it, to the same value.
    """
    kept = _KEPT.setdefault(evidence, {})
    if name not in kept:
        kept[name] = compute()
    return cast(_Value, kept[name])


# FOLDED FROM service.evaluation.panels.part:
# What is known beside what parts left: counts and names.


@dataclass(frozen=True, kw_only=True)
class EvidenceSummary:
    """Counts and names.

    Attributes:
        samples: that were drawn and read; failed ones are not among them.
        failed: samples left out.
        compared: the first samples, as many as there are training rows at most: those that are compared as sets.
        training_rows, held_out_rows: real rows.
        features: how many numbers describe an image.
        classes: names, in order of their id.
        conditional: samples were asked for by label.
        seed: of everything that is drawn.
        extractor, classifier: names of the models that read the images.
    """

    samples: int
    failed: int
    compared: int
    training_rows: int
    held_out_rows: int
    features: int
    classes: tuple[str, ...]
    conditional: bool
    seed: int
    extractor: str = "the extractor"
    classifier: str = "the classifier"

    @classmethod
    def of(cls, evidence: Evidence, *, extractor: str = "the extractor", classifier: str = "the classifier") -> Self:
        """Read them off the evidence."""
        samples = evidence.samples
        return cls(
            samples=len(samples),
            failed=evidence.failed,
            compared=min(len(samples), len(evidence.training)),
            training_rows=len(evidence.training),
            held_out_rows=len(evidence.held_out),
            features=samples.features.shape[1],
            classes=evidence.classes,
            conditional=samples.labels is not None,
            seed=evidence.seed,
            extractor=extractor,
            classifier=classifier,
        )
