"""Measures and their intervals: closed forms, served pixels, and equality of pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fount.intervals import wilson_interval
from handlers.family import Deadline, Draw, Noise
from handlers.recipes.quality.measures import (
    count_copies,
    count_duplicates,
    distance_ratio,
    draw_images,
    each_bytes,
    resampled_distance_ratios,
    resampled_smallest_share,
    smallest_quantile_interval,
    smallest_share_interval,
)

# --- Pictures as they are served --------------------------------------------------------------------------------------


class Ramp:
    """A sampler whose rows are the same eight floats from -1 to 1, plus a thousandth of their number."""

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        rows = torch.from_numpy(noise.addresses.indices.astype(np.float32))[:, None]
        return (torch.linspace(-1, 0.5, 8) + rows / 1000).reshape(-1, 1, 2, 4)


def test_pictures_have_the_levels_a_client_receives() -> None:
    images = draw_images(Ramp(), 1, 250, None, value_range=(-1.0, 1.0))
    levels = 255 * images
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert levels[0].flatten().round().tolist() == [0, 27, 55, 82, 109, 137, 164, 191]


def test_pictures_are_drawn_in_order_across_chunks() -> None:
    images = draw_images(Ramp(), 1, 250, None, value_range=(-1.0, 1.0))
    assert (255 * images[[0, 100, 249], 0, 0, 0]).round().tolist() == [0, 13, 32]


def test_every_row_of_a_pair_is_a_duplicate() -> None:
    images = torch.tensor([0.1, 0.2, 0.1, 0.3, 0.2, 0.1])[:, None, None, None].expand(6, 1, 8, 8)
    assert count_duplicates(images) == 5


def test_floats_of_one_level_are_equal_and_of_the_next_are_not() -> None:
    images = torch.tensor([100.0, 100.4, 101.0])[:, None, None, None] / 255
    assert count_duplicates(images) == 2


def test_a_copy_differs_in_no_pixel() -> None:
    real = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = real[[7, 250, 9]].clone()
    images[2, 0, 7, 7] = 1 - images[2, 0, 7, 7].round()
    assert count_copies(images, set(each_bytes(real))) == 2


# --- Distances and shares ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "trials", "interval"),
    [(81, 263, (0.2553, 0.3662)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0))],
    ids=["some", "none", "all"],
)
def test_wilson_intervals_are_those_of_the_literature(hits: int, trials: int, interval: tuple[float, float]) -> None:
    assert wilson_interval(hits, trials) == pytest.approx(interval, abs=1e-4)


def test_the_distance_ratio_of_pictures_half_as_far_apart_is_a_half() -> None:
    real = torch.rand(20, 1, 8, 8)
    assert distance_ratio(0.5 * real, real) == pytest.approx(0.5)


def test_the_bootstrap_of_a_distance_ratio_lies_around_it() -> None:
    generator = torch.Generator().manual_seed(0)
    images, real = (torch.rand(50, 1, 8, 8, generator=generator) for _ in range(2))
    resampled = resampled_distance_ratios(images, real, 1000, generator)
    assert resampled.mean().item() == pytest.approx(distance_ratio(images, real), rel=2e-3)
    assert resampled.quantile(0.025) < distance_ratio(images, real) < resampled.quantile(0.975)


def test_a_picture_drawn_twice_does_not_lower_the_mean() -> None:
    images = torch.tensor([0.0, 1.0])[:, None, None, None]
    resampled = resampled_distance_ratios(images, images, 50, torch.Generator().manual_seed(0))
    assert set(resampled[resampled.isfinite()].tolist()) == {1.0}


def test_the_rarest_of_equal_classes_is_rarer_in_a_draw() -> None:
    shares = resampled_smallest_share(torch.tensor([50, 50]), 100, 2000, torch.Generator().manual_seed(0))
    assert shares.mean().item() == pytest.approx(0.46, abs=2e-3)  # 0.5 - E|hits/100 - 0.5| = 0.5 - 0.0398


# --- Intervals of a smallest value ------------------------------------------------------------------------------------

RAREST = {
    "all equal": [0.1] * 10,
    "one rare": [0.05] + [0.95 / 9] * 9,
    "spread": [0.07, 0.08, 0.085, 0.09, 0.1, 0.105, 0.11, 0.115, 0.12, 0.125],
}


def draw_counts(shares: list[float], times: int = 1000) -> list[list[int]]:
    counts: list[list[int]] = np.random.default_rng(0).multinomial(10_000, shares, size=times).tolist()
    return counts


def test_the_bounds_of_the_smallest_share_are_wilsons_at_two_tails() -> None:
    assert smallest_share_interval([10, 90, 900]) == pytest.approx((0.005441, 0.020805), abs=1e-6)  # z 1.960, 2.394


@pytest.mark.parametrize("shares", RAREST.values(), ids=RAREST)
def test_the_interval_of_the_smallest_share_contains_it_19_times_in_20(shares: list[float]) -> None:
    intervals = [smallest_share_interval(counts) for counts in draw_counts(shares)]
    assert sum(low <= min(shares) <= high for low, high in intervals) >= 950


def test_an_interval_of_the_smallest_class_alone_misses_one_time_in_four() -> None:
    intervals = [wilson_interval(min(counts), 10_000) for counts in draw_counts(RAREST["all equal"])]
    assert sum(low <= 0.1 <= high for low, high in intervals) < 800


@pytest.mark.parametrize("ratios", [[0.9] * 5, [0.7, 0.9, 0.9, 0.9, 0.9]], ids=["all equal", "one small"])
def test_the_interval_of_the_smallest_ratio_contains_it_9_times_in_10(ratios: list[float]) -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(200):
        pairs = [torch.randn(2, 40, 4, generator=generator) for _ in ratios]
        resampled = [
            resampled_distance_ratios(k * above, below, 500, generator)
            for k, (above, below) in zip(ratios, pairs, strict=True)
        ]
        low, high = smallest_quantile_interval(torch.stack(resampled))
        held += low <= min(ratios) <= high
    assert held >= 184  # 95 % of 200 is 190; its binomial error is 3
