"""Evidence, metrics and a bundle for tests of the report: small, random with a fixed seed."""

from dataclasses import replace

import numpy as np

from service.domain import Parameters
from service.evaluation.evidence import NEIGHBOURS, Evidence, LabelGrid, Nearest, RealRows, Samples
from service.evaluation.record import Record, State
from service.evaluation.report.bundle import make_bundle
from service.evaluation.results import ClassValue, GateOutcome, Metric, Null, Panel, PanelResult, Verdict
from service.evaluation.specification import PinnedModel, Specification


def evidence(classes=("a", "b", "c"), samples=60, rows=50, side=8, conditional=True, channels=1) -> Evidence:
    rng = np.random.default_rng(1)
    kinds = len(classes)

    def images(*shape):
        return rng.integers(0, 256, (*shape, side, side, channels), dtype=np.uint8)

    def features(n):
        return rng.normal(size=(n, 4)).astype(np.float32)

    def probabilities(labels):
        scores = rng.random((len(labels), kinds)).astype(np.float32) * 0.5
        scores[np.arange(len(labels)), labels] += 0.4
        return scores / scores.sum(axis=1, keepdims=True)

    def real(n):
        labels = np.arange(n, dtype=np.int64) % kinds
        return RealRows(
            images=images(n), labels=labels, features=features(n), probabilities=probabilities(labels),
            numbers=np.arange(n),
        )  # fmt: skip

    def nearest():
        near = [np.sort(rng.random((n, NEIGHBOURS)) + 1, axis=1) for n in (samples, rows)]
        return Nearest(sample_distances=near[0], sample_rows=rng.integers(0, rows, samples), held_out_distances=near[1])

    labels = np.arange(samples, dtype=np.int64) % kinds
    return Evidence(
        samples=Samples(
            indices=np.arange(samples, dtype=np.uint64),
            images=images(samples),
            labels=labels if conditional else None,
            features=features(samples),
            probabilities=probabilities(labels),
        ),
        failed=0,
        held_out=real(rows),
        training=real(rows),
        nearest={"pixels": nearest(), "features": nearest()},
        label_grid=LabelGrid(images=images(7, kinds), predicted=np.tile(np.arange(kinds), (7, 1)))
        if conditional
        else None,
        classes=tuple(classes),
        seed=5,
    )


def specification(classes=("a", "b", "c"), **changes) -> Specification:
    def model(name):
        return PinnedModel(name=name, version="1", digest=f"sha256:{name}", numerics="cpu-1")

    whole = Specification(
        model=model("generator"),
        model_labels=tuple(range(len(classes))),
        extractor=model("classifier"),
        classifier=model("classifier"),
        classifier_labels=tuple(range(len(classes))),
        dataset="shapes",
        dataset_digest="sha256:shapes",
        training_split="train",
        held_out_split="test",
        training_rows=1000,
        held_out_rows=200,
        classes=tuple(classes),
        image_shape=(8, 8, 1),
        count=60,
        seed=5,
        parameters=Parameters(truncation=0.7),
        panels=tuple(Panel),
        gates=("precision.lower95 > 0.5",),
        code_version="0.1.0",
    )
    return replace(whole, **changes)


def metric(**changes) -> Metric:
    whole = Metric(
        name="precision",
        panel=Panel.REALISM,
        value=0.71234567,
        interval=(0.65, 0.77),
        null=Null(mean=0.86, range=(0.84, 0.88), draws=20, rows=60),
        verdict=Verdict.WORSE,
        decides=True,
        better="higher",
        tolerance=0.05,
        method="Share of samples within the held-out rows' manifold, k = 5.",
        note="Of 60 samples.",
        samples=60,
        classes=(ClassValue(class_name="a", value=0.5, interval=(0.3, 0.7), null_mean=0.8, verdict=Verdict.WORSE),),
    )
    return replace(whole, **changes)


def panel(panel=Panel.REALISM, verdict=Verdict.WORSE, sentence="Samples look unrealistic.") -> PanelResult:
    return PanelResult(panel=panel, verdict=verdict, sentence=sentence)


def bundle(**changes) -> bytes:
    gate = GateOutcome(gate="precision.lower95 > 0.5", passed=True, actual=0.65)
    whole = {
        "specification": specification(),
        "metrics": [metric()],
        "panels": [panel()],
        "gates": [gate],
        "figures": {},
        "failed": 0,
        "compared": 60,
        "real_rows": {},
    }
    return make_bundle(**whole | changes)


def record(**changes) -> Record:
    whole = Record(
        id="e1",
        subject="user",
        request_id="",
        request_digest="",
        specification=specification(),
        state=State.SUCCEEDED,
        create_unix_s=1_700_000_000.5,
        start_unix_s=1_700_000_001.0,
        end_unix_s=1_700_000_060.0,
    )
    return replace(whole, **changes)
