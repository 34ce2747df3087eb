"""The pipeline with workers that need no torch: its files, what it survives, and how it reports failures."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fount.files import atomic_write
from fount.readers import DatasetSource
from service.datasets import Datasets, DatasetSettings
from service.errors import NotReady, Overloaded, Retired
from service.evaluation.pipeline.features import WorkerRetry
from service.evaluation.pipeline.files import StepFiles
from service.evaluation.pipeline.pipeline import Pipeline
from service.evaluation.pipeline.reference import limit_references
from service.evaluation.pipeline.reporter import Failed, LeaseLost, Results
from service.evaluation.pipeline.sampling import label_samples
from service.evaluation.report.bundle import read_bundle
from service.evaluation.results import GateOutcome, Metric, Panel
from service.evaluation.specification import Specification
from tests.contract.evaluation_runner import FakeWorkers, pipeline, specification

LABELS = (Panel.LABEL_FIDELITY,)
QUICK = (Panel.MEMORISATION, Panel.LABEL_FIDELITY)


class Notes:
    """A reporter that records what it receives, and loses its lease at a given report."""

    def __init__(self, lost_at: int | None = None) -> None:
        self.lost_at = lost_at
        self.stages: list[str] = []
        self.reasons: list[str] = []
        self.failed = ""
        self.bundle = b""
        self.metrics: list[Metric] = []
        self.gates: list[GateOutcome] = []
        self.done: list[tuple[int, int]] = []

    async def report_progress(self, *, stage: str, done: int, total: int, reason: str = "") -> None:
        if self.lost_at is not None and len(self.done) >= self.lost_at:
            raise LeaseLost
        self.stages += [] if self.stages[-1:] == [stage] else [stage]
        self.reasons += [reason] if reason else []
        self.done.append((done, total))

    async def report_results(self, results: Results) -> None:
        self.metrics = list(results.metrics)

    async def succeed(self, results: Results, gates: Sequence[GateOutcome], bundle: bytes) -> None:
        self.metrics, self.gates, self.bundle = list(results.metrics), list(gates), bundle

    async def fail(self, reason: str) -> None:
        self.failed = reason

    async def run_step(self, work: Callable[[], Awaitable[str]]) -> str:
        return await work()


async def run(
    folder: Path, spec: Specification, workers: FakeWorkers | None = None, *, max_wait_s: float = 600.0
) -> Notes:
    notes = Notes()
    await pipeline(folder, workers, max_wait_s=max_wait_s).run("e1", spec, notes)
    return notes


async def interrupt(folder: Path, spec: Specification, lost_at: int) -> None:
    with pytest.raises(LeaseLost):
        await pipeline(folder).run("e1", spec, Notes(lost_at))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Notes:
    return asyncio.run(run(tmp_path_factory.mktemp("undisturbed"), specification(100, panels=QUICK)))


async def test_it_ends_with_a_report_and_no_files(tmp_path: Path) -> None:
    notes = await run(tmp_path, specification(100, panels=LABELS, gates=("label_agreement > 0.5",)))
    assert not notes.failed
    assert read_bundle(notes.bundle)["specification"]["seed"] == 7
    assert [(each.gate, each.passed) for each in notes.gates] == [("label_agreement > 0.5", True)]
    assert {each.panel for each in notes.metrics} == {Panel.LABEL_FIDELITY}
    assert [each.name for each in tmp_path.iterdir()] == ["references"]


async def test_it_removes_its_files_before_it_reports_a_full_disk(tmp_path: Path) -> None:
    left: list[Path] = []

    class Full(Notes):
        async def report_progress(self, *, stage: str, done: int, total: int, reason: str = "") -> None:
            if done == 2:
                raise Failed("no space left")

        async def fail(self, reason: str) -> None:
            self.failed = reason
            left.extend(tmp_path.iterdir())

    notes = Full()
    await pipeline(tmp_path).run("e1", specification(100, panels=LABELS), notes)
    assert (notes.failed, left) == ("no space left", [])


async def test_it_counts_its_steps(undisturbed: Notes) -> None:
    steps = [done for done, _ in undisturbed.done[1:]]
    totals = {total for _, total in undisturbed.done[1:]}
    assert steps == sorted(steps)
    assert totals == {steps[-1] + 1}


async def test_equal_specifications_have_equal_reports(tmp_path: Path, undisturbed: Notes) -> None:
    assert (await run(tmp_path, specification(100, panels=QUICK))).bundle == undisturbed.bundle


async def test_another_seed_gives_another_report(tmp_path: Path, undisturbed: Notes) -> None:
    assert (await run(tmp_path, specification(100, panels=QUICK, seed=8))).bundle != undisturbed.bundle


@pytest.mark.parametrize(("lost_at", "calls"), [(1, 11), (4, 5), (12, 0), (20, 0)])
async def test_it_continues_where_it_was_interrupted(
    tmp_path: Path, undisturbed: Notes, lost_at: int, calls: int
) -> None:
    spec, workers = specification(100, panels=QUICK), FakeWorkers()
    await interrupt(tmp_path, spec, lost_at)
    notes = await run(tmp_path, spec, workers)
    assert notes.bundle == undisturbed.bundle
    assert workers.calls["sample"] == calls


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "empty"])
async def test_it_makes_damaged_files_again(tmp_path: Path, undisturbed: Notes, damage: str) -> None:
    spec = specification(100, panels=QUICK)
    await interrupt(tmp_path, spec, 20)
    for file in [each for each in tmp_path.rglob("*") if each.is_file()]:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        damaged = {"truncate": bytes(content[:-7]), "flip": bytes(content), "empty": b"", "remove": b""}
        file.write_bytes(damaged[damage])
        if damage == "remove":
            file.unlink()
    assert (await run(tmp_path, spec)).bundle == undisturbed.bundle


async def test_it_reads_real_rows_once(tmp_path: Path) -> None:
    workers = FakeWorkers()
    for _ in range(2):
        await run(tmp_path, specification(100, panels=LABELS), workers)
    assert workers.calls["embed"] == 2 + 2  # samples each time, two splits once


async def test_it_evaluates_an_unconditional_model(tmp_path: Path) -> None:
    notes = await run(tmp_path, specification(100, panels=(Panel.MEMORISATION,), conditional=False))
    assert notes.metrics
    assert "same noise under every label" not in notes.stages


@pytest.mark.slow
@pytest.mark.parametrize("conditional", [True, False])
async def test_it_scores_real_rows_of_a_model_that_can(tmp_path: Path, conditional: bool) -> None:
    spec = specification(panels=(Panel.MEMORISATION,), conditional=conditional, score="log-density")
    notes = await run(tmp_path, spec, workers := FakeWorkers())
    gap = next(each for each in notes.metrics if each.name == "train_test_gap")
    assert (notes.failed, gap.verdict, gap.value) == ("", "worse", pytest.approx(100, abs=3))
    assert (workers.calls["score"], "scoring real rows" in notes.stages) == (2, True)


async def test_it_scores_no_more_rows_than_are_wanted(tmp_path: Path) -> None:
    spec = specification(100, panels=(Panel.MEMORISATION,), score="log-density", score_rows=60)
    notes = await run(tmp_path, spec, FakeWorkers())
    gap = next(each for each in notes.metrics if each.name == "train_test_gap")
    assert "of 60 training rows less that of 60 held-out rows" in gap.method
    assert gap.value == pytest.approx(100, abs=3)


async def test_it_scores_nothing_of_a_model_that_cannot(tmp_path: Path) -> None:
    notes = await run(tmp_path, specification(panels=(Panel.MEMORISATION,)), workers := FakeWorkers())
    assert "train_test_gap" not in {each.name for each in notes.metrics}
    assert workers.calls["score"] == 0


async def test_it_evaluates_identical_samples(tmp_path: Path) -> None:
    notes = await run(tmp_path, specification(100), FakeWorkers(blank=True))
    assert not notes.failed
    assert {each.panel for each in notes.metrics} == set(Panel)


async def test_it_leaves_failed_samples_out_and_counts_them(tmp_path: Path) -> None:
    notes = await run(tmp_path, specification(100, panels=LABELS), FakeWorkers(bad_indices=frozenset({3, 50, 51})))
    assert read_bundle(notes.bundle)["failed"] == 3


async def test_it_fails_when_too_few_samples_remain(tmp_path: Path) -> None:
    notes = await run(tmp_path, specification(100, panels=LABELS), FakeWorkers(bad_indices=frozenset(range(51))))
    assert "51 of 100 samples failed or were not finite; 49 remain, and label-fidelity needs 50" in notes.failed
    assert not (tmp_path / "e1").exists()


async def test_it_fails_when_no_sample_remains(tmp_path: Path) -> None:
    notes = await run(tmp_path, specification(100, panels=LABELS), FakeWorkers(bad_indices=frozenset(range(100))))
    assert "100 of 100 samples failed" in notes.failed


async def test_it_fails_when_no_features_are_finite(tmp_path: Path) -> None:
    notes = await run(tmp_path, specification(100, panels=LABELS), FakeWorkers(spoiled=True))
    assert "not finite; 0 remain" in notes.failed


async def test_it_names_both_digests_of_a_different_data_set(tmp_path: Path) -> None:
    notes = await run(tmp_path, specification(100, dataset_digest="sha256:other"))
    assert specification().dataset_digest in notes.failed
    assert "sha256:other" in notes.failed


async def test_it_names_a_missing_data_set(tmp_path: Path) -> None:
    notes = await run(tmp_path, replace(specification(100), dataset="mnist"))
    assert "cannot open data set mnist" in notes.failed


async def test_it_waits_for_workers(tmp_path: Path) -> None:
    workers = FakeWorkers(errors=[NotReady("gone"), Overloaded("full", retry_after_s=0.1)])
    notes = await run(tmp_path, specification(100, panels=LABELS), workers)
    assert notes.reasons == ["waits for workers of mixer"] * 2
    assert notes.bundle


async def test_it_fails_when_workers_do_not_return(tmp_path: Path) -> None:
    workers = FakeWorkers(errors=[NotReady("gone")] * 9)
    notes = await run(tmp_path, specification(100, panels=LABELS), workers, max_wait_s=0.3)
    assert "workers of mixer did not return within 0 minutes (gone); evaluate again when they are ready" in notes.failed


async def test_it_fails_when_the_model_is_not_served_any_more(tmp_path: Path) -> None:
    workers = FakeWorkers(errors=[Retired("digest sha256:mixer is not served")])
    notes = await run(tmp_path, specification(100, panels=LABELS), workers)
    assert notes.failed == "mixer: digest sha256:mixer is not served"


async def test_it_stops_waiting_when_the_lease_is_lost() -> None:
    async def lose(reason: str) -> None:
        raise LeaseLost

    async def call() -> None:
        raise NotReady("gone")

    with pytest.raises(LeaseLost):
        await WorkerRetry(lose).call("mixer", call)


async def test_it_fails_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, *args: Any, **kwargs: Any) -> None:
        if path.name.startswith("read"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        atomic_write(path, *args, **kwargs)

    monkeypatch.setattr("service.evaluation.pipeline.files.atomic_write", write)
    notes = await run(tmp_path, specification(100, panels=LABELS))
    assert notes.failed.startswith("no space left in the runner's --work-dir; free some")
    assert not (tmp_path / "e1").exists()


async def test_only_the_log_has_paths_of_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(path: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("service.evaluation.pipeline.files.atomic_write", write)
    notes = await run(tmp_path, specification(100, panels=LABELS))
    assert notes.failed == "the runner cannot write files in its --work-dir: Permission denied"
    assert str(tmp_path) in caplog.text


async def test_a_file_of_a_data_set_that_cannot_be_read_is_named_without_its_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, images = tmp_path / "rows.npz", np.zeros((60, 8, 8), np.uint8)
    arrays = {"x_train": images, "y_train": np.arange(60) % 10, "x_test": images, "y_test": np.arange(60) % 10}
    np.savez(file, **arrays)
    datasets = Datasets([DatasetSettings(source=DatasetSource(name="rows", path=file))])
    dataset = await datasets.open("rows")
    os.truncate(file, 100)
    spec = replace(specification(100, panels=LABELS, dataset_digest=dataset.digest), dataset="rows",
                   training_rows=60, held_out_rows=60)  # fmt: skip
    notes = Notes()
    await Pipeline(workers=FakeWorkers(), datasets=datasets, folder=tmp_path / "work").run("e1", spec, notes)
    assert notes.failed.startswith("data set rows: rows.npz changed after it was read")
    assert str(file) in caplog.text


async def test_an_unexpected_error_fails_the_evaluation_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workers = FakeWorkers()
    workers.errors = [ZeroDivisionError("oh")]  # type: ignore[list-item]
    notes = await run(tmp_path, specification(100, panels=LABELS), workers)
    assert (
        "unexpected error while drawing samples (ZeroDivisionError); the runner's log has it under e1" in notes.failed
    )
    assert "oh" in caplog.text


def test_every_prefix_has_the_class_frequencies_of_the_held_out_split() -> None:
    held_out = np.array([0] * 50 + [1] * 30 + [3] * 20)
    chosen = label_samples(held_out, 4, 1000)
    assert chosen[:5].tolist() == [0, 1, 3, 0, 0]  # by hand
    for count in (1, 7, 10, 333, 1000):
        found = np.bincount(chosen[:count], minlength=4)
        assert np.abs(found - count * np.array([0.5, 0.3, 0.0, 0.2])).max() < 1.0


def test_the_least_recently_used_references_are_removed(tmp_path: Path) -> None:
    old, used, new = (each * 32 for each in "0ae")
    for number, name in enumerate((old, used, new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows").write_bytes(bytes(100))
        os.utime(tmp_path / name, (number, number))
    limit_references(tmp_path, 250, {used})
    assert sorted(each.name for each in tmp_path.iterdir()) == [used, new]
    limit_references(tmp_path, 50, {used})
    assert sorted(each.name for each in tmp_path.iterdir()) == [used]


async def test_it_does_not_pickle_arrays(tmp_path: Path) -> None:
    async def make() -> dict[str, Any]:
        return {"x": np.array([{}], object)}

    with pytest.raises(ValueError, match="allow_pickle"):
        await StepFiles(tmp_path).arrays("a", make)
    assert list(tmp_path.iterdir()) == []
