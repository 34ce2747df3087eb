"""Runs one evaluation from its specification to its report, step by step."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from fount.readers import Dataset
from service.datasets import Datasets
from service.errors import DatasetUnreadable, UnknownName
from service.evaluation.pipeline.evidence_builder import EvidenceBuilder
from service.evaluation.pipeline.features import MAX_WAIT_S, ImageReader, WorkerRetry
from service.evaluation.pipeline.files import StepFiles
from service.evaluation.pipeline.reference import ReferenceFiles, SplitRows, limit_references
from service.evaluation.pipeline.reporter import Failed, JobReporter, LeaseLost
from service.evaluation.pipeline.sampling import SamplingStage, label_samples
from service.evaluation.pipeline.scoring import ScoringStage
from service.evaluation.pipeline.steps import EvaluationSteps, Step
from service.evaluation.results import Panel
from service.evaluation.specification import Specification
from service.evaluation.workers import Workers

__all__ = ["REFERENCE_BYTES", "Pipeline"]

REFERENCE_BYTES = 4 << 30
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Pipeline:
    """Runs evaluations; several may run at once. Their files, and the cache of references, are in `folder`."""

    def __init__(
        self,
        *,
        workers: Workers,
        datasets: Datasets,
        folder: Path,
        reference_bytes: int = REFERENCE_BYTES,
        max_wait_s: float = MAX_WAIT_S,
    ) -> None:
        self._workers, self._datasets, self.folder = workers, datasets, folder
        self._reference_bytes, self._max_wait_s = reference_bytes, max_wait_s
        self._references = folder / "references"
        self._used: list[str] = []  # keys of references in use

    async def run(self, evaluation_id: str, specification: Specification, reporter: JobReporter) -> None:
        """Run one evaluation to its end.

        Raises:
            LeaseLost: from the reporter; the files stay for the run that continues.
        """
        files = StepFiles(self.folder / evaluation_id)
        run = _Run(reporter, files.folder)
        used: list[str] = []
        try:
            steps = await run.guard(lambda: self._prepare(specification, run, files))
            used = steps.evidence.reference_keys
            self._used += used
            await run.complete(steps)
        except Failed as failed:
            await asyncio.to_thread(files.remove)  # first: the database may need the space
            await reporter.fail(str(failed))
        finally:
            for key in used:
                self._used.remove(key)
        await asyncio.to_thread(files.remove)
        await asyncio.to_thread(limit_references, self._references, self._reference_bytes, set(self._used))

    async def _prepare(self, specification: Specification, run: _Run, files: StepFiles) -> EvaluationSteps:
        await run.report("opening the data set")
        dataset = await self._open(specification)
        held_out_split = dataset.splits[specification.held_out_split]
        classes = None
        if specification.conditional:
            number = len(specification.classes)
            classes = await asyncio.to_thread(label_samples, held_out_split.labels, number, specification.count)
        retry = WorkerRetry(run.report_wait, self._max_wait_s)
        reader = ImageReader(specification, self._workers, retry)
        evidence = EvidenceBuilder(
            specification=specification,
            sampling=SamplingStage(
                specification, classes, workers=self._workers, retry=retry, reader=reader, files=files
            ),
            scoring=ScoringStage(specification, workers=self._workers, retry=retry, files=files)
            if specification.score
            else None,
            training=SplitRows(specification, dataset, specification.training_split, reader, self._references),
            held_out=SplitRows(specification, dataset, specification.held_out_split, reader, self._references),
            held_out_neighbours=ReferenceFiles(
                self._references, specification, specification.training_split, specification.held_out_split, "distinct"
            ),
            files=files,
        )
        return EvaluationSteps(evidence)

    async def _open(self, specification: Specification) -> Dataset:
        name = specification.dataset
        try:
            dataset = await self._datasets.open(name)
        except (UnknownName, DatasetUnreadable) as error:
            raise Failed(f"this runner cannot open data set {name}: {error}") from error
        if dataset.digest != specification.dataset_digest:
            raise Failed(f"data set {name} has digest {dataset.digest} here, and the evaluation was created with "
                         f"{specification.dataset_digest}; give gateway and runners the same files")  # fmt: skip
        for split in (specification.training_split, specification.held_out_split):
            if split not in dataset.splits:
                raise Failed(f"data set {name} has no split {split} here")
        return dataset


class _Run:
    """One run: its progress, and the translation of errors into failures."""

    def __init__(self, reporter: JobReporter, folder: Path) -> None:
        self._reporter, self._folder = reporter, folder
        self._stage, self._done, self._total = "", 0, 0

    async def report(self, stage: str, reason: str = "") -> None:
        self._stage = stage
        await self._reporter.report_progress(stage=stage, done=self._done, total=self._total, reason=reason)

    async def report_wait(self, reason: str) -> None:
        await self.report(self._stage, reason)

    async def complete(self, work: EvaluationSteps) -> None:
        """Run all steps, report results as panels are completed, and end the evaluation with its report."""
        steps = work.steps()
        self._total = len(steps) + 1
        completed: list[Panel] = []
        for number, step in enumerate(steps):
            self._done = number
            await self.report(step.stage)
            await self._run_step(step)
            if step.completes is not None:
                completed.append(step.completes)
                so_far = await self.guard(lambda: work.results(tuple(completed)))
                await self._reporter.report_results(so_far)
        self._done = len(steps)
        await self.report("writing the report")
        results = await self.guard(lambda: work.results(work.evidence.specification.panels))
        gates = work.gates(results.metrics)
        bundle = await self.guard(lambda: work.bundle(results, gates))
        await self._reporter.succeed(results, gates, bundle)

    async def _run_step(self, step: Step) -> None:
        async def work() -> str:
            try:
                await self.guard(step.work)
            except Failed as failed:  # stored as the result of the step, so that a later run fails alike
                return str(failed)
            return ""

        if failure := await self._reporter.run_step(work):
            raise Failed(failure)

    async def guard(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work; turn every error into one sentence for users.

        Raises:
            Failed: an error occurred.
        """
        try:
            return await work()
        except (Failed, LeaseLost):
            raise
        except DatasetUnreadable as error:
            raise Failed(str(error)) from error
        except OSError as error:  # users get no path of the runner's machine
            _log.warning("%s: files cannot be written in %s: %s", self._folder.name, self._folder.parent, error)
            if error.errno in _FULL:
                raise Failed("no space left in the runner's --work-dir; free some, or give the runner another one, "
                             "and evaluate again") from error  # fmt: skip
            raise Failed("the runner cannot write files in its --work-dir: "
                         f"{error.strerror or 'its log has the reason'}") from error  # fmt: skip
        except Exception as error:  # an error of a step ends its evaluation, not its runner
            _log.exception("%s failed while %s", self._folder.name, self._stage)
            raise Failed(f"unexpected error while {self._stage} ({type(error).__name__}); the runner's log has it "
                         f"under {self._folder.name}") from error  # fmt: skip
