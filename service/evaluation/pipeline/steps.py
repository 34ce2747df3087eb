"""The steps of one evaluation, in order: what each does, and what people are told meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.evaluation.evidence import Evidence
from service.evaluation.gates import evaluate_gate, parse_gate
from service.evaluation.panels.part import EvidenceSummary
from service.evaluation.panels.registry import evaluate_panel, needs_label_grid, needs_neighbours, parts_of
from service.evaluation.pipeline.evidence_builder import SPACES, Gathering
from service.evaluation.pipeline.files import Files
from service.evaluation.pipeline.reference import Reference, SplitRows
from service.evaluation.pipeline.sampling import Drawing
from service.evaluation.report.bundle import make_bundle
from service.evaluation.report.figures import figures_of
from service.evaluation.results import GateOutcome, Metric, Panel, PanelResult
from service.evaluation.specification import Specification

__all__ = ["Found", "Step", "Work"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One step.

    Attributes:
        name: for logs.
        stage: words for people.
        work: leaves a file, or finds it there.
        ends: the panel whose last part this is.
    """

    name: str
    stage: str
    work: Callable[[], Awaitable[Any]]
    ends: Panel | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What panels found."""

    metrics: tuple[Metric, ...]
    panels: tuple[PanelResult, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """All there is to do for one evaluation.

    Attributes:
        specification: of the evaluation.
        drawing, training, held_out, reference, gathering: who does it.
        files: where parts and figures are left.
    """

    specification: Specification
    drawing: Drawing
    training: SplitRows
    held_out: SplitRows
    reference: Reference
    gathering: Gathering
    files: Files

    def steps(self) -> list[Step]:
        """Every step, in order. Equal specifications have equal steps."""
        return [*self._reading(), *self._comparing(), *self._judging()]

    def _reading(self) -> Iterator[Step]:
        for number in range(len(self.drawing.chunks)):
            yield _step("draw", number, "drawing samples", self.drawing.draw)
            yield _step("read", number, "reading samples", self.drawing.read)
        if needs_label_grid(self.specification.panels):
            for number in range(len(self.drawing.answer_chunks)):
                yield _step("answers", number, "same noise under every label", self.drawing.answer)
        for split, stage in ((self.held_out, "reading held-out rows"), (self.training, "reading training rows")):
            for number in range(len(split.chunks)):
                yield _step(stage, number, stage, split.read)

    def _comparing(self) -> Iterator[Step]:
        if not needs_neighbours(self.specification.panels):
            return
        for space in SPACES:
            stage = f"nearest training rows by {space}"
            for number in range(len(self.drawing.chunks)):
                yield _step(stage, number, stage, partial(self.gathering.nearest, space))
            stage = f"nearest training rows of held-out rows by {space}"
            for number in range(len(self.reference.chunks)):
                yield _step(stage, number, stage, partial(self.gathering.held_out_nearest, space))

    def _judging(self) -> Iterator[Step]:
        yield Step(name="evidence", stage="gathering", work=self.gathering.evidence)
        parts = parts_of(self.specification.panels, self.specification.conditional)
        for position, part in enumerate(parts):
            last = part.panel not in {each.panel for each in parts[position + 1 :]}
            yield Step(
                name=part.name,
                stage=part.stage,
                work=partial(self._output, f"part-{part.name}", part.compute),
                ends=part.panel if last else None,
            )
        for figure in figures_of(self.specification.panels):
            yield Step(
                name=figure.name,
                stage=figure.stage,
                work=partial(self._output, f"figure-{figure.name}", figure.compute),
            )

    async def _output(self, name: str, compute: Callable[[Evidence], Any]) -> Any:
        async def make() -> Any:
            return await asyncio.to_thread(compute, await self.gathering.evidence())

        return await self.files.json(name, make)

    async def found(self, panels: Sequence[Panel]) -> Found:
        """What these panels found; their parts are done."""
        evidence = await self.gathering.evidence()
        asked = self.specification
        summary = EvidenceSummary.of(evidence, extractor=asked.extractor.name, classifier=asked.classifier.name)
        parts = parts_of(asked.panels, asked.conditional)
        outputs = {
            each.name: await self._output(f"part-{each.name}", each.compute)
            for each in parts
            if asked.panels.index(each.panel) <= max(map(asked.panels.index, panels))
        }
        judged = [await asyncio.to_thread(evaluate_panel, panel, outputs, summary) for panel in panels]
        metrics = tuple(metric for each, _ in judged for metric in each)
        return Found(metrics=metrics, panels=tuple(result for _, result in judged))

    def gates(self, metrics: Sequence[Metric]) -> tuple[GateOutcome, ...]:
        """What becomes of the gates."""
        return tuple(evaluate_gate(parse_gate(each), metrics) for each in self.specification.gates)

    async def bundle(self, found: Found, gates: Sequence[GateOutcome]) -> bytes:
        """The report."""
        evidence = await self.gathering.evidence()
        figures = {
            each.name: await self._output(f"figure-{each.name}", each.compute)
            for each in figures_of(self.specification.panels)
        }
        return await asyncio.to_thread(
            make_bundle,
            specification=self.specification,
            metrics=found.metrics,
            panels=found.panels,
            gates=gates,
            figures=figures,
            failed=evidence.failed,
            compared=min(len(evidence.samples), len(evidence.training)),
        )


def _step(name: str, number: int, stage: str, work: Callable[[int], Awaitable[Any]]) -> Step:
    return Step(name=f"{name} {number}", stage=stage, work=partial(work, number))
