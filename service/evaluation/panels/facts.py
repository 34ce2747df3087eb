"""What is known beside what parts left: counts and names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from service.evaluation.evidence import Evidence

__all__ = ["Facts"]


@dataclass(frozen=True, kw_only=True)
class Facts:
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
