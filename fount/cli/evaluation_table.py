"""An evaluation in words: a table of metrics beside real data, a sentence a panel, the gates, and what follows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from fount.cli.options import plain
from fount.evaluation.types import EvaluationInfo, GateInfo, Interval, MetricInfo

__all__ = [
    "age",
    "aligned",
    "echo_evaluation",
    "metric_line",
    "outcome_problem",
    "share_done",
    "verdicts",
    "written_lines",
]

_COLOURS = {"like-real": "green", "near-real": "yellow", "worse": "red", "passed": "green", "FAILED": "red"}
_WORDS = {"like-real": "like real", "near-real": "near real", "none": "-"}


def echo_evaluation(info: EvaluationInfo) -> None:
    """Write an evaluation to stdout: what it is of, what was found, what follows."""
    for line in (*_facts(info), *_findings(info)):
        click.echo(line)


def outcome_problem(info: EvaluationInfo) -> str | None:
    """Why a pipeline is to stop; None when the evaluation succeeded and no gate failed."""
    if info.state != "succeeded":
        return plain(f"Evaluation {info.id} {_state(info)}{_because(info)}")
    asked, failed = len(info.envelope.gates), [gate for gate in info.gates if not gate.passed]
    if failed:
        return "\n".join([f"{len(failed)} of {asked} gates failed:", *(f"  {_gate(gate)}" for gate in failed)])
    if len(info.gates) != asked or (asked and not info.gates_passed):
        return f"The server does not say of every gate that it passed: {len(info.gates)} outcomes of {asked} gates"
    return None


def metric_line(metric: MetricInfo) -> str:
    """A metric in one line, for a look before the end."""
    return plain(f"{metric.name} {_number(metric.value)} {_range(metric.interval)}".rstrip())


def verdicts(info: EvaluationInfo) -> str:
    """The verdict of every panel, and of the gates, in a few words."""
    told = [f"{each.panel} {_word(each.verdict)}" for each in info.panels]
    if info.gates_passed is not None and info.envelope.gates:
        told.append("gates passed" if info.gates_passed else "gates FAILED")
    return ", ".join(told) or "-"


def share_done(info: EvaluationInfo) -> str:
    """How much of it is done, in per cent; "-" while that is not known."""
    if info.state == "succeeded":
        return "100 %"
    done, total = info.progress.done, info.progress.total
    return f"{100 * done // total} %" if total else "-"


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago something was, in its largest unit."""
    if moment is None:
        return "-"
    seconds = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The cells of a table, as wide as their columns, without characters that would move the cursor."""
    shown = [tuple(map(plain, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        yield tuple(cell.ljust(width) for cell, width in zip(row, widths, strict=True))


def written_lines(written: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What became of reports."""
    for each in written:
        redacted = ", without nearest training rows: they need the grant view-training-neighbours"
        yield plain(f"Written     {each['path']}{redacted if each['redacted'] else ''}")


def _facts(info: EvaluationInfo) -> Iterator[str]:
    asked = info.envelope
    yield plain(f"Evaluation  {info.id}, {_state(info)}{_took(info)}{_how_far(info)}{_because(info)}")
    yield plain(f"Model       {asked.model}, {asked.count:,} samples, seed {asked.seed}{_parameters(info)}")
    yield plain(
        f"Reference   {asked.dataset}: held out {asked.held_out_split} ({asked.held_out_rows:,} rows), "
        f"training {asked.training_split} ({asked.training_rows:,} rows)"
    )
    for role, model in (("Extractor", asked.extractor), ("Classifier", asked.classifier)):
        yield plain(f"{role:<10}  {model.name}:{model.version}")


def _findings(info: EvaluationInfo) -> Iterator[str]:
    if info.metrics:
        yield ""
        yield from _table(info.metrics)
        if any(_is_beside(metric) for metric in info.metrics):
            yield "(in brackets: told beside the panel's verdict, which does not rest on it)"
    # Notes beside numbers are for the report, and for programs: here they would bury what follows.
    notes = [f"{metric.name}: {metric.note}" for metric in info.metrics if metric.value is None and metric.note]
    if notes:
        yield from ("", *map(plain, notes))
    if info.panels:
        yield ""
        for panel in aligned([(each.panel, _word(each.verdict), each.verdict, each.sentence) for each in info.panels]):
            name, word, verdict, sentence = panel
            yield f"{name}  {_coloured(word, verdict.strip())}  {sentence.rstrip()}"
    if info.gates:
        yield ""
        yield from (f"{_coloured(f'{_passed(gate):<6}', _passed(gate))}  {_gate(gate)}" for gate in info.gates)
    if info.state == "succeeded":
        yield ""
        yield _overall(info)


def _table(metrics: Sequence[MetricInfo]) -> Iterator[str]:
    """A line a metric, with its verdict in its colour."""
    header = ("PANEL", "METRIC", "VALUE", "95 % INTERVAL", "REAL", "VERDICT")
    verdicts = ["", *(metric.verdict for metric in metrics)]
    for cells, verdict in zip(aligned([header, *map(_row, metrics)]), verdicts, strict=True):
        *others, last = cells
        yield "  ".join([*others, _coloured(last.rstrip(), verdict)]).rstrip()


def _row(metric: MetricInfo) -> tuple[str, ...]:
    real = "-" if metric.null is None else f"{_number(metric.null.mean)} {_range(metric.null.range)}"
    word = _word(metric.verdict)
    told = f"({word})" if _is_beside(metric) else word
    return metric.panel, metric.name, _number(metric.value), _range(metric.interval) or "-", real, told


def _is_beside(metric: MetricInfo) -> bool:
    return metric.verdict != "none" and not metric.decides


def _overall(info: EvaluationInfo) -> str:
    passed, asked = sum(gate.passed for gate in info.gates), len(info.envelope.gates)
    worst = next((verdict for verdict in ("worse", "near-real", "like-real") if _has(info, verdict)), "none")
    word = "no verdict" if worst == "none" else _word(worst)
    gates = f"; {passed} of {asked} gates passed" if asked else ""
    return f"Overall     {_coloured(word, worst)}{gates}"


def _has(info: EvaluationInfo, verdict: str) -> bool:
    return any(each.verdict == verdict for each in info.panels)


def _gate(gate: GateInfo) -> str:
    if gate.actual is None:
        return plain(f"{gate.gate}  ({gate.note or 'there is no number'})")
    found = _number(gate.actual)
    if gate.gate.endswith(f" {found}"):  # it is so near to the bound that it would look like it
        found = f"{gate.actual:.8g}"
    return plain(f"{gate.gate}  (it is {found})")


def _passed(gate: GateInfo) -> str:
    return "passed" if gate.passed else "FAILED"


def _state(info: EvaluationInfo) -> str:
    return f"was {info.state}" if info.state == "cancelled" else info.state


def _because(info: EvaluationInfo) -> str:
    # That it was cancelled says its state already.
    return f": {info.state_reason}" if info.state_reason and info.state != "cancelled" else ""


def _took(info: EvaluationInfo) -> str:
    if info.is_over:
        return "" if info.started is None or info.ended is None else f" after {age(info.started, info.ended)}"
    since = info.created if info.state == "queued" else info.started
    return "" if since is None else f" for {age(since)}"


def _how_far(info: EvaluationInfo) -> str:
    if info.state != "running" or not info.progress.stage:
        return ""
    share = share_done(info)
    return f", {info.progress.stage}" + ("" if share == "-" else f", {share}")


def _parameters(info: EvaluationInfo) -> str:
    return "".join(f", {name} {value:g}" for name, value in info.envelope.parameters.items())


def _word(verdict: str) -> str:
    return _WORDS.get(verdict, verdict)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"[{_number(interval[0])}, {_number(interval[1])}]"


def _coloured(text: str, verdict: str) -> str:
    """The text in its verdict's colour, where somebody looks and wants colours."""
    colour = _COLOURS.get(verdict)
    if colour is None or not _is_coloured():
        return text
    return click.style(text, fg=colour)


def _is_coloured() -> bool:
    return _is_terminal() and not os.environ.get("NO_COLOR")


def _is_terminal() -> bool:
    return sys.stdout.isatty()
