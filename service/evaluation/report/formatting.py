"""Format numbers and names for the page: three significant digits, every verdict in words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

__all__ = [
    "BETTER",
    "NO_NUMBER",
    "PANEL_QUESTIONS",
    "VERDICT_SIGNS",
    "VERDICT_WORDS",
    "exact",
    "number",
    "percent",
    "sentence",
    "title",
    "whole",
]

NO_NUMBER = "–"

VERDICT_WORDS: Mapping[str, str] = {
    "like-real": "Like real data",
    "near-real": "Near real data",
    "worse": "Worse than real data",
    "not-measurable": "Not measurable",
    "none": "No verdict",
}
VERDICT_SIGNS: Mapping[str, str] = {
    "like-real": "●", "near-real": "◐", "worse": "▲", "not-measurable": "◇", "none": "○",
}  # fmt: skip
"""Shown with every colour, so that verdicts can be read without seeing colours."""

BETTER: Mapping[str, str] = {
    "lower": "lower is better",
    "higher": "higher is better",
    "null": "best where real rows are",
}
PANEL_QUESTIONS: Mapping[str, str] = {
    "realism": "Do samples look like real rows?",
    "diversity": "Are there as many different samples as real rows?",
    "memorisation": "Are samples copies of training rows?",
    "label-fidelity": "Do samples show the requested label?",
}
_TITLES: Mapping[str, str] = {
    "realism_median": "Realism, median",
    "fid": "Fréchet distance (FID)",
    "kid": "Kernel distance (KID)",
    "sliced_wasserstein": "Sliced Wasserstein distance",
    "vendi_ratio": "Vendi score relative to real rows",
    "effective_size_ratio": "Effective size relative to real rows",
    "worst_class_recall": "Recall of the worst class",
    "worst_class_coverage": "Coverage of the worst class",
    "worst_class_recall_per_precision": "Recall per precision of the worst class",
    "worst_class_vendi_ratio": "Vendi score of the worst class relative to real rows",
    "worst_class_effective_size_ratio": "Effective size of the worst class relative to real rows",
    "worst_class_agreement": "Agreement of the worst class",
    "copy_rate_features": "Copy rate in features",
    "copy_rate_strict": "Copy rate at the strict threshold",
    "nearest_auc": "Nearness to training rows (AUC)",
    "nearest_auc_features": "Nearness to training rows in features (AUC)",
    "train_test_gap": "Log-likelihood of training rows less that of held-out rows (nats)",
}
_DIGITS = 3
_LARGE, _SMALL = 1e7, 1e-4
_THOUSANDS = "\u202f"  # narrow no-break space
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None) -> str:
    """Format with three significant digits, whole numbers whole: 0.861, 12 346, 3.2×10⁻⁵."""
    if value is None or math.isnan(value):
        return NO_NUMBER
    size = abs(float(value))
    if math.isinf(value):
        text = "∞"
    elif size == 0:
        return "0"
    elif size >= _LARGE or size < _SMALL:
        mantissa, power = f"{size:.{_DIGITS - 1}e}".split("e")
        text = f"{mantissa}×10{str(int(power)).translate(_SUPERSCRIPT)}"
    elif size >= 10 ** (_DIGITS - 1) or size.is_integer():
        text = f"{size:,.0f}".replace(",", _THOUSANDS)
    else:
        text = f"{size:#.{_DIGITS}g}".rstrip(".")
    return f"−{text}" if value < 0 else text


def whole(value: int) -> str:
    """Format a count: 12 346."""
    return f"{value:,}".replace(",", _THOUSANDS)


def exact(value: float | None) -> str:
    """Format with all digits."""
    return "not known" if value is None else repr(value)


def percent(share: float) -> str:
    """Format a share of 1: 12.3 %; below a hundredth with two digits: 0.012 %."""
    return f"{100 * share:.1f}{_THOUSANDS}%" if share >= 0.01 or share == 0 else f"{100 * share:.2g}{_THOUSANDS}%"


def title(name: str) -> str:
    """Return the title of a metric or panel; by default its name with spaces."""
    return _TITLES.get(name) or re.sub("[_-]", " ", name).capitalize()


def sentence(text: str) -> str:
    """Add a full stop where there is none."""
    return text if not text or text[-1] in ".!?" else f"{text}."
