"""The birthday test: how many different things samples are, overall and in each class, beside real rows.

The threshold is set on held-out rows; the real rate is that of all training rows in random order; draws of training
rows show how far the ratio of two such rates strays.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.evaluation.evidence import Evidence
from service.evaluation.panels.memory import remember
from service.evaluation.panels.part import JSON, Part
from service.evaluation.panels.reference_sample import (
    DRAWS,
    Standing,
    class_samples,
    class_standing,
    classes_of,
    generator,
    held_out_class,
    real_draw,
)
from service.evaluation.results import Panel
from service.evaluation.statistics.birthday import ENOUGH, calibrate, count_collisions

__all__ = ["BIRTHDAY", "BIRTHDAY_PARTS", "ENOUGH_REAL", "FEWEST_IN_CLASS"]

BIRTHDAY = "birthday"
ENOUGH_REAL = 100
"""Pairs counted among all training rows, which make the rate that samples are compared with."""
FEWEST_IN_CLASS = 20
"""Samples, held-out rows and training rows that a class needs to be looked at alone."""
_STAGE = "counting duplicates"

Features = NDArray[np.float32]


def _overall(evidence: Evidence) -> JSON:
    return _count(evidence, None, evidence.samples.features, ENOUGH)


def _overall_rate(evidence: Evidence) -> JSON:
    order = generator(evidence.seed, "rate").permutation(len(evidence.training))
    return _count(evidence, None, evidence.training.features[order], ENOUGH_REAL)


def _overall_draw(number: int, evidence: Evidence) -> JSON:
    drawn = real_draw(evidence, number)
    return None if drawn is None else _count(evidence, None, _shuffled(drawn, evidence, number), ENOUGH)


def _classes(evidence: Evidence) -> JSON:
    return [
        _count(evidence, each, class_samples(evidence, each).features, ENOUGH) for each in range(len(evidence.classes))
    ]


def _classes_rate(evidence: Evidence) -> JSON:
    of = classes_of(evidence, evidence.training)
    found = []
    for each in range(len(evidence.classes)):
        rows = generator(evidence.seed, f"rate {each}").permutation(np.flatnonzero(of == each))
        found.append(_count(evidence, each, evidence.training.features[rows], ENOUGH_REAL))
    return found


def _classes_draw(number: int, evidence: Evidence) -> JSON:
    found: list[JSON] = []
    for each in range(len(evidence.classes)):
        drawn = class_standing(evidence, each, number)
        found.append(None if drawn is None else _count(evidence, each, _shuffled(drawn, evidence, number), ENOUGH))
    return found


def _count(evidence: Evidence, class_id: int | None, features: Features, enough: int) -> JSON:
    """Collisions as JSON, of all classes or of one; None where there are too few rows."""
    held_out = evidence.held_out.features if class_id is None else held_out_class(evidence, class_id).features
    if min(len(held_out), len(features)) < FEWEST_IN_CLASS:
        return None
    threshold = remember(evidence, f"threshold {class_id}", lambda: calibrate(held_out))
    found = count_collisions(features, threshold, enough=enough)
    return asdict(found)


def _shuffled(drawn: Standing, evidence: Evidence, number: int) -> Features:
    return drawn.features[generator(evidence.seed, "order", number).permutation(len(drawn))]


def _part(name: str, compute: partial[JSON]) -> Part:
    return Part(name=f"{BIRTHDAY}.{name}", panel=Panel.DIVERSITY, stage=_STAGE, compute=compute)


BIRTHDAY_PARTS: tuple[Part, ...] = (
    _part("samples", partial(_overall)),
    _part("rate", partial(_overall_rate)),
    *(_part(f"real.{number}", partial(_overall_draw, number)) for number in range(DRAWS)),
    _part("classes.samples", partial(_classes)),
    _part("classes.rate", partial(_classes_rate)),
    *(_part(f"classes.real.{number}", partial(_classes_draw, number)) for number in range(DRAWS)),
)
