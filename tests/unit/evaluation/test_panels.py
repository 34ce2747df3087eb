"""The panels: like real on real rows, and worse on the fault that each of them detects."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from service.evaluation.panels.estimates import build_metric
from service.evaluation.panels.registry import (
    FEWEST_SAMPLES,
    METRICS,
    PER_CLASS_METRICS,
    needs_label_grid,
    needs_neighbours,
    parts_of,
)
from service.evaluation.results import Null, Panel, Verdict
from tests.unit.evaluation.synthetic_evidence import (
    CLASSES,
    evaluate,
    evidence,
    images_of,
    label_grid_of,
    labels_of,
    log_likelihoods,
    samples_of,
    with_samples,
)

REAL = (Verdict.LIKE_REAL, Verdict.NEAR_REAL)
COUNT = 240


@cache
def real_evidence(conditional: bool = True):
    return evidence(count=COUNT, training=720, held_out=COUNT, conditional=conditional)


@pytest.fixture(scope="module")
def of_real_rows():
    return evaluate(real_evidence(), tuple(Panel))


def test_every_panel_is_like_or_near_real_on_real_rows(of_real_rows) -> None:
    assert {panel: each.verdict in REAL for panel, each in of_real_rows[1].items()} == dict.fromkeys(Panel, True)


def test_the_registry_lists_every_metric(of_real_rows) -> None:
    assert {name: each.panel for name, each in of_real_rows[0].items()} == dict(METRICS)
    assert {name for name, each in of_real_rows[0].items() if each.classes} == PER_CLASS_METRICS


def test_every_metric_has_a_method_and_a_null_distribution_or_a_note(of_real_rows) -> None:
    for each in of_real_rows[0].values():
        assert each.method, each.name
        assert each.value is not None, each.name
        assert each.null is not None or each.note, each.name
        assert [of.class_name for of in each.classes] == (list(CLASSES) if each.classes else []), each.name


@pytest.mark.parametrize(("gap", "verdict"), [(0.0, REAL), (30.0, (Verdict.WORSE,)), (-30.0, REAL)])
def test_training_rows_that_are_likelier_than_held_out_rows_show_a_gap(gap: float, verdict) -> None:
    of = replace(real_evidence(), log_likelihoods=log_likelihoods(gap))
    found = evaluate(of, (Panel.MEMORISATION,))[0]["train_test_gap"]
    assert found.value == pytest.approx(gap, abs=2)
    assert found.interval[0] < found.value < found.interval[1]
    assert (found.null.mean, found.null.range[0]) == (0.0, -found.null.range[1])
    assert (found.verdict in verdict, found.decides) == (True, False)


def test_a_model_without_scores_has_no_gap() -> None:
    of = replace(real_evidence(), log_likelihoods=None)
    assert "train_test_gap" not in evaluate(of, (Panel.MEMORISATION,))[0]


def test_too_few_scores_are_a_note() -> None:
    of = replace(real_evidence(), log_likelihoods=log_likelihoods(rows=1))
    found = evaluate(of, (Panel.MEMORISATION,))[0]["train_test_gap"]
    assert (found.value, found.verdict, "too few" in found.note) == (None, Verdict.NONE, True)


def test_parts_are_deterministic() -> None:
    first = [each.compute(real_evidence()) for each in parts_of((Panel.MEMORISATION, Panel.LABEL_FIDELITY), True)]
    assert first == [
        each.compute(real_evidence()) for each in parts_of((Panel.MEMORISATION, Panel.LABEL_FIDELITY), True)
    ]


def test_parts_have_unique_names() -> None:
    names = [each.name for each in parts_of(tuple(Panel), True)]
    assert len(names) == len(set(names))
    assert {each.panel for each in parts_of((Panel.DIVERSITY,), True)} == {Panel.DIVERSITY}


def test_evidence_caches_values_and_a_changed_copy_does_not_share_them() -> None:
    of = evidence(count=9, training=9, held_out=9)
    assert [of.cached("value", lambda: 1), of.cached("value", lambda: 2)] == [1, 1]
    assert replace(of, failed=1).cached("value", lambda: 3) == 3


def test_panels_state_what_they_need() -> None:
    assert needs_neighbours((Panel.MEMORISATION,))
    assert not needs_neighbours((Panel.REALISM, Panel.DIVERSITY))
    assert needs_label_grid((Panel.LABEL_FIDELITY,))
    assert not needs_label_grid((Panel.REALISM,))
    assert [FEWEST_SAMPLES[panel] for panel in Panel] == [100, 100, 50, 50]


def test_label_fidelity_of_a_model_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="takes no labels"):
        parts_of((Panel.LABEL_FIDELITY,), False)


def test_predicted_classes_are_used_where_there_are_no_labels() -> None:
    metrics, panels = evaluate(real_evidence(conditional=False), (Panel.DIVERSITY,))
    assert panels[Panel.DIVERSITY].verdict in REAL
    assert all(each.value is not None for each in metrics["recall"].classes)


def with_images(images, labels=None):
    of = real_evidence()
    return with_samples(of, samples_of(images, of.samples.labels if labels is None else labels))


def test_realism_detects_noise() -> None:
    images = real_evidence().samples.images
    noisy = images + np.random.default_rng(5).normal(0, 40, images.shape)
    metrics, panels = evaluate(with_images(np.clip(noisy, 0, 255).astype(np.uint8)), (Panel.REALISM,))
    assert panels[Panel.REALISM].verdict is Verdict.WORSE
    assert metrics["precision"].verdict is Verdict.WORSE
    assert panels[Panel.REALISM].sentence.startswith("Samples are less realistic than real rows: ")


def test_diversity_detects_collapse() -> None:
    images = images_of(labels_of(9), seed=6)
    metrics, panels = evaluate(with_images(images[np.arange(COUNT) % 9]), (Panel.DIVERSITY,))
    assert panels[Panel.DIVERSITY].verdict is Verdict.WORSE
    low, high = metrics["effective_size"].interval
    assert low <= 9 <= high


def test_diversity_detects_the_collapse_of_one_class() -> None:
    images = real_evidence().samples.images.copy()
    images[labels_of(COUNT) == 1] = images[1]
    metrics, panels = evaluate(with_images(images), (Panel.DIVERSITY,))
    assert panels[Panel.DIVERSITY].verdict is Verdict.WORSE
    worst = metrics["worst_class_effective_size_ratio"]
    assert worst.verdict is Verdict.WORSE
    assert worst.note == "The lowest is that of class 'one'"
    assert [each.verdict is Verdict.WORSE for each in metrics["effective_size_ratio"].classes] == [False, True, False]


def test_diversity_detects_a_missing_class() -> None:
    of = evidence(count=COUNT, training=720, held_out=COUNT, conditional=False)
    labels = labels_of(COUNT) % 2
    metrics, panels = evaluate(with_samples(of, samples_of(images_of(labels, seed=8), None)), (Panel.DIVERSITY,))
    assert panels[Panel.DIVERSITY].verdict is Verdict.WORSE
    assert metrics["class_distance"].verdict is Verdict.WORSE
    assert metrics["recall"].classes[2].value is None


def test_memorisation_detects_copies() -> None:
    of = real_evidence()
    images = of.samples.images.copy()
    images[:24] = of.training.images[:24]
    metrics, panels = evaluate(with_images(images), (Panel.MEMORISATION,))
    assert panels[Panel.MEMORISATION].verdict is Verdict.WORSE
    assert metrics["exact_copies"].value == 0.1
    low, high = metrics["copy_rate"].interval
    assert low < 0.1 < high


def test_memorisation_detects_noisy_copies() -> None:
    of = real_evidence()
    images = of.samples.images.copy()
    images[:24] = of.training.images[:24] ^ 3
    metrics, panels = evaluate(with_images(images), (Panel.MEMORISATION,))
    assert panels[Panel.MEMORISATION].verdict is Verdict.WORSE
    assert metrics["exact_copies"].verdict is Verdict.LIKE_REAL


def test_memorisation_accepts_typical_samples() -> None:
    _, panels = evaluate(with_images(images_of(labels_of(COUNT), seed=9, deviation=15)), (Panel.MEMORISATION,))
    assert panels[Panel.MEMORISATION].verdict in REAL


def test_label_fidelity_detects_one_wrong_label_in_ten() -> None:
    labels = labels_of(COUNT)
    labels[::10] = (labels[::10] + 1) % 3
    metrics, panels = evaluate(with_images(real_evidence().samples.images, labels), (Panel.LABEL_FIDELITY,))
    assert panels[Panel.LABEL_FIDELITY].verdict is Verdict.WORSE
    assert metrics["label_agreement"].value == pytest.approx(0.9)


def test_label_fidelity_detects_an_ignored_label() -> None:
    of = real_evidence()
    assert of.label_grid is not None
    images = np.repeat(of.label_grid.images[:, :1], len(CLASSES), axis=1)
    metrics, panels = evaluate(replace(of, label_grid=label_grid_of(images)), (Panel.LABEL_FIDELITY,))
    assert panels[Panel.LABEL_FIDELITY].verdict is Verdict.WORSE
    assert metrics["label_response"].value == pytest.approx(1 / 3)
    assert metrics["label_effect"].value == 0.0


@pytest.mark.parametrize(("value", "noted"), [(0.2, True), (0.8, False), (1.3, False)], ids=["far", "near", "above"])
def test_a_wide_interval_has_a_note(value: float, noted: bool) -> None:
    null = Null(mean=1.0, range=(0.5, 1.5), draws=8, rows=100)
    output = {"value": value, "interval": [value / 4, value * 4], "note": ""}
    metric = build_metric("recall", Panel.DIVERSITY, output, null=null, better="higher", method="", samples=1,
                          tolerance=0.5)  # fmt: skip
    assert (metric.verdict, "not significant" in metric.note) == (Verdict.LIKE_REAL, noted)
