"""Verdicts: how a metric compares with real data, what a panel answers, and the sentences that say so.

A metric is like real when its interval meets what real rows score, near real when it is away from that by no more than
its tolerance (an effect a person would care about), and worse otherwise. A panel is as bad as the worst of the metrics
that decide it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from service.evaluation.results import Better, Metric, Null, Panel, PanelResult, Verdict
from service.evaluation.statistics.intervals import Interval

__all__ = ["compare_with_null", "decide_panel", "overall", "overall_sentence"]

_RANK = (Verdict.NONE, Verdict.LIKE_REAL, Verdict.NEAR_REAL, Verdict.WORSE)
_SENTENCES: Mapping[Panel, Mapping[Verdict, str]] = MappingProxyType(
    {
        Panel.REALISM: {
            Verdict.LIKE_REAL: "Samples look as real as real rows do",
            Verdict.NEAR_REAL: "Samples look nearly as real as real rows do",
            Verdict.WORSE: "Samples are told apart from real rows",
        },
        Panel.DIVERSITY: {
            Verdict.LIKE_REAL: "Samples are as diverse as real rows",
            Verdict.NEAR_REAL: "Samples are nearly as diverse as real rows",
            Verdict.WORSE: "Samples are less diverse than real rows",
        },
        Panel.MEMORISATION: {
            Verdict.LIKE_REAL: "Samples are no nearer to training rows than unseen real rows are",
            Verdict.NEAR_REAL: "Samples are slightly nearer to training rows than unseen real rows are",
            Verdict.WORSE: "Samples copy training rows",
        },
        Panel.LABEL_FIDELITY: {
            Verdict.LIKE_REAL: "Samples show the label they were asked for as well as real rows do",
            Verdict.NEAR_REAL: "Samples show the label they were asked for nearly as well as real rows do",
            Verdict.WORSE: "Samples often do not show the label they were asked for",
        },
    }
)
_OVERALL: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.NONE: "Nothing could be judged.",
        Verdict.LIKE_REAL: "In all that was asked, samples are like real rows.",
        Verdict.NEAR_REAL: "Samples are near real rows, and told apart in {near}.",
        Verdict.WORSE: "Samples fall short of real rows in {worse}.",
    }
)


def compare_with_null(
    value: float | None, interval: Interval | None, null: Null | None, better: Better, tolerance: float
) -> Verdict:
    """Compare one number with real data.

    Args:
        value: the point estimate; None: only the interval counts.
        interval: of the value; None: the value alone counts.
        null: what real rows score; None: there is no verdict.
        better: which direction is good.
        tolerance: how far from the mean of the null is still near.
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
    """The worst among the deciding metrics, and one sentence with the metric that decided."""
    judged = [each for each in metrics if each.decides and each.verdict is not Verdict.NONE]
    if not judged:
        return PanelResult(
            panel=panel, verdict=Verdict.NONE, sentence="No verdict: none of the deciding metrics could be computed."
        )
    worst = max(judged, key=lambda each: (_RANK.index(each.verdict), _excess(each)))
    said = _SENTENCES[panel][worst.verdict]
    shown = worst if worst.verdict is not Verdict.LIKE_REAL else judged[0]
    return PanelResult(panel=panel, verdict=worst.verdict, sentence=f"{said}: {_clause(shown)}.")


def overall(results: Sequence[PanelResult]) -> Verdict:
    """The worst of the panels' verdicts."""
    return max((each.verdict for each in results), key=_RANK.index, default=Verdict.NONE)


def overall_sentence(results: Sequence[PanelResult]) -> str:
    """One sentence over all panels."""
    named = {verdict: _joined([_name(each) for each in results if each.verdict is verdict]) for verdict in Verdict}
    said = _OVERALL[overall(results)].format(near=named[Verdict.NEAR_REAL], worse=named[Verdict.WORSE])
    if named[Verdict.NONE] and overall(results) is not Verdict.NONE:
        return f"{said} Of {named[Verdict.NONE]} there is no verdict."
    return said


def _excess(metric: Metric) -> float:
    """How many tolerances away from real it is, so that the plainest metric speaks."""
    if metric.value is None or metric.null is None:
        return 0.0
    return abs(metric.value - metric.null.mean) / max(metric.tolerance, 1e-12)


def _clause(metric: Metric) -> str:
    words = metric.name.replace("_", " ")
    value = metric.value if metric.value is not None else metric.interval[0] if metric.interval else None
    if value is None or metric.null is None:
        return words
    return f"{words} {_rounded(value)} where real rows score {_rounded(metric.null.mean)}"


def _rounded(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _name(result: PanelResult) -> str:
    return result.panel.value.replace("-", " ")


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
