"""Unusable input: metrics without a number and with a note that gives the reason, never an exception, never NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.evaluation.evidence import RealRows
from service.evaluation.panels.registry import METRICS
from service.evaluation.results import Panel, Verdict
from tests.unit.evaluation.synthetic_evidence import (
    FEATURES,
    evaluate,
    evidence,
    images_of,
    labels_of,
    samples_of,
    with_samples,
)


def few(count: int = 60, training: int = 120, held_out: int = 60):
    return evidence(count=count, training=training, held_out=held_out)


def constant(of):
    return with_samples(of, samples_of(np.full_like(of.samples.images, 128), of.samples.labels))


def identical(of):
    return with_samples(of, samples_of(of.training.images[: len(of.samples)], of.training.labels[: len(of.samples)]))


def singular(of):
    def flat(rows):
        return replace(rows, features=np.repeat(rows.features[:, :1], FEATURES, axis=1))

    return replace(of, samples=flat(of.samples), held_out=flat(of.held_out), training=flat(of.training))


def without_class(of):
    labels = labels_of(len(of.samples)) % 2
    return with_samples(of, samples_of(images_of(labels, seed=5), labels))


def real_without_class(of):
    def without(rows: RealRows) -> RealRows:
        keep = rows.labels != 2
        return RealRows(
            **{name: getattr(rows, name)[keep] for name in ("images", "labels", "features", "probabilities", "numbers")}
        )

    held_out, training = without(of.held_out), without(of.training)
    changed = replace(of, held_out=held_out, training=training)
    return with_samples(changed, of.samples)


def constant_everything(of):
    def same(rows: RealRows) -> RealRows:
        return replace(rows, images=np.zeros_like(rows.images), features=np.zeros_like(rows.features))

    changed = replace(of, held_out=same(of.held_out), training=same(of.training))
    samples = replace(of.samples, images=np.zeros_like(of.samples.images), features=np.zeros_like(of.samples.features))
    return with_samples(changed, samples)


def no_label_grid(of):
    return replace(of, label_grid=None)


def tiny(_of):
    return evidence(count=4, training=5, held_out=4)


def one_sample(_of):
    return evidence(count=1, training=30, held_out=30)


BAD = (real_without_class, constant_everything, tiny)
ALSO_BAD = (constant, identical, singular, without_class, no_label_grid, one_sample)


@pytest.mark.parametrize(
    "make_bad",
    [*BAD, *(pytest.param(each, marks=pytest.mark.slow) for each in ALSO_BAD)],
    ids=lambda each: each.__name__,
)
def test_every_metric_has_a_number_or_a_note(make_bad) -> None:
    metrics, panels = evaluate(make_bad(few()), tuple(Panel))
    assert set(metrics) == set(METRICS)
    for each in metrics.values():
        assert each.value is not None or each.note, each.name
        numbers = [each.value, *(each.interval or ()), *((each.null.mean, *each.null.range) if each.null else ())]
        assert all(np.isfinite(number) for number in numbers if number is not None), each.name
    assert set(panels) == set(Panel)


def test_constant_samples_are_less_diverse() -> None:
    _, panels = evaluate(constant(few()), (Panel.DIVERSITY,))
    assert panels[Panel.DIVERSITY].verdict is Verdict.WORSE


def test_training_rows_are_copies() -> None:
    metrics, panels = evaluate(identical(few()), (Panel.MEMORISATION,))
    assert panels[Panel.MEMORISATION].verdict is Verdict.WORSE
    assert metrics["exact_copies"].value == 1.0


def test_a_class_without_samples_has_no_value() -> None:
    metrics, _ = evaluate(without_class(few()), (Panel.DIVERSITY, Panel.LABEL_FIDELITY))
    assert metrics["label_agreement"].classes[2].value is None
    assert metrics["recall"].classes[2].value is None


def test_there_is_no_verdict_where_nothing_could_be_computed() -> None:
    _, panels = evaluate(tiny(None), (Panel.REALISM,))
    assert panels[Panel.REALISM].verdict is Verdict.NONE
    assert panels[Panel.REALISM].sentence == "No verdict: none of the deciding metrics could be computed."


def test_with_few_training_rows_the_null_is_the_interval_of_one_draw() -> None:
    metrics, _ = evaluate(evidence(count=90, training=100, held_out=100), (Panel.REALISM,))
    null = metrics["precision"].null
    assert null is not None
    assert (null.draws, null.rows) == (0, 90)
    assert null.range[0] < null.range[1]


def test_no_more_samples_are_compared_than_there_are_training_rows() -> None:
    metrics, _ = evaluate(evidence(count=200, training=120, held_out=100), (Panel.REALISM, Panel.LABEL_FIDELITY))
    assert metrics["precision"].samples == 120
    assert metrics["label_agreement"].samples == 200
