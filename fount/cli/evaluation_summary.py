"""Show an evaluation as text: the table of metrics, the verdict of each panel, the gates, and the reason to fail.

An `EvaluationInfo` enters; lines of text leave, coloured on a terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from fount.cli.output.text import align, plain
from fount.evaluation.types import EvaluationInfo, GateInfo, Interval, MetricInfo

__all__ = ["age", "evaluation_lines", "failure", "metric_line", "progress_percent", "report_lines", "verdicts"]

_COLOURS = {
    "like-real": "green", "near-real": "yellow", "worse": "red", "not-measurable": "red", "passed": "green",
    "FAILED": "red",
}  # fmt: skip
_VERDICTS = {"like-real": "like real", "near-real": "near real", "not-measurable": "not measurable", "none": "-"}
_WORST_FIRST = ("worse", "not-measurable", "near-real", "like-real")


def evaluation_lines(info: EvaluationInfo) -> Iterator[str]:
    """Show an evaluation: what was evaluated, the results, and the overall verdict."""
    yield from _facts(info)
    yield from _results(info)


def failure(info: EvaluationInfo) -> str | None:
    """Explain why a pipeline has to stop; None when the evaluation succeeded and every gate passed."""
    if info.state != "succeeded":
        return plain(f"Evaluation {info.id} {_status(info, detailed=False)}")
    requested, failed = len(info.envelope.gates), [gate for gate in info.gates if not gate.passed]
    if failed:
        return "\n".join([f"{len(failed)} of {requested} gates failed:", *(f"  {_gate(gate)}" for gate in failed)])
    if len(info.gates) != requested or (requested and not info.gates_passed):
        return f"The server does not report that every gate passed: {len(info.gates)} outcomes of {requested} gates"
    return None


def metric_line(metric: MetricInfo) -> str:
    """Show a metric in one line, before the evaluation has ended."""
    return plain(f"{metric.name} {_number(metric.value)} {_range(metric.interval)}".rstrip())


def verdicts(info: EvaluationInfo) -> str:
    """Summarise the verdicts of all panels and the gates in one cell of a table."""
    parts = [f"{each.panel} {_verdict(each.verdict)}" for each in info.panels]
    if info.gates_passed is not None and info.envelope.gates:
        parts.append("gates passed" if info.gates_passed else "gates FAILED")
    return ", ".join(parts) or "-"


def progress_percent(info: EvaluationInfo) -> str | None:
    """Return how much is done, as in "27 %"; None while the number of steps is unknown."""
    if info.state == "succeeded":
        return "100 %"
    done, total = info.progress.done, info.progress.total
    return f"{100 * done // total} %" if total else None


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """Return the time since a moment, in its largest unit; "-" when there is no moment."""
    if moment is None:
        return "-"
    seconds = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def report_lines(written: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Make a line per report that `write_reports` wrote."""
    for each in written:
        redacted = ", without nearest training rows: they need the grant view-training-neighbours"
        yield plain(f"Written     {each['path']}{redacted if each['redacted'] else ''}")


def _facts(info: EvaluationInfo) -> Iterator[str]:
    envelope = info.envelope
    parameters = "".join(f", {name} {value:g}" for name, value in envelope.parameters.items())
    yield plain(f"Evaluation  {info.id}, {_status(info, detailed=True)}")
    yield plain(f"Model       {envelope.model}, {envelope.count:,} samples, seed {envelope.seed}{parameters}")
    yield plain(
        f"Reference   {envelope.dataset}: held out {envelope.held_out_split} ({envelope.held_out_rows:,} rows), "
        f"training {envelope.training_split} ({envelope.training_rows:,} rows)"
    )
    for role, model in (("Extractor", envelope.extractor), ("Classifier", envelope.classifier)):
        yield plain(f"{role:<10}  {model.name}:{model.version}")


def _status(info: EvaluationInfo, *, detailed: bool) -> str:
    """Describe the state and its reason; in detail, also how long it has lasted and the stage."""
    is_cancelled = info.state == "cancelled"
    text = "was cancelled" if is_cancelled else info.state
    if detailed and info.is_over and info.started is not None and info.ended is not None:
        text += f" after {age(info.started, info.ended)}"
    if detailed and not info.is_over:
        since = info.created if info.state == "queued" else info.started
        text += "" if since is None else f" for {age(since)}"
    if detailed and info.state == "running" and info.progress.stage:
        percent = progress_percent(info)
        text += f", {info.progress.stage}" + (f", {percent}" if percent else "")
    # The reason of a cancelled evaluation repeats its state.
    return text + (f": {info.state_reason}" if info.state_reason and not is_cancelled else "")


def _results(info: EvaluationInfo) -> Iterator[str]:
    if info.metrics:
        yield ""
        yield from _metric_table(info.metrics)
        if any(map(_is_secondary, info.metrics)):
            yield "(in brackets: not used for the panel's verdict)"
    yield from _missing_values(info.metrics)
    if info.panels:
        yield ""
        cells = align([(each.panel, _verdict(each.verdict), each.sentence) for each in info.panels])
        for (name, verdict, sentence), each in zip(cells, info.panels, strict=True):
            yield f"{name}  {_coloured(verdict, each.verdict)}  {sentence.rstrip()}"
        notes = dict.fromkeys(each.note for each in info.panels if each.note)  # panels rest on the same real rows
        yield from map(plain, ("", *notes) if notes else ())
    if info.gates:
        yield ""
        for gate in info.gates:
            outcome = "passed" if gate.passed else "FAILED"
            yield f"{_coloured(outcome, outcome)}  {_gate(gate)}"
    if info.state == "succeeded":
        yield ""
        yield _overall(info)


def _missing_values(metrics: Sequence[MetricInfo]) -> Iterator[str]:
    """Make a line per reason why metrics have no value.

    Notes on metrics that have values are only in the report and in JSON; they would bury the verdicts here.
    """
    reasons: dict[str, list[str]] = {}
    for metric in metrics:
        if metric.value is None and metric.note:
            reasons.setdefault(metric.note, []).append(metric.name)
    if reasons:
        yield ""
        yield from (plain(f"{', '.join(names)}: {note}") for note, names in reasons.items())


def _metric_table(metrics: Sequence[MetricInfo]) -> Iterator[str]:
    """Make a line per metric, with its verdict coloured."""
    rows = [("PANEL", "METRIC", "VALUE", "95 % INTERVAL", "REAL", "VERDICT")]
    for metric in metrics:
        real = "-" if metric.null is None else f"{_number(metric.null.mean)} {_range(metric.null.range)}"
        verdict = _verdict(metric.verdict)
        verdict = f"({verdict})" if _is_secondary(metric) else verdict
        rows.append((metric.panel, metric.name, _number(metric.value), _range(metric.interval) or "-", real, verdict))
    for cells, verdict in zip(align(rows), ["", *(metric.verdict for metric in metrics)], strict=True):
        *others, last = cells
        yield "  ".join([*others, _coloured(last.rstrip(), verdict)]).rstrip()


def _is_secondary(metric: MetricInfo) -> bool:
    """Whether a metric has a verdict that does not decide the panel's."""
    return metric.verdict != "none" and not metric.decides


def _overall(info: EvaluationInfo) -> str:
    found = {each.verdict for each in info.panels}
    worst = next((verdict for verdict in _WORST_FIRST if verdict in found), None)
    verdict = "no verdict" if worst is None else _coloured(_verdict(worst), worst)
    requested = len(info.envelope.gates)
    gates = f"; {sum(gate.passed for gate in info.gates)} of {requested} gates passed" if requested else ""
    return f"Overall     {verdict}{gates}"


def _gate(gate: GateInfo) -> str:
    if gate.actual is None:
        return plain(f"{gate.gate}  ({gate.note or 'there is no value'})")
    actual = _number(gate.actual)
    if gate.gate.endswith(f" {actual}"):  # rounding hides how it differs from the bound
        actual = f"{gate.actual:.8g}"
    return plain(f"{gate.gate}  (it is {actual})")


def _verdict(verdict: str) -> str:
    return _VERDICTS.get(verdict, verdict)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"[{_number(interval[0])}, {_number(interval[1])}]"


def _coloured(text: str, verdict: str) -> str:
    """Colour text by its verdict, on a terminal and unless NO_COLOR is set."""
    colour = _COLOURS.get(verdict)
    if colour is None or os.environ.get("NO_COLOR") or not _is_terminal():
        return text
    return click.style(text, fg=colour)


def _is_terminal() -> bool:
    return sys.stdout.isatty()
