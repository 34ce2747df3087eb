"""One evaluation from its specification to its report, step by step."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from fount.readers import DataError, Dataset
from service.datasets import Datasets
from service.errors import DatasetUnreadable, UnknownName
from service.evaluation.pipeline.evidence_builder import Gathering
from service.evaluation.pipeline.features import MOST_WAIT_S, Patience, Reader
from service.evaluation.pipeline.files import Files
from service.evaluation.pipeline.reference import Reference, SplitRows, keep_within
from service.evaluation.pipeline.reporter import Desk, Failed
from service.evaluation.pipeline.sampling import Drawing, label_samples
from service.evaluation.pipeline.steps import Found, Step, Work
from service.evaluation.results import Panel
from service.evaluation.specification import Specification
from service.evaluation.workers import Workers

__all__ = ["REFERENCE_BYTES", "Pipeline"]

_log = logging.getLogger(__name__)

REFERENCE_BYTES = 4 << 30
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T")


class Pipeline:
    """Runs evaluations, several at once if asked to.

    Args:
        workers: who draws and reads.
        datasets: real rows.
        folder: for files of evaluations under way, and of references.
        reference_bytes: how much references may take.
        most_wait_s: how long an evaluation waits for workers.
    """

    def __init__(
        self,
        *,
        workers: Workers,
        datasets: Datasets,
        folder: Path,
        reference_bytes: int = REFERENCE_BYTES,
        most_wait_s: float = MOST_WAIT_S,
    ) -> None:
        self._workers, self._datasets, self.folder = workers, datasets, folder
        self._reference_bytes, self._most_wait_s = reference_bytes, most_wait_s
        self._references = folder / "references"
        self._used: list[str] = []  # keys of references under way

    async def run(self, evaluation_id: str, specification: Specification, desk: Desk) -> None:
        """Run one to its end, and tell it to the desk.

        Raises:
            Over: the desk said so; files stay, for whoever goes on.
        """
        files = Files(self.folder / evaluation_id)
        run = _Run(desk, files.folder)
        used: list[str] = []
        try:
            work = await run.guard(lambda: self._prepare(specification, run, files))
            used = [work.held_out.key, work.training.key, work.reference.key]
            self._used += used
            await run.through(work)
        except Failed as failed:
            await asyncio.to_thread(files.remove)  # first: what there is to write may need the room
            await desk.fail(str(failed))
        finally:
            for key in used:
                self._used.remove(key)
        await asyncio.to_thread(files.remove)
        await asyncio.to_thread(keep_within, self._references, self._reference_bytes, set(self._used))

    async def _prepare(self, specification: Specification, run: _Run, files: Files) -> Work:
        await run.tell(stage="opening the data set")
        dataset = await self._open(specification)
        held_out = dataset.splits[specification.held_out_split]
        classes = None
        if specification.conditional:
            names = len(specification.classes)
            classes = await asyncio.to_thread(label_samples, held_out.labels, names, specification.count)
        patience = Patience(run.waits, self._most_wait_s)
        reader = Reader(specification, self._workers, patience)
        drawing = Drawing(specification, classes, workers=self._workers, patience=patience, reader=reader, files=files)
        rows = {
            "training": SplitRows(
                specification, dataset.splits[specification.training_split], reader, self._references
            ),
            "held_out": SplitRows(specification, held_out, reader, self._references),
        }
        reference = Reference(specification, self._references)
        gathering = Gathering(specification, drawing=drawing, reference=reference, files=files, **rows)
        return Work(
            specification=specification,
            drawing=drawing,
            reference=reference,
            gathering=gathering,
            files=files,
            **rows,
        )

    async def _open(self, specification: Specification) -> Dataset:
        name = specification.dataset
        try:
            dataset = await self._datasets.open(name)
        except (UnknownName, DatasetUnreadable) as error:
            raise Failed(f"this runner cannot open data set {name}: {error}") from error
        if dataset.digest != specification.dataset_digest:
            raise Failed(f"data set {name} has digest {dataset.digest} here, and the evaluation was asked for with "
                         f"{specification.dataset_digest}; give gateway and runners the same files")  # fmt: skip
        for split in (specification.training_split, specification.held_out_split):
            if split not in dataset.splits:
                raise Failed(f"data set {name} has no split {split} here")
        return dataset


class _Run:
    """One run: where it is, and what it makes of what goes wrong."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self._desk, self._folder = desk, folder
        self._stage, self._done, self._total = "", 0, 0

    async def tell(self, stage: str, reason: str = "") -> None:
        self._stage = stage
        await self._desk.tell(stage=stage, done=self._done, total=self._total, reason=reason)

    async def waits(self, reason: str) -> None:
        await self.tell(self._stage, reason)

    async def through(self, work: Work) -> None:
        """Do all steps, tell what is found as it is found, and end it with its report."""
        steps = work.steps()
        self._total = len(steps) + 1
        found: list[Panel] = []
        for number, step in enumerate(steps):
            self._done = number
            await self.tell(step.stage)
            await self._do(step)
            if step.ends is not None:
                found.append(step.ends)
                so_far = await self.guard(lambda: work.found(tuple(found)))
                await self._desk.partial(so_far.metrics, so_far.panels)
        self._done = len(steps)
        await self.tell("writing the report")
        all_found: Found = await self.guard(lambda: work.found(work.specification.panels))
        gates = work.gates(all_found.metrics)
        bundle = await self.guard(lambda: work.bundle(all_found, gates))
        await self._desk.succeed(metrics=all_found.metrics, panels=all_found.panels, gates=gates, bundle=bundle)

    async def _do(self, step: Step) -> None:
        async def work() -> str:
            try:
                await self.guard(step.work)
            except Failed as failed:
                return str(failed)
            return ""

        if told := await self._desk.durably(work):
            raise Failed(told)

    async def guard(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something; whatever goes wrong with it is a sentence for people.

        Raises:
            Failed: it went wrong.
        """
        try:
            return await work()
        except (Failed, asyncio.CancelledError):
            raise
        except DataError as error:
            raise Failed(f"the data set cannot be read: {error}") from error
        except OSError as error:
            if error.errno in _FULL:
                raise Failed(f"no space left in {self._folder.parent}; make room, or give the runner another "
                             "--work-dir, and ask again") from error  # fmt: skip
            raise Failed(f"files cannot be kept in {self._folder.parent}: {error.strerror or error}") from error
        except Exception as error:  # what a step raises must end its evaluation, not its runner
            _log.exception("%s failed while %s", self._folder.name, self._stage)
            raise Failed(f"an error nobody expected while {self._stage} ({type(error).__name__}); the runner's log "
                         f"has it under {self._folder.name}") from error  # fmt: skip
