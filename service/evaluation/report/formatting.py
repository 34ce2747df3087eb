"""Numbers and words as people read them: few digits, every verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "BETTER",
    "NO_NUMBER",
    "PANEL_QUESTIONS",
    "PANEL_TITLES",
    "VERDICT_SIGNS",
    "VERDICT_WORDS",
    "exact",
    "metric_title",
    "number",
    "percent",
    "sentence",
    "whole",
]

NO_NUMBER = "–"
_DIGITS = 3
_LARGE, _SMALL = 1e7, 1e-4
_THIN = "\u202f"  # narrow no-break space, between thousands
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

VERDICT_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "like-real": "Like real data",
        "near-real": "Near real data",
        "worse": "Worse than real data",
        "none": "No verdict",
    }
)
VERDICT_SIGNS: Mapping[str, str] = MappingProxyType({"like-real": "●", "near-real": "◐", "worse": "▲", "none": "○"})
"""Beside every colour, so that nobody needs to see it."""

BETTER: Mapping[str, str] = MappingProxyType(
    {"lower": "lower is better", "higher": "higher is better", "null": "best where real rows are"}
)

PANEL_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "realism": "Realism",
        "diversity": "Diversity",
        "memorisation": "Memorisation",
        "label-fidelity": "Label fidelity",
    }
)
PANEL_QUESTIONS: Mapping[str, str] = MappingProxyType(
    {
        "realism": "Do samples look like real rows?",
        "diversity": "Are there as many different samples as real rows?",
        "memorisation": "Are samples copies of training rows?",
        "label-fidelity": "Do samples show the label they were asked for?",
    }
)

_METRIC_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "realism_median": "Realism, median",
        "fid": "Fréchet distance (FID)",
        "kid": "Kernel distance (KID)",
        "sliced_wasserstein": "Sliced Wasserstein distance",
        "vendi_ratio": "Vendi score against real rows",
        "effective_size_ratio": "Effective size against real rows",
        "worst_class_recall": "Recall of the worst class",
        "worst_class_coverage": "Coverage of the worst class",
        "worst_class_recall_per_precision": "Recall per precision of the worst class",
        "worst_class_vendi_ratio": "Vendi score of the worst class against real rows",
        "worst_class_effective_size_ratio": "Effective size of the worst class against real rows",
        "worst_class_agreement": "Agreement of the worst class",
        "copy_rate_features": "Copy rate in features",
        "copy_rate_strict": "Copy rate at the strict threshold",
        "nearest_auc": "Nearness to training rows (AUC)",
        "nearest_auc_features": "Nearness to training rows in features (AUC)",
    }
)


def number(value: float | None) -> str:
    """Three significant digits, whole numbers whole: 0.861, 12 346, 3.2×10⁻⁵."""
    if value is None:
        return NO_NUMBER
    if math.isinf(value) or math.isnan(value):
        return {True: "∞", False: "−∞"}[value > 0] if math.isinf(value) else NO_NUMBER
    size = abs(value)
    if size == 0:
        return "0"
    if size >= _LARGE or size < _SMALL:
        mantissa, power = f"{value:.{_DIGITS - 1}e}".split("e")
        return _signed(f"{mantissa}×10{str(int(power)).translate(_SUPERSCRIPT)}")
    if size >= 10 ** (_DIGITS - 1) or float(value).is_integer():
        return _signed(f"{value:,.0f}".replace(",", _THIN))
    return _signed(f"{value:#.{_DIGITS}g}".rstrip("."))


def whole(value: int) -> str:
    """A count: 12 346."""
    return f"{value:,}".replace(",", _THIN)


def exact(value: float | None) -> str:
    """All digits there are."""
    return "not known" if value is None else repr(value)


def percent(share: float) -> str:
    """A share of 1: 12.3 %; below a hundredth with two digits: 0.012 %."""
    return f"{100 * share:.1f}{_THIN}%" if share >= 0.01 or share == 0 else f"{100 * share:.2g}{_THIN}%"


def metric_title(name: str) -> str:
    """What people call a metric: its name in words where there is no better one."""
    return _METRIC_TITLES.get(name) or name.replace("_", " ").capitalize()


def sentence(text: str) -> str:
    """The text with a stop at its end."""
    return text if not text or text[-1] in ".!?" else f"{text}."


def _signed(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text
