"""Attributes of pictures, directions in latent spaces, and sharpness: exact on pictures with known answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from handlers.cards.card import Direction
from handlers.recipes.data.load import Split
from handlers.recipes.quality.attributes import find_directions, ink, measure_directions, slant
from handlers.recipes.quality.latent import sharpness


class Identity(nn.Module):
    """An autoencoder whose code is the picture."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls()

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, None]:
        return images.flatten(1), None

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return z.unflatten(1, (1, 4, 4))


def picture(*pixels: tuple[int, int], grey: float = 1.0, side: int = 5) -> Tensor:
    images = torch.zeros(1, 1, side, side)
    for y, x in pixels:
        images[0, 0, y, x] = grey
    return images


def rows(count: int = 64) -> Split:
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return Split(images=images, labels=torch.arange(count) % 2)


def test_ink_is_the_sum_of_grey_levels() -> None:
    assert ink(picture((0, 1), (3, 3), grey=0.5)).tolist() == [1.0]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([(0, 4), (1, 3), (2, 2)], 1.0),
        ([(0, 0), (1, 1), (2, 2)], -1.0),
        ([(0, 2), (2, 2), (4, 2)], 0.0),
        ([(0, 3), (2, 2), (4, 1)], 0.5),
    ],
    ids=["to the right", "to the left", "upright", "half"],
)
def test_the_slant_of_a_line_is_its_pixels_to_the_right_for_each_upwards(
    pixels: list[tuple[int, int]], expected: float
) -> None:
    assert slant(picture(*pixels)).tolist() == pytest.approx([expected])


def test_the_slant_of_an_empty_picture_is_0() -> None:
    assert slant(torch.zeros(2, 1, 5, 5)).tolist() == [0.0, 0.0]


def test_the_direction_of_thickness_leads_from_the_rows_of_least_ink_of_each_class_to_those_of_most() -> None:
    images = torch.tensor([1.0, 2, 3, 4, 10, 20, 30, 40])[:, None, None, None] / 40 * torch.eye(4)[None, None]
    split = Split(images=images, labels=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    thickness = find_directions(Identity(), split)[0]
    # (4 + 40 - 1 - 10) / 2 of 40, on the diagonal
    assert (thickness.name, thickness.vector[0], thickness.vector[1]) == ("thickness", pytest.approx(0.4125), 0.0)


def test_one_unit_of_thickness_adds_the_ink_between_the_quarters_where_codes_are_pictures() -> None:
    found = list(measure_directions(Identity(), rows(), find_directions(Identity(), rows())))
    assert [entry.metric for entry in found] == ["thickness-change", "slant-change"]
    assert found[0].value == pytest.approx(found[0].real_value, abs=1e-3)
    assert "it also changes slant" in found[0].method


def test_a_direction_of_another_name_is_not_measured() -> None:
    other = Direction(name="colour", description="Colour", vector=(0.0,) * 16)
    assert not list(measure_directions(Identity(), rows(), (other,)))


def test_a_chequered_picture_is_sharp_and_an_even_one_is_not() -> None:
    chequered = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    assert sharpness(torch.stack([chequered.float(), torch.ones(4, 4)])[:, None]).tolist() == [4.0, 0.0]


def test_a_blurred_stroke_is_less_sharp_and_a_pale_one_as_sharp() -> None:
    stroke, blurred = picture((2, 1), (2, 2), (2, 3), side=6), picture((2, 1), (2, 2), (2, 3), grey=0.5, side=6)
    blurred += picture((3, 1), (3, 2), (3, 3), grey=0.5, side=6)
    found = sharpness(torch.cat([stroke, stroke / 2, blurred]))
    assert found[0] == pytest.approx(float(found[1]))
    assert found[2] < 0.7 * found[0]
