"""The steps of one evaluation in order, and what follows from the files they leave: results, gates, the report."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.evaluation.evidence import Evidence
from service.evaluation.panels.gates import evaluate_gate, parse_gate
from service.evaluation.panels.held_out import real_rows_json
from service.evaluation.panels.registry import evaluate_panel, needs_label_grid, needs_neighbours, parts_of
from service.evaluation.pipeline.evidence_builder import SPACES, EvidenceBuilder
from service.evaluation.pipeline.reporter import Results
from service.evaluation.report.bundle import make_bundle
from service.evaluation.report.figures import figures_of
from service.evaluation.results import GateOutcome, Metric, Panel

__all__ = ["EvaluationSteps", "Step"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One step.

    Attributes:
        stage: shown to users while it runs.
        work: leaves a file, or finds it there.
        completes: the panel whose last part this is.
    """

    stage: str
    work: Callable[[], Awaitable[Any]]
    completes: Panel | None = None


class EvaluationSteps:
    """All work of one evaluation; its files are those of `evidence`."""

    def __init__(self, evidence: EvidenceBuilder) -> None:
        self.evidence, self._specification = evidence, evidence.specification

    def steps(self) -> list[Step]:
        """Return every step, in order. Equal specifications have equal steps."""
        return [*self._reading_steps(), *self._neighbour_steps(), *self._scoring_steps(), *self._panel_steps()]

    def _reading_steps(self) -> Iterator[Step]:
        sampling, held_out, training = self.evidence.sampling, self.evidence.held_out, self.evidence.training
        for number in range(len(sampling.chunks)):
            yield Step(stage="drawing samples", work=partial(sampling.draw, number))
            yield Step(stage="reading samples", work=partial(sampling.read, number))
        if needs_label_grid(self._specification.panels):
            yield from _chunked("same noise under every label", sampling.draw_grid, sampling.grid_chunks)
        yield from _chunked("reading held-out rows", held_out.read, held_out.chunks)
        yield from _chunked("reading training rows", training.read, training.chunks)

    def _neighbour_steps(self) -> Iterator[Step]:
        if not needs_neighbours(self._specification.panels):
            return
        for space in SPACES:
            of_samples = partial(self.evidence.nearest, space)
            yield from _chunked(f"nearest training rows by {space}", of_samples, self.evidence.sampling.chunks)
            of_rows = partial(self.evidence.held_out_nearest, space)
            stage = f"nearest training rows of held-out rows by {space}"
            yield from _chunked(stage, of_rows, self.evidence.held_out_chunks)

    def _scoring_steps(self) -> Iterator[Step]:
        if self.evidence.scoring is not None:
            yield from _chunked("scoring real rows", self.evidence.score, self.evidence.scoring.chunks)

    def _panel_steps(self) -> Iterator[Step]:
        yield Step(stage="collecting evidence", work=self.evidence.evidence)
        parts = parts_of(self._specification.panels, self._specification.conditional)
        for position, part in enumerate(parts):
            is_last = part.panel not in {each.panel for each in parts[position + 1 :]}
            work = partial(self._output, f"part-{part.name}", part.compute)
            yield Step(stage=part.stage, work=work, completes=part.panel if is_last else None)
        for figure in figures_of(self._specification.panels):
            yield Step(stage="drawing figures", work=partial(self._output, f"figure-{figure.name}", figure.compute))

    async def results(self, panels: Sequence[Panel]) -> Results:
        """Return the results of these panels, whose parts are done."""
        spec = self._specification
        evidence = await self.evidence.evidence()
        last = max(map(spec.panels.index, panels))
        outputs = {
            each.name: await self._output(f"part-{each.name}", each.compute)
            for each in parts_of(spec.panels, spec.conditional)
            if spec.panels.index(each.panel) <= last
        }
        evaluated = [await asyncio.to_thread(evaluate_panel, panel, outputs, evidence) for panel in panels]
        return Results(
            metrics=tuple(metric for metrics, _ in evaluated for metric in metrics),
            panels=tuple(result for _, result in evaluated),
        )

    def gates(self, metrics: Sequence[Metric]) -> tuple[GateOutcome, ...]:
        """Evaluate the gates."""
        return tuple(evaluate_gate(parse_gate(each), metrics) for each in self._specification.gates)

    async def bundle(self, results: Results, gates: Sequence[GateOutcome]) -> bytes:
        """Pack the report."""
        evidence = await self.evidence.evidence()
        figures = {
            each.name: await self._output(f"figure-{each.name}", each.compute)
            for each in figures_of(self._specification.panels)
        }
        return await asyncio.to_thread(
            make_bundle,
            specification=self._specification,
            metrics=results.metrics,
            panels=results.panels,
            gates=gates,
            figures=figures,
            failed=evidence.failed,
            compared=evidence.compared,
            real_rows=real_rows_json(evidence),
        )

    async def _output(self, name: str, compute: Callable[[Evidence], Any]) -> Any:
        async def make() -> Any:
            return await asyncio.to_thread(compute, await self.evidence.evidence())

        return await self.evidence.files.json(name, make)


def _chunked(stage: str, work: Callable[[int], Awaitable[Any]], chunks: Sequence[slice]) -> Iterator[Step]:
    for number in range(len(chunks)):
        yield Step(stage=stage, work=partial(work, number))
