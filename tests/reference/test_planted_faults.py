"""Faults planted into real handwritten digits are detected by their panel, with the shipped classifier's features."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evaluation.faults import measure, problems, read_with
from benchmarks.evaluation.injected_faults import (
    LabelledImages,
    Source,
    build_evidence,
    evaluate,
    faults,
    nearest_rows,
    real_rows,
)
from fount.readers.digits import read_digits
from service.evaluation.results import Panel, Verdict

ROOT = Path(__file__).resolve().parents[2]
MNIST = os.environ.get("FOUNT_DATA")
FAULTS = {each.name: each for each in faults(prototypes=40)}


@cache
def digits():
    read = read_with(ROOT / "model_store" / "digits-classifier")
    splits = read_digits().splits.values()
    images = np.concatenate([each.images(np.arange(len(each))) for each in splits])
    labels = np.concatenate([each.labels for each in splits]).astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    training, held_out = (real_rows(images[rows], labels[rows], read) for rows in (order[:800], order[800:1250]))
    pool = LabelledImages(images=images[order[1250:]], labels=labels[order[1250:]])
    drawn = LabelledImages(images=pool.images[:400], labels=pool.labels[:400])
    far = nearest_rows(held_out.images, held_out.features, training)
    return Source(drawn=drawn, pool=pool, training=training, read=read, random=np.random.default_rng(1)), held_out, far


@cache
def known():
    return {}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("none", "collapse", "label shuffle")]


@pytest.mark.parametrize("name", ["copies", *SLOW])
def test_its_own_panel_detects_a_fault_in_digits(name: str) -> None:
    source, held_out, far = digits()
    fault, classes = FAULTS[name], tuple(map(str, range(10)))
    rows = np.stack([np.flatnonzero(source.pool.labels == each)[:20] for each in range(10)], axis=1)
    near = {space: distances for space, (distances, _) in far.items()}
    of = build_evidence(
        fault.inject(source), source.pool.images[rows], source.training, held_out, source.read, classes, near
    )
    _, found = evaluate(of, known())
    assert {each.panel for each in found if each.verdict is Verdict.WORSE} == fault.fires, found


def test_every_panel_has_a_fault() -> None:
    assert {panel for each in FAULTS.values() for panel in each.fires} == set(Panel)


@pytest.mark.slow
@pytest.mark.skipif(MNIST is None, reason="MNIST is not available; set FOUNT_DATA to its folder")
def test_every_panel_detects_its_own_fault_alone_on_mnist() -> None:
    assert [problem for row in measure(Path(str(MNIST))) for problem in problems(row)] == []
