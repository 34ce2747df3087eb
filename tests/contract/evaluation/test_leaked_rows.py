"""Held-out rows that are training rows, or nearly, through the whole pipeline: no copying generator passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from fount.readers import DatasetSource
from service.datasets import Datasets, DatasetSettings
from service.evaluation.pipeline.pipeline import Pipeline
from service.evaluation.pipeline.reporter import Results
from service.evaluation.record import Record, State
from service.evaluation.report.bundle import report_facts
from service.evaluation.report.page import render
from service.evaluation.results import GateOutcome, Panel, Verdict
from service.evaluation.workers import DrawnSamples
from tests.contract.evaluation_runner import FakeWorkers, digits, specification

TRAINING_ROWS, COUNT = 1000, 400
GATE = "copy_rate.upper95 < 0.05"
MEMORISATION = (Panel.MEMORISATION,)
Images = NDArray[np.uint8]


@cache
def rows(split: str) -> tuple[Images, NDArray[np.uint32]]:
    found = digits().splits[split]
    return found.images(np.arange(len(found))), found.labels


def training() -> Images:
    return rows("train")[0][:TRAINING_ROWS]


def change(images: Images, levels: int, seed: int) -> Images:
    """Add noise of at most so many levels."""
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def leaked_rows(share: float) -> NDArray[np.int64]:
    held_out = len(rows("test")[0])
    return np.sort(np.random.default_rng(1).choice(held_out, round(share * held_out), replace=False))


@dataclass(kw_only=True)
class Copier(FakeWorkers):
    """A generator that returns training rows with noise."""

    levels: int = 4

    async def sample(self, model, *, seed, start_index, count, labels, parameters) -> DrawnSamples:
        words = Addresses.of_range(seed, start_index, count).words(Stream.LATENT, 1)[:, 0]
        images = change(training()[words % TRAINING_ROWS], self.levels, seed + start_index)
        return DrawnSamples(images=images, failed=np.zeros(count, bool))


class Honest(FakeWorkers):
    """A generator that returns real rows of neither split, each once."""

    async def sample(self, model, *, seed, start_index, count, labels, parameters) -> DrawnSamples:
        images = rows("train")[0][TRAINING_ROWS + start_index :][:count]
        return DrawnSamples(images=images, failed=np.zeros(count, bool))


@dataclass
class Reporter:
    """Keeps the results of an evaluation that succeeded."""

    results: Results | None = None
    gates: Sequence[GateOutcome] = ()
    bundle: bytes = b""

    async def report_progress(self, *, stage: str, done: int, total: int, reason: str = "") -> None: ...

    async def report_results(self, results: Results) -> None: ...

    async def succeed(self, results: Results, gates: Sequence[GateOutcome], bundle: bytes) -> None:
        self.results, self.gates, self.bundle = results, gates, bundle

    async def fail(self, reason: str) -> None:
        raise AssertionError(reason)

    async def run_step(self, work: Callable[[], Awaitable[str]]) -> str:
        return await work()

    def verdict(self, metric: str) -> Verdict:
        assert self.results is not None
        return next(each.verdict for each in self.results.metrics if each.name == metric)

    @property
    def facts(self) -> dict[str, Any]:
        return report_facts(self.bundle, redacted=True)

    @property
    def memorisation(self) -> dict[str, Any]:
        return next(each for each in self.facts["panels"] if each["panel"] == "memorisation")


async def evaluate(
    folder: Path,
    workers: FakeWorkers,
    *,
    leak: float = 0.0,
    levels: int = 0,
    times: int = 1,
    held_out_times: int = 1,
    panels: tuple[Panel, ...] = MEMORISATION,
) -> Reporter:
    """Evaluate where a share of the held-out rows are training rows changed by so many levels.

    `times` and `held_out_times` are how often the splits hold each of their rows.
    """
    (held_out, test_labels), train_labels = rows("test"), rows("train")[1][:TRAINING_ROWS]
    held_out, test_labels, at = held_out.copy(), test_labels.copy(), leaked_rows(leak)
    held_out[at], test_labels[at] = change(training()[: len(at)], levels, seed=2), train_labels[: len(at)]
    arrays = {"x_train": np.repeat(training(), times, axis=0), "y_train": np.repeat(train_labels, times)}
    arrays |= {"x_test": np.repeat(held_out, held_out_times, axis=0), "y_test": np.repeat(test_labels, held_out_times)}
    folder.mkdir(exist_ok=True)
    np.savez(folder / "leaked.npz", **arrays)
    datasets = Datasets([DatasetSettings(source=DatasetSource(name="leaked", path=folder / "leaked.npz"))])
    dataset = await datasets.open("leaked")
    spec = replace(
        specification(COUNT, panels=panels, conditional=False, gates=(GATE,), dataset_digest=dataset.digest),
        dataset="leaked",
        training_rows=len(dataset.splits["train"]),
        held_out_rows=len(dataset.splits["test"]),
    )
    reporter = Reporter()
    await Pipeline(workers=workers, datasets=datasets, folder=folder / "work").run("e1", spec, reporter)
    return reporter


def record() -> Record:
    return Record(
        id="e1", subject="", request_id="", request_digest="", specification=specification(COUNT),
        state=State.SUCCEEDED, create_unix_s=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("leak", [0.0, 0.005, 0.01, 0.02, 0.1, 0.5, 1.0])
async def test_a_copying_generator_never_passes(tmp_path: Path, leak: float) -> None:
    found = await evaluate(tmp_path, Copier(), leak=leak)
    expected = "worse" if leak < 1 else "not-measurable"
    assert (found.memorisation["verdict"], found.verdict("copy_rate").value) == (expected, expected)
    assert [each.passed for each in found.gates] == [False]


@pytest.mark.parametrize("leak", [0.02, 0.5])
async def test_a_generator_that_does_not_copy_passes_although_rows_leaked(tmp_path: Path, leak: float) -> None:
    found = await evaluate(tmp_path, Honest(), leak=leak)
    assert found.memorisation["verdict"] == "like-real"
    assert [each.passed for each in found.gates] == [True]


async def test_exact_copies_are_worse_though_every_held_out_row_is_one(tmp_path: Path) -> None:
    found = await evaluate(tmp_path, Copier(levels=0), leak=1.0)
    assert found.verdict("exact_copies") is Verdict.WORSE
    assert found.memorisation["verdict"] == "worse"


@pytest.mark.parametrize("levels", [1, 2, 4])
async def test_nothing_is_measurable_against_held_out_rows_that_nearly_equal_training_rows(
    tmp_path: Path, levels: int
) -> None:
    found = await evaluate(tmp_path, Copier(), leak=0.05, levels=levels)
    assert found.memorisation["verdict"] == "not-measurable"
    assert [each.passed for each in found.gates] == [False]
    assert found.facts["real_rows"]["held_out"]["nearly_equal_to_training"]["rows"] == leaked_rows(0.05).tolist()


async def test_the_threshold_of_copies_is_never_that_of_a_copy(tmp_path: Path) -> None:
    """Noise of 24 levels is too much for a row to be named, and still much nearer than real rows are."""
    found = await evaluate(tmp_path, Copier(levels=24), leak=0.05, levels=16)
    assert found.verdict("copy_rate") is Verdict.NOT_MEASURABLE
    assert [each.passed for each in found.gates] == [False]


@pytest.mark.parametrize("times", [2, 5, 20])
async def test_copies_are_found_of_training_rows_that_are_there_several_times(tmp_path: Path, times: int) -> None:
    found = await evaluate(tmp_path, Copier(), times=times)
    assert found.memorisation["verdict"] == "worse"
    assert found.facts["real_rows"]["training"] == {"repeated": (times - 1) * TRAINING_ROWS}


async def test_leaked_rows_are_counted_and_named_in_the_verdict_and_both_reports(tmp_path: Path) -> None:
    leaked = leaked_rows(0.02).tolist()
    found = await evaluate(tmp_path, Honest(), leak=0.02)
    note = (
        "7 held-out rows are equal to a training row, pixel for pixel, so not held out and left out: "
        f"rows {', '.join(map(str, leaked))}."
    )
    assert found.memorisation["note"] == note
    assert found.facts["real_rows"]["held_out"]["equal_to_training"] == {"count": 7, "rows": leaked}
    assert note in render(found.bundle, redacted=True, record=record()).decode()


async def test_the_page_says_what_is_not_measurable(tmp_path: Path) -> None:
    found = await evaluate(tmp_path, Copier(), leak=0.05, levels=2)
    page = render(found.bundle, redacted=True, record=record()).decode()
    assert "Not measurable: copy rate and copy rate features. 18 of 355 held-out rows nearly equal a training" in page
    assert "Samples cannot be compared with real rows in memorisation." in page


async def test_the_first_of_many_leaked_rows_are_named(tmp_path: Path) -> None:
    found = await evaluate(tmp_path, Honest(), leak=0.5)
    assert found.memorisation["note"].startswith("178 held-out rows are equal to a training row")
    assert found.memorisation["note"].endswith(f"{leaked_rows(0.5)[19]} and 158 more.")


async def test_no_panel_has_a_verdict_when_too_few_rows_are_held_out(tmp_path: Path) -> None:
    found = await evaluate(tmp_path, Honest(), leak=1.0, panels=(Panel.REALISM, Panel.DIVERSITY))
    assert {each["verdict"] for each in found.facts["panels"]} == {"not-measurable"}
    assert {each["value"] for each in found.facts["metrics"]} == {None}


async def test_rows_without_equals_have_no_note(tmp_path: Path) -> None:
    found = await evaluate(tmp_path, Honest())
    none = {"count": 0, "rows": []}
    assert found.memorisation["note"] == ""
    assert found.facts["real_rows"] == {
        "held_out": {"equal_to_training": none, "nearly_equal_to_training": none, "repeated": 0},
        "training": {"repeated": 0},
    }


async def test_repeated_held_out_rows_are_compared_once(tmp_path: Path) -> None:
    alone = await evaluate(tmp_path / "once", Honest())
    found = await evaluate(tmp_path / "twice", Honest(), held_out_times=2)
    assert found.facts["metrics"] == alone.facts["metrics"]
    assert found.facts["real_rows"]["held_out"]["repeated"] == 355
