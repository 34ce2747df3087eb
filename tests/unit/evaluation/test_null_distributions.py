"""Null distributions: several reference samples show the spread themselves, so they are not jackknifed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.evaluation.panels.estimates import null_from_draws
from service.evaluation.panels.parts import reference_sample, samples_or_reference
from service.evaluation.panels.per_class import null_of_worst_class
from service.evaluation.panels.realism import PARTS
from service.evaluation.statistics.fid import Moments, estimate_fid
from service.evaluation.statistics.inception_score import estimate_inception_score
from service.evaluation.statistics.intervals import Estimate
from service.evaluation.statistics.kid import KernelSums, estimate_kid
from service.evaluation.statistics.sliced_wasserstein import SlicedReference, estimate_sliced_wasserstein
from service.evaluation.statistics.vendi_score import estimate_vendi
from tests.unit.evaluation.synthetic_evidence import evidence

ROWS, REAL = (np.random.default_rng(seed).normal(size=(90, 4)) for seed in (1, 2))
ESTIMATES = {
    "FID": lambda rows, **more: estimate_fid(rows, Moments.of(REAL), **more),
    "KID": lambda rows, **more: estimate_kid(rows, KernelSums.of(REAL), **more),
    "sliced": lambda rows, **more: estimate_sliced_wasserstein(rows, SlicedReference.of(REAL, 3, 8), **more),
    "Vendi": estimate_vendi,
    "inception score": lambda rows, **more: estimate_inception_score(
        np.exp(rows) / np.exp(rows).sum(axis=1)[:, None], **more
    ),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_a_single_block_gives_the_same_value_without_an_interval(name: str) -> None:
    alone, whole = ESTIMATES[name](ROWS, blocks=1), ESTIMATES[name](ROWS)
    assert whole.interval is not None
    assert alone == Estimate(pytest.approx(whole.value, rel=1e-9, abs=1e-12))


def test_only_a_single_reference_sample_has_an_interval() -> None:
    many, few = evidence(count=60, training=120, held_out=60), evidence(count=60, training=100, held_out=60)
    outputs = {part.name: part for part in PARTS}
    assert outputs["distances.real.0"].compute(many)["fid"]["interval"] is None
    assert outputs["distances.samples"].compute(many)["fid"]["interval"] is not None
    assert outputs["distances.real.0"].compute(few)["fid"]["interval"] is not None
    assert reference_sample(few, 1) is None
    assert replace(samples_or_reference(many, None), blocks=1).blocks == reference_sample(many, 0).blocks == 1


def test_a_single_value_without_an_interval_gives_no_range() -> None:
    draws = [{"value": None, "interval": None}, {"value": 2.0, "interval": None}]
    assert null_from_draws(draws, 10, 100) is None
    assert null_from_draws([draws[0], {"value": 2.0, "interval": [1.0, 3.0]}], 10, 100).range == (1.0, 3.0)


def test_the_worst_class_takes_classes_of_many_draws_and_of_one() -> None:
    many = [{"value": value, "interval": None} for value in (0.2, 1.0, 1.8)]
    one = [{"value": 1.0, "interval": [0.9, 1.1]}]
    assert null_of_worst_class([many, one], 10).range[0] < 0.2
