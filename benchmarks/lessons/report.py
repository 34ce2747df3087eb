"""The table of evaluations: one row for each model, every number with that of real rows."""

from __future__ import annotations

from collections.abc import Mapping

from fount.evaluation.types import EvaluationInfo, MetricInfo

__all__ = ["evaluations_to_markdown"]

_METRICS = (
    "fid", "inception_score", "precision", "recall", "coverage", "effective_size_ratio", "copy_rate", "exact_copies",
    "label_agreement",
)  # fmt: skip
_PANELS = ("realism", "diversity", "memorisation", "label-fidelity")


def evaluations_to_markdown(found: Mapping[str, EvaluationInfo], expected: Mapping[str, str]) -> str:
    """Write two tables: verdicts, and numbers as value [interval] (real).

    Args:
        found: evaluations by model, in order.
        expected: expected result of a lesson, by model.
    """
    verdicts = ["| model | " + " | ".join(_PANELS) + " | expected |", "|---" * (len(_PANELS) + 2) + "|"]
    numbers = ["| model | " + " | ".join(_METRICS) + " |", "|---" * (len(_METRICS) + 1) + "|"]
    for model, each in found.items():
        by_panel = {panel.panel: panel.verdict for panel in each.panels}
        cells = [_verdict(by_panel.get(panel, "none")) for panel in _PANELS]
        verdicts.append(f"| {model} | " + " | ".join(cells) + f" | {expected.get(model, 'shipped')} |")
        by_name = {metric.name: metric for metric in each.metrics}
        numbers.append(f"| {model} | " + " | ".join(_cell(by_name.get(name)) for name in _METRICS) + " |")
    return "\n".join([*verdicts, "", "Value [95 % interval] (real rows).", "", *numbers]) + "\n"


def _verdict(verdict: str) -> str:
    return f"**{verdict}**" if verdict == "worse" else verdict


def _cell(metric: MetricInfo | None) -> str:
    if metric is None or metric.value is None:
        return "–"
    text = _number(metric.value)
    if metric.interval is not None:
        text += f" [{', '.join(map(_number, metric.interval))}]"
    return text if metric.null is None else f"{text} ({_number(metric.null.mean)})"


def _number(value: float) -> str:
    return f"{value:.3g}"
