"""The panels: quiet on real rows, and each fires on its own fault."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from service.evaluation.panels.estimates import build_metric
from service.evaluation.panels.part import EvidenceSummary
from service.evaluation.panels.registry import (
    FEWEST_SAMPLES,
    METRICS,
    PER_CLASS_METRICS,
    evaluate_panel,
    needs_label_grid,
    needs_neighbours,
    parts_of,
)
from service.evaluation.results import Metric, Null, Panel, PanelResult, Verdict
from tests.unit.evidence import CLASSES, answers_of, evidence, images_of, labels_of, samples_of, with_samples

QUIET = (Verdict.LIKE_REAL, Verdict.NEAR_REAL)
COUNT = 240


@cache
def real_evidence(conditional: bool = True):
    return evidence(count=COUNT, training=720, held_out=COUNT, conditional=conditional)


def outcome(of, panels) -> tuple[dict[str, Metric], dict[Panel, PanelResult]]:
    conditional = of.samples.labels is not None
    outputs = {each.name: _through_json(each.compute(of)) for each in parts_of(panels, conditional)}
    found = [evaluate_panel(panel, outputs, EvidenceSummary.of(of)) for panel in panels]
    return {each.name: each for metrics, _ in found for each in metrics}, {each.panel: each for _, each in found}


def _through_json(output):
    return json.loads(json.dumps(output, allow_nan=False))


@pytest.fixture(scope="module")
def quiet():
    return outcome(real_evidence(), tuple(Panel))


def test_it_is_quiet_on_real_rows(quiet) -> None:
    assert {panel: each.verdict in QUIET for panel, each in quiet[1].items()} == dict.fromkeys(Panel, True)


def test_it_has_the_metrics_it_says(quiet) -> None:
    assert {name: each.panel for name, each in quiet[0].items()} == dict(METRICS)
    assert {name for name, each in quiet[0].items() if each.classes} == PER_CLASS_METRICS


def test_it_says_of_every_metric_how_it_came_about(quiet) -> None:
    for each in quiet[0].values():
        assert each.method, each.name
        assert each.value is not None, each.name
        assert each.null is not None or each.note, each.name
        assert [of.class_name for of in each.classes] == (list(CLASSES) if each.classes else []), each.name


def test_it_gives_the_same_twice() -> None:
    first = [each.compute(real_evidence()) for each in parts_of((Panel.MEMORISATION, Panel.LABEL_FIDELITY), True)]
    assert first == [
        each.compute(real_evidence()) for each in parts_of((Panel.MEMORISATION, Panel.LABEL_FIDELITY), True)
    ]


def test_it_names_every_part_once() -> None:
    names = [each.name for each in parts_of(tuple(Panel), True)]
    assert len(names) == len(set(names))
    assert {each.panel for each in parts_of((Panel.DIVERSITY,), True)} == {Panel.DIVERSITY}


def test_it_asks_for_what_it_needs() -> None:
    assert needs_neighbours((Panel.MEMORISATION,))
    assert not needs_neighbours((Panel.REALISM, Panel.DIVERSITY))
    assert needs_label_grid((Panel.LABEL_FIDELITY,))
    assert not needs_label_grid((Panel.REALISM,))
    assert [FEWEST_SAMPLES[panel] for panel in Panel] == [100, 100, 50, 50]


def test_it_refuses_label_fidelity_of_a_model_without_labels() -> None:
    with pytest.raises(ValueError, match="takes no labels"):
        parts_of((Panel.LABEL_FIDELITY,), False)


def test_it_reads_classes_off_the_classifier_where_there_are_no_labels() -> None:
    metrics, panels = outcome(real_evidence(conditional=False), (Panel.DIVERSITY,))
    assert panels[Panel.DIVERSITY].verdict in QUIET
    assert all(each.value is not None for each in metrics["recall"].classes)


def planted(images, labels=None):
    of = real_evidence()
    return with_samples(of, samples_of(images, of.samples.labels if labels is None else labels))


def test_realism_fires_on_noise() -> None:
    images = real_evidence().samples.images
    noisy = images + np.random.default_rng(5).normal(0, 40, images.shape)
    metrics, panels = outcome(planted(np.clip(noisy, 0, 255).astype(np.uint8)), (Panel.REALISM,))
    assert panels[Panel.REALISM].verdict is Verdict.WORSE
    assert metrics["precision"].verdict is Verdict.WORSE
    assert panels[Panel.REALISM].sentence.startswith("Samples are less realistic than real rows: ")


def test_diversity_fires_on_collapse() -> None:
    images = images_of(labels_of(9), seed=6)
    metrics, panels = outcome(planted(images[np.arange(COUNT) % 9]), (Panel.DIVERSITY,))
    assert panels[Panel.DIVERSITY].verdict is Verdict.WORSE
    interval = metrics["effective_size"].interval
    assert interval is not None
    assert interval[0] <= 9 <= interval[1]


def test_diversity_fires_on_the_collapse_of_one_class() -> None:
    images = real_evidence().samples.images.copy()
    images[labels_of(COUNT) == 1] = images[1]
    metrics, panels = outcome(planted(images), (Panel.DIVERSITY,))
    assert panels[Panel.DIVERSITY].verdict is Verdict.WORSE
    worst = metrics["worst_class_effective_size_ratio"]
    assert worst.verdict is Verdict.WORSE
    assert worst.note == "The lowest is that of class 'one'"
    assert [each.verdict is Verdict.WORSE for each in metrics["effective_size_ratio"].classes] == [False, True, False]


def test_diversity_fires_on_a_class_that_is_never_drawn() -> None:
    of = evidence(count=COUNT, training=720, held_out=COUNT, conditional=False)
    labels = labels_of(COUNT) % 2
    metrics, panels = outcome(with_samples(of, samples_of(images_of(labels, seed=8), None)), (Panel.DIVERSITY,))
    assert panels[Panel.DIVERSITY].verdict is Verdict.WORSE
    assert metrics["class_distance"].verdict is Verdict.WORSE
    assert metrics["recall"].classes[2].value is None


def test_memorisation_fires_on_copies() -> None:
    of = real_evidence()
    images = of.samples.images.copy()
    images[:24] = of.training.images[:24]
    metrics, panels = outcome(planted(images), (Panel.MEMORISATION,))
    assert panels[Panel.MEMORISATION].verdict is Verdict.WORSE
    assert metrics["exact_copies"].value == 0.1
    interval = metrics["copy_rate"].interval
    assert interval is not None
    assert interval[0] < 0.1 < interval[1]


def test_memorisation_fires_on_copies_with_noise_on_them() -> None:
    of = real_evidence()
    images = of.samples.images.copy()
    images[:24] = of.training.images[:24] ^ 3
    metrics, panels = outcome(planted(images), (Panel.MEMORISATION,))
    assert panels[Panel.MEMORISATION].verdict is Verdict.WORSE
    assert metrics["exact_copies"].verdict is Verdict.LIKE_REAL


def test_memorisation_is_quiet_on_typical_samples() -> None:
    _, panels = outcome(planted(images_of(labels_of(COUNT), seed=9, deviation=15)), (Panel.MEMORISATION,))
    assert panels[Panel.MEMORISATION].verdict in QUIET


def test_label_fidelity_fires_on_a_wrong_label_in_ten() -> None:
    labels = labels_of(COUNT)
    labels[::10] = (labels[::10] + 1) % 3
    metrics, panels = outcome(planted(real_evidence().samples.images, labels), (Panel.LABEL_FIDELITY,))
    assert panels[Panel.LABEL_FIDELITY].verdict is Verdict.WORSE
    assert metrics["label_agreement"].value == pytest.approx(0.9)


def test_label_fidelity_fires_when_the_label_is_ignored() -> None:
    of = real_evidence()
    assert of.label_grid is not None
    images = np.repeat(of.label_grid.images[:, :1], len(CLASSES), axis=1)
    metrics, panels = outcome(replace(of, label_grid=answers_of(images)), (Panel.LABEL_FIDELITY,))
    assert panels[Panel.LABEL_FIDELITY].verdict is Verdict.WORSE
    assert metrics["label_response"].value == pytest.approx(1 / 3)
    assert metrics["label_effect"].value == 0.0


@pytest.mark.parametrize(("value", "unsure"), [(0.2, True), (0.8, False), (1.3, False)], ids=["far", "near", "above"])
def test_a_wide_interval_is_told_from_likeness(value: float, unsure: bool) -> None:
    null = Null(mean=1.0, range=(0.5, 1.5), draws=8, rows=100)
    output = {"value": value, "interval": [value / 4, value * 4], "note": ""}
    metric = build_metric("recall", Panel.DIVERSITY, output, null=null, better="higher", method="", samples=1,
                          tolerance=0.5)  # fmt: skip
    assert (metric.verdict, "not significant" in metric.note) == (Verdict.LIKE_REAL, unsure)
