"""Values beyond the card's range: what is advised leaves pixels as they are, and passes when followed to the letter."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from handlers.cards.card import Parameter
from handlers.checks.loading import check_card
from handlers.checks.report import Finding
from handlers.checks.samples import check_golden_samples
from handlers.checks.subject import Subject
from handlers.checks.value_range import PixelStatistics, advise_for_range, advise_for_unused_half
from handlers.settings import Settings
from tests.handlers.planted import RESULT, SOURCE, custom_card, find, plant

Span = tuple[float, float]

SLIGHTLY = "torch.sigmoid(9 * x).reshape(-1, 1, 4, 4) * 1.0437 - 0.0193"
BACKGROUND = "torch.where(x > 0, 1.004, 0.1).reshape(-1, 1, 4, 4) + 1e-3 * x.sin().reshape(-1, 1, 4, 4)"
WIDE = "3.1 * torch.tanh(x).reshape(-1, 1, 4, 4) + 0.3"
NEARLY_TANH = "1.0003 * torch.tanh(9 * x).reshape(-1, 1, 4, 4)"
OUTLIER = "(torch.sigmoid(x) + 40 * (z[:, :1] > 1.8) * (torch.arange(16) == 3)).reshape(-1, 1, 4, 4)"
LEVELS = "255 * torch.sigmoid(4 * x).reshape(-1, 1, 4, 4)"


def card_of(span: Span) -> dict[str, object]:
    return {"sample": dataclasses.replace(custom_card().sample, value_range=span)}


def follow(folder: Path, result: str, span: Span, change: str) -> Finding:
    """Do what the last sentence of the advice says, exactly as it is printed, and check again."""
    if found := re.search(r"sample\.value_range: \[(\S+), (\S+)\]", change):
        span = float(found[1]), float(found[2])
    clamp = re.search(r"\.clamp\([^)]*\)", change)
    return find(plant(folder, result=f"({result}){clamp[0] if clamp else ''}", card=card_of(span)), "output")


RESULTS = {
    "slightly beyond": (SLIGHTLY, (0.0, 1.0), "end with .clamp(0.0, 1.0), which changes these pixels alone"),
    "a background slightly beyond": (BACKGROUND, (0.0, 1.0), "end with .clamp(0.0, 1.0), which changes"),
    "one outlier": (OUTLIER, (0.0, 1.0), "end with .clamp(0.0, 1.0), which changes these pixels alone"),
    "another usual range": (NEARLY_TANH[9:], (0.0, 1.0), "set sample.value_range: [-1.0, 1.0] in model.yaml"),
    "slightly beyond another range": (
        NEARLY_TANH, (0.0, 1.0), "set sample.value_range: [-1.0, 1.0] in model.yaml, and end with .clamp(-1.0, 1.0)",
    ),
    "levels": (LEVELS, (-1.0, 1.0), "set sample.value_range: [0.0, 255.0] in model.yaml"),
    "a range of its own": (WIDE, (-1.0, 1.0), "otherwise set sample.value_range: [-2.8"),
    "half of a range": (RESULT, (-1.0, 1.0), "if pictures are pale or dark, set sample.value_range: [0.0, 1.0]"),
    "half of a range of its own": (
        "0.9 + 0.01 * torch.tanh(x).reshape(-1, 1, 4, 4)", (0.0, 1.0), "set sample.value_range: [0.8",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("result", "span", "change"), RESULTS.values(), ids=RESULTS.keys())
def test_advice_that_is_followed_to_the_letter_passes(tmp_path: Path, result: str, span: Span, change: str) -> None:
    finding = find(plant(tmp_path / "before", result=result, card=card_of(span)), "output")
    assert finding.state != "passed"
    assert change in finding.change
    assert follow(tmp_path / "after", result, span, finding.change).state == "passed"


def test_the_extremes_are_exact_and_the_pixels_beyond_are_counted(tmp_path: Path) -> None:
    seen = find(plant(tmp_path, result="torch.where(x > 0, 1.0000417, 0.25).reshape(-1, 1, 4, 4)"), "output").seen
    found = re.fullmatch(
        r"pixels reach from 0.25 to 1.0000417, the card's sample.value_range is \[0.0, 1.0\]: "
        r"(\d+) of 512 \((\d+) %\) are beyond it",
        seen,
    )
    assert found is not None
    assert round(100 * int(found[1]) / 512) == int(found[2])


def test_a_parameters_end_is_clamped_or_narrowed(tmp_path: Path) -> None:
    source = SOURCE.replace("sample(self, z, label)", "sample(self, z, label, temperature=1.0)")
    parameters = {"temperature": Parameter(min=0.5, max=1.5, default=1.0, description="Of the picture.")}
    result, card = f"temperature * {RESULT}", {"parameters": parameters}
    finding = find(plant(tmp_path / "before", source=source, result=result, card=card), "output")
    assert finding.change == "end with .clamp(0.0, 1.0), or narrow parameters.temperature in model.yaml"
    clamped = plant(tmp_path / "after", source=source, result=f"({result}).clamp(0.0, 1.0)", card=card)
    assert find(clamped, "output").state == "passed"


def statistics(values: list[float], span: Span = (-1.0, 1.0)) -> PixelStatistics:
    found = PixelStatistics(value_range=span)
    found.add(np.array(values, np.float32))
    return found


def test_ends_of_a_measured_range_are_rounded_outward() -> None:
    found = statistics([-3.14159, *np.linspace(-3, 2, 50), 2.71828])
    assert "sample.value_range: [-3.15, 2.72] in model.yaml, and end with .clamp(-3.15, 2.72)" in advise_for_range(
        found
    )


def test_equal_pixels_are_given_no_range() -> None:
    assert advise_for_unused_half(statistics([0.5, 0.5], (0.0, 1.0))) == "find why all pixels have one value"


def test_golden_samples_beyond_the_range_are_reported_with_the_clamp(tmp_path: Path) -> None:
    folder = plant(tmp_path, card=card_of((0.0, 0.5)))
    subject = Subject(folder=folder, settings=Settings(), picture=tmp_path / "check.png")
    check_card(subject)
    finding = check_golden_samples(subject)
    assert finding.change == "end the module with .clamp(0.0, 0.5), or correct sample.value_range"
