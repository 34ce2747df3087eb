"""Metric parts, and the image sets that they compare: samples, held-out rows, reference samples of training rows.

A metric part is a small function of the evidence whose output is JSON. Statistics of realism and diversity compare the
samples with the held-out rows, and in the same way several reference samples: as many training rows, drawn without
replacement, in the place of samples. So the null distribution, what real rows score, comes from the same computation at
the same size. All draws are keyed by the evaluation's seed. Sets are of all rows, or of those of one class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from service.evaluation.evidence import Evidence, ImageSet, RealRows, Samples
from service.evaluation.results import Panel
from service.evaluation.statistics.intervals import BLOCKS
from service.evaluation.statistics.rows import Int64s

__all__ = [
    "DRAWS",
    "JSON",
    "ComparedSet",
    "MetricPart",
    "are_draws_distinct",
    "class_members",
    "held_out",
    "outputs_of_draws",
    "parts_with_draws",
    "random_generator",
    "reference_sample",
    "samples_or_reference",
]

JSON = Any
"""What `json` writes and reads back the same: None, bool, int, finite float, str, lists and dicts of such."""

DRAWS = 8
"""How many reference samples are drawn. With 8 draws the range is 2.5 standard deviations wide on each side."""


@dataclass(frozen=True, kw_only=True)
class MetricPart:
    """A step of a panel, of a few seconds at most.

    Attributes:
        name: unique among all parts; outputs are stored by it.
        panel: the first panel that uses it; later panels may read its output, too.
        stage: progress message.
        compute: evidence to JSON. The same evidence gives the same output.
    """

    name: str
    panel: Panel
    stage: str
    compute: Callable[[Evidence], JSON]


def parts_with_draws(
    name: str, panel: Panel, stage: str, compute: Callable[[int | None, Evidence], JSON]
) -> tuple[MetricPart, ...]:
    """Make the part that measures the samples, and one for each reference sample drawn in their place.

    Args:
        name: parts are called `name.samples` and `name.real.0`, `name.real.1`, ...
        panel: of the parts.
        stage: of the parts.
        compute: takes None for the samples or the number of a reference sample, and the evidence; its output is None
            for a reference sample that is not drawn.
    """
    draws: dict[str, int | None] = {f"{name}.samples": None} | {f"{name}.real.{draw}": draw for draw in range(DRAWS)}
    return tuple(
        MetricPart(name=each, panel=panel, stage=stage, compute=partial(compute, draw)) for each, draw in draws.items()
    )


def outputs_of_draws(outputs: Mapping[str, JSON], name: str) -> list[JSON]:
    """Return the outputs of the reference samples of `parts_with_draws` that were drawn."""
    return [output for draw in range(DRAWS) if (output := outputs[f"{name}.real.{draw}"]) is not None]


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedSet(ImageSet):
    """Images that are compared as a set.

    Attributes:
        blocks: of the jackknife; 1 for one of several reference samples, whose values show their spread themselves.
    """

    blocks: int = BLOCKS


def samples_or_reference(evidence: Evidence, draw: int | None, class_id: int | None = None) -> ComparedSet | None:
    """Return a reference sample by its number, as `reference_sample`, or for None the samples that it stands for.

    These are the first samples, at most as many as there are training rows.
    """
    if draw is not None:
        return reference_sample(evidence, draw, class_id)
    members = class_members(evidence, evidence.samples, class_id)
    return _take(evidence.samples, members[: len(class_members(evidence, evidence.training, class_id))])


def reference_sample(evidence: Evidence, draw: int, class_id: int | None = None) -> ComparedSet | None:
    """Draw as many training rows as samples are compared, without replacement.

    Returns:
        The rows; None for any draw but the first when it would repeat more than half of the training rows.
    """
    rows = class_members(evidence, evidence.training, class_id)
    count = min(len(class_members(evidence, evidence.samples, class_id)), len(rows))
    several = are_draws_distinct(count, len(rows))
    if draw > 0 and not several:
        return None
    random = random_generator(evidence.seed, "draw" if class_id is None else f"class {class_id}", draw)
    return _take(evidence.training, np.sort(random.choice(rows, count, replace=False)), blocks=1 if several else BLOCKS)


def held_out(evidence: Evidence, class_id: int | None = None) -> ComparedSet:
    """Return the held-out rows, which the other sets are compared with."""
    return _take(evidence.held_out, class_members(evidence, evidence.held_out, class_id))


def class_members(evidence: Evidence, rows: Samples | RealRows, class_id: int | None) -> Int64s:
    """Return the row numbers of a class, ascending; all of them for None.

    The class of a sample is its requested label, that of a real row its own; where the generator takes no labels, it is
    what the classifier predicts for either.
    """
    if class_id is None:
        return np.arange(len(rows))
    classes = rows.predicted if evidence.samples.labels is None else rows.labels
    return np.flatnonzero(classes == class_id)


def are_draws_distinct(rows: int, of: int) -> bool:
    """Return whether draws of `rows` from `of` differ enough to show a null distribution: they take at most half."""
    return 2 * rows <= of


def random_generator(seed: int, purpose: str, number: int = 0) -> np.random.Generator:
    """Make a generator keyed by the evaluation's seed, the purpose and a number; the same on every machine."""
    words = [seed & 0xFFFFFFFF, seed >> 32, number, *purpose.encode()]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def _take(rows: ImageSet, members: Int64s, blocks: int = BLOCKS) -> ComparedSet:
    first_rows = len(members) > 0 and members[-1] == len(members) - 1  # members are ascending; then nothing is copied
    chosen = slice(len(members)) if first_rows else members
    return ComparedSet(
        images=rows.images[chosen],
        features=rows.features[chosen],
        probabilities=rows.probabilities[chosen],
        blocks=blocks,
    )
