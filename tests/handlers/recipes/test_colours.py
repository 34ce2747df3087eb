"""Digits in colour: hues follow the law of their class, and a grey picture is the largest channel."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from handlers.recipes.data.colours import (
    FIRST_SHARE,
    HUE_SPREAD,
    colour_images,
    draw_hues,
    hue_cdf,
    hues_of,
    saturations_of,
)
from handlers.recipes.data.reductions import reduce_images

COUNT = 4000


def distances(label: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Hues of a class minus its first one, in turns from -¼ to ¾."""
    hues = draw_hues(torch.full((COUNT,), label), 0)
    return ((hues - label / 10 + 0.25).remainder(1) - 0.25).numpy()


@pytest.mark.parametrize("label", [0, 3, 9])
def test_hues_follow_the_law_of_their_class(label: int) -> None:
    ordered = np.sort(distances(label))
    gap = np.abs(hue_cdf(ordered) - (np.arange(COUNT) + 0.5) / COUNT).max()
    assert gap < 1.63 / COUNT**0.5  # Kolmogorov's 99 % quantile


def test_seven_of_ten_hues_are_near_the_first() -> None:
    near = np.abs(distances(4)) < 5 * HUE_SPREAD
    assert near.mean() == pytest.approx(FIRST_SHARE, abs=0.03)
    assert np.abs(distances(4)[~near] - 0.5).max() < 5 * HUE_SPREAD


def test_a_hue_depends_on_its_row_alone() -> None:
    labels = torch.arange(10)
    assert torch.equal(draw_hues(labels, 0)[4:], draw_hues(labels[4:], 4))


@pytest.mark.parametrize("hue", [0.0, 0.1, 1 / 3, 0.55, 0.9])
def test_a_white_pixel_has_the_full_colour_of_its_hue(hue: float) -> None:
    colour = colour_images(torch.ones(1, 1, 1, 1), torch.tensor([hue], dtype=torch.float64)).flatten()
    np.testing.assert_allclose(colour, colorsys.hsv_to_rgb(hue, 1, 1), atol=1e-6)


def test_a_coloured_picture_has_its_hue_and_is_reduced_to_its_grey() -> None:
    greys, hues = torch.rand(20, 1, 4, 4), torch.arange(20, dtype=torch.float64) / 20
    images = colour_images(greys, hues)
    torch.testing.assert_close(hues_of(images), hues, atol=1e-6, rtol=0)
    torch.testing.assert_close(saturations_of(images), torch.ones(20, dtype=torch.float64))
    assert torch.equal(reduce_images(images, (1, 4, 4)), greys)


def test_a_grey_picture_has_no_saturation() -> None:
    assert saturations_of(torch.full((1, 3, 2, 2), 0.4)).item() == 0
