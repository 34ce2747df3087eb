"""Verdicts: compare metrics with real data, decide each panel, and describe the verdicts in sentences.

A metric is like real when its interval overlaps the range of what real rows score, near real when it differs from real
rows by no more than its tolerance (an effect that would matter in practice), and worse otherwise. It is not measurable
where the real rows are unfit to compare with, which counts for more than being near. A panel has the worst verdict of
the metrics that decide it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.evaluation.results import Better, Metric, Null, Panel, PanelResult, Verdict
from service.evaluation.statistics.intervals import Interval

__all__ = ["compare_with_null", "decide_panel", "overall_sentence", "overall_verdict"]

_RANK = (Verdict.NONE, Verdict.LIKE_REAL, Verdict.NEAR_REAL, Verdict.NOT_MEASURABLE, Verdict.WORSE)
_SENTENCES: Mapping[tuple[Panel, Verdict], str] = {
    (Panel.REALISM, Verdict.LIKE_REAL): "Samples are as realistic as real rows",
    (Panel.REALISM, Verdict.NEAR_REAL): "Samples are nearly as realistic as real rows",
    (Panel.REALISM, Verdict.WORSE): "Samples are less realistic than real rows",
    (Panel.DIVERSITY, Verdict.LIKE_REAL): "Samples are as diverse as real rows",
    (Panel.DIVERSITY, Verdict.NEAR_REAL): "Samples are nearly as diverse as real rows",
    (Panel.DIVERSITY, Verdict.WORSE): "Samples are less diverse than real rows",
    (Panel.MEMORISATION, Verdict.LIKE_REAL): "Samples are no nearer to training rows than held-out rows are",
    (Panel.MEMORISATION, Verdict.NEAR_REAL): "Samples are slightly nearer to training rows than held-out rows are",
    (Panel.MEMORISATION, Verdict.WORSE): "Samples copy training rows",
    (Panel.LABEL_FIDELITY, Verdict.LIKE_REAL): "Samples show the requested label as well as real rows do",
    (Panel.LABEL_FIDELITY, Verdict.NEAR_REAL): "Samples show the requested label nearly as well as real rows do",
    (Panel.LABEL_FIDELITY, Verdict.WORSE): "Samples often do not show the requested label",
}
_OVERALL: Mapping[Verdict, str] = {
    Verdict.NONE: "No verdict could be reached.",
    Verdict.LIKE_REAL: "Samples are like real rows in every panel.",
    Verdict.NEAR_REAL: "Samples are near real rows, with small differences in {near}.",
    Verdict.NOT_MEASURABLE: "Samples cannot be compared with real rows in {unmeasured}.",
    Verdict.WORSE: "Samples are worse than real rows in {worse}.",
}


def compare_with_null(
    value: float | None, interval: Interval | None, null: Null | None, better: Better, tolerance: float
) -> Verdict:
    """Compare one number with its null distribution.

    Args:
        value: the point estimate; None: only the interval counts.
        interval: of the value; None: the value alone counts.
        null: what real rows score; None: there is no verdict.
        better: which direction is good.
        tolerance: how far from the mean of the null distribution is still near.
    """
    ends = interval if interval is not None else None if value is None else (value, value)
    if null is None or ends is None:
        return Verdict.NONE
    low, high = null.range
    if ends[0] <= high and ends[1] >= low:
        return Verdict.LIKE_REAL
    above = ends[0] > high
    if (better == "higher" and above) or (better == "lower" and not above):
        return Verdict.LIKE_REAL
    nearest = value if value is not None else ends[0] if above else ends[1]
    return Verdict.NEAR_REAL if abs(nearest - null.mean) <= tolerance else Verdict.WORSE


def decide_panel(panel: Panel, metrics: Sequence[Metric]) -> PanelResult:
    """Return the worst verdict of the deciding metrics, and a sentence with the metric that decided."""
    deciding = [each for each in metrics if each.decides and each.verdict is not Verdict.NONE]
    if not deciding:
        sentence = "No verdict: none of the deciding metrics could be computed."
        return PanelResult(panel=panel, verdict=Verdict.NONE, sentence=sentence)
    worst = max(deciding, key=lambda each: (_RANK.index(each.verdict), _difference(each)))
    if worst.verdict is Verdict.NOT_MEASURABLE:
        names = [each.name.replace("_", " ") for each in deciding if each.verdict is Verdict.NOT_MEASURABLE]
        sentence = f"Not measurable: {_list(names)}. {worst.note}."
        return PanelResult(panel=panel, verdict=worst.verdict, sentence=sentence)
    shown = worst if worst.verdict is not Verdict.LIKE_REAL else deciding[0]
    sentence = f"{_SENTENCES[panel, worst.verdict]}: {_describe(shown)}."
    return PanelResult(panel=panel, verdict=worst.verdict, sentence=sentence)


def overall_verdict(results: Sequence[PanelResult]) -> Verdict:
    """Return the worst of the panels' verdicts."""
    return max((each.verdict for each in results), key=_RANK.index, default=Verdict.NONE)


def overall_sentence(results: Sequence[PanelResult]) -> str:
    """Describe the verdicts of all panels in one or two sentences."""
    panels = {
        verdict: _list([each.panel.replace("-", " ") for each in results if each.verdict is verdict])
        for verdict in Verdict
    }
    worst, unmeasured = overall_verdict(results), panels[Verdict.NOT_MEASURABLE]
    sentence = _OVERALL[worst].format(
        near=panels[Verdict.NEAR_REAL], worse=panels[Verdict.WORSE], unmeasured=unmeasured
    )
    if unmeasured and worst is Verdict.WORSE:
        sentence += f" They cannot be compared in {unmeasured}."
    if panels[Verdict.NONE] and worst is not Verdict.NONE:
        sentence += f" There is no verdict on {panels[Verdict.NONE]}."
    return sentence


def _difference(metric: Metric) -> float:
    """Return the distance from the mean of real rows, in tolerances: the largest one is the one to show."""
    if metric.value is None or metric.null is None:
        return 0.0
    return abs(metric.value - metric.null.mean) / max(metric.tolerance, 1e-12)


def _describe(metric: Metric) -> str:
    name = metric.name.replace("_", " ")
    value = metric.value if metric.value is not None else metric.interval[0] if metric.interval else None
    if value is None or metric.null is None:
        return name
    return f"{name} {_rounded(value)} where real rows score {_rounded(metric.null.mean)}"


def _rounded(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _list(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
