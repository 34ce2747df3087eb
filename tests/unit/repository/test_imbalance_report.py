"""The report of the imbalance experiment."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.imbalance.arms import ARMS
from benchmarks.imbalance.learning import Score
from benchmarks.imbalance.report import interval_over_seeds, scores_to_markdown, scores_to_picture


def score(recall: float) -> Score:
    return Score(accuracy=0.9, cut_recall=recall, other_recall=0.95, cut_precision=1.0)


def test_the_interval_of_five_values_is_that_of_students_t() -> None:
    assert interval_over_seeds([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3.0, 1.0368, 4.9632), abs=1e-3)


def test_the_interval_of_equal_values_is_a_point() -> None:
    assert interval_over_seeds([0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_the_table_has_a_row_for_each_arm() -> None:
    table = scores_to_markdown({"resampled": [score(0.8), score(0.9)]}, {"resampled": 67420})
    assert "| resampled | 67420 | 85.00 % [21.47, 100.00] | 100.00 % [100.00, 100.00] |" in table


def test_the_picture_is_an_image(tmp_path: Path) -> None:
    scores_to_picture({arm.name: [score(0.5), score(0.6)] for arm in ARMS}, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > 500


def test_only_arms_with_synthesis_name_a_generator() -> None:
    assert ["synthesis" in arm.plan_spec("d", 0) for arm in ARMS] == [False, False, False, False, True, True]
