"""Judge where the values of pictures lie, and what to change when some are beyond the range of the card.

Counts decide, not extremes: one outlier does not make another range. The advice leaves as many pixels as possible as
they are, and passes when it is followed to the letter. Results of batches enter; a description and advice leave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from handlers.execution.pixels import Float32s, find_rows_within

__all__ = [
    "PixelStatistics", "advise_for_parameter", "advise_for_range", "advise_for_unused_half", "describe_range",
    "uses_half",
]  # fmt: skip

Span = tuple[float, float]

_STANDARD: tuple[Span, ...] = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
_NEAR = 0.05  # of a range's width: clamping what is nearer to the range changes no picture visibly
_FEW = 0.01  # of the pixels
_HALF_SLACK = 1e-3
_LAST_LAYERS = {(0.0, 1.0): "torch.sigmoid", (-1.0, 1.0): "torch.tanh"}


@dataclass(kw_only=True)
class PixelStatistics:
    """Where the values of many pixels lie.

    Attributes:
        value_range: of the card.
        low, high: the extremes.
        pixels: how many were counted.
        beyond: how many are outside of the card's range.
        far: how many are outside of a range by more than 5 % of its width; of the card's range and the usual ones.
    """

    value_range: Span
    low: float = math.inf
    high: float = -math.inf
    pixels: int = 0
    beyond: int = 0
    far: dict[Span, int] = field(default_factory=dict)

    def add(self, values: Float32s) -> None:
        """Count the values of a batch, which are finite and not empty."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.pixels += values.size
        self.beyond += int(values.size - np.count_nonzero(find_rows_within(values.reshape(-1, 1), self.value_range)))
        for span in {self.value_range, *_STANDARD}:
            margin = _NEAR * (span[1] - span[0])
            far = np.count_nonzero((values < span[0] - margin) | (values > span[1] + margin))
            self.far[span] = self.far.get(span, 0) + int(far)

    @property
    def is_within(self) -> bool:
        """Whether no value is beyond the card's range but for rounding."""
        return self.beyond == 0

    def suits(self, span: Span) -> bool:
        """Whether clamping to a range would change a picture hardly: few pixels are far beyond it."""
        return self.far[span] <= _FEW * self.pixels

    def fills(self, span: Span) -> bool:
        """Whether the values are those of a range: it suits, and they reach the outer quarters."""
        quarter = (span[1] - span[0]) / 4
        return self.suits(span) and self.low <= span[0] + quarter and self.high >= span[1] - quarter

    def is_in(self, span: Span) -> bool:
        """Whether all values are in a range but for rounding."""
        return bool(find_rows_within(np.array([[self.low], [self.high]], np.float32), span).all())


def describe_range(found: PixelStatistics, when: str = "") -> str:
    """Describe values beyond the card's range: their exact extremes, and the share of pixels."""
    share = f"{found.beyond:,} of {found.pixels:,} ({100 * found.beyond / found.pixels:.2g} %) are beyond it"
    return (
        f"pixels{when} reach from {_exact(found.low)} to {_exact(found.high)}, the card's sample.value_range is"
        f" {list(found.value_range)}: {share}"
    )


def advise_for_range(found: PixelStatistics) -> str:
    """Advise what to change when values are beyond the card's range."""
    if found.suits(found.value_range):
        return f"end with {_clamp(found.value_range)}, which changes these pixels alone"
    usual = next((span for span in _STANDARD if span != found.value_range and found.fills(span)), None)
    if usual is not None:
        clamp = "" if found.is_in(usual) else f", and end with {_clamp(usual)}"
        change = f"set sample.value_range: {list(usual)} in model.yaml{clamp}"
        return f"divide by 255, or {change}" if usual[1] == 255 and found.value_range == (0.0, 1.0) else change
    span = _round_outward(found.low, found.high)
    change = f"set sample.value_range: {list(span)} in model.yaml, and end with {_clamp(span)} for other samples"
    if layer := _LAST_LAYERS.get(found.value_range):
        return f"if the last layer was left out, end with {layer}; otherwise {change}"
    return change


def advise_for_parameter(found: PixelStatistics, name: str) -> str:
    """Advise what to change when values are beyond the card's range at an end of a parameter only."""
    return f"end with {_clamp(found.value_range)}, or narrow parameters.{name} in model.yaml"


def uses_half(found: PixelStatistics, span: Span) -> bool:
    """Whether all values are in one half of a range, which makes pictures pale or dark."""
    middle = (span[0] + span[1]) / 2
    return found.low >= middle - _HALF_SLACK or found.high <= middle + _HALF_SLACK


def advise_for_unused_half(found: PixelStatistics) -> str:
    """Advise which range to write into the card, when half of the card's is never used."""
    usual = next((span for span in _STANDARD if found.is_in(span) and not uses_half(found, span)), None)
    span = usual or _round_outward(found.low, found.high)
    if span[0] == span[1]:
        return "find why all pixels have one value"
    clamp = "" if usual else f", and end with {_clamp(span)} for other samples"
    return f"if pictures are pale or dark, set sample.value_range: {list(span)} in model.yaml{clamp}"


def _clamp(span: Span) -> str:
    return f".clamp({span[0]}, {span[1]})"


def _exact(value: float) -> str:
    """Write a float32 with as few digits as identify it."""
    return str(np.float32(value))


def _round_outward(low: float, high: float) -> Span:
    """Round the ends of a range to three digits of its width, away from its middle."""
    if low == high:
        return low, high
    digits = 2 - math.floor(math.log10(high - low))
    scale = 10.0**digits
    return round(math.floor(low * scale) / scale, digits) + 0.0, round(math.ceil(high * scale) / scale, digits) + 0.0
