"""Shapes on marble: rows by index, factors, colours read back, and known bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fount.readers import DataError, DatasetSource, read_dataset
from fount.readers.shapes import (
    SHAPE_CLASSES,
    SHAPE_COLOURS,
    SHAPE_SPLITS,
    draw_factors,
    draw_shapes,
    read_colours,
    read_shapes,
)

TEST_FIRST = SHAPE_SPLITS["test"][0]
COUNT = 3000


def indices(first: int = 0, count: int = COUNT) -> np.ndarray:
    return np.uint64(first) + np.arange(count, dtype=np.uint64)


def test_the_first_rows_have_known_bytes_on_every_processor() -> None:
    pixels, _ = draw_shapes(0, 16)
    assert (
        hashlib.sha256(pixels.tobytes()).hexdigest()
        == "40d0fa8e47eef1b8e014ac21b81849b49a9a7b0c78fdf92616abba9bbcd597e6"
    )


def test_the_data_set_has_the_digest_of_its_model_cards() -> None:
    assert (
        read_dataset(DatasetSource(name="shapes64")).digest
        == "sha256:7fddf82e9646ac8504bd2e705b678f615d9de813ae9b8555438a15fd5e73232c"
    )


@pytest.mark.parametrize("first", [0, 70, TEST_FIRST, 2**64 - 1])
def test_any_row_is_drawn_again_alone(first: int) -> None:
    pixels, _ = draw_shapes(min(first, 2**64 - 130), 130)
    alone, _ = draw_shapes(first, 1)
    assert (alone[0] == pixels[first - min(first, 2**64 - 130)]).all()


def test_rows_of_a_split_are_those_of_its_indices_in_any_order() -> None:
    split = read_shapes().splits["test"]
    pixels, factors = draw_shapes(TEST_FIRST, 100)
    assert (split.images(np.array([99, 3, 3])) == pixels[[99, 3, 3]]).all()
    assert (split.labels[:100] == factors.shape).all()


def test_no_row_is_in_both_splits() -> None:
    (train, rows), (test, _) = SHAPE_SPLITS["train"], SHAPE_SPLITS["test"]
    assert train + rows <= test
    assert len({row.tobytes() for first in (train, test) for row in draw_shapes(first, 200)[0]}) == 400


def test_a_row_outside_its_split_is_refused() -> None:
    with pytest.raises(DataError, match="row 20000 of train does not exist; it has rows 0 to 19999"):
        read_shapes().splits["train"].images(np.array([20_000]))


def test_every_shape_is_inside_its_picture() -> None:
    f = draw_factors(indices())
    assert (f.radius.min() >= 14, f.radius.max() <= 22) == (True, True)
    for middle in (f.x, f.y):
        assert (middle - f.radius).min() >= 0.99
        assert (middle + f.radius).max() <= 63.01


@pytest.mark.parametrize(("factor", "kinds"), [("shape", SHAPE_CLASSES), ("colour", SHAPE_COLOURS)])
def test_kinds_are_equally_likely(factor: str, kinds: tuple[str, ...]) -> None:
    counts = np.bincount(getattr(draw_factors(indices()), factor), minlength=len(kinds))
    expected = COUNT / len(kinds)
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # chi-squared of 5 degrees, 0.1 %


def test_shape_and_colour_are_independent() -> None:
    f = draw_factors(indices())
    both = np.bincount(f.shape.astype(int) * 6 + f.colour, minlength=36)
    assert ((both - COUNT / 36) ** 2 / (COUNT / 36)).sum() < 66.6  # chi-squared of 35 degrees, 0.1 %


def test_colours_are_read_back_from_pixels() -> None:
    pixels, factors = draw_shapes(0, 600)
    colours, shares = read_colours(pixels)
    assert (colours == factors.colour).all()
    assert shares.min() > 0.8


def test_a_picture_of_two_colours_has_no_clear_one() -> None:
    image = np.full((1, 64, 64, 3), 200, np.uint8)
    image[0, 20:40, 20:32] = (204, 51, 46)
    image[0, 20:40, 32:44] = (48, 82, 190)
    assert read_colours(image)[1] == [0.5]


def test_the_ground_alone_has_no_colour() -> None:
    pixels, factors = draw_shapes(0, 64)
    yy, xx = np.mgrid[:64, :64]
    for image, x, y, radius in zip(pixels, factors.x, factors.y, factors.radius, strict=True):
        image[np.hypot(xx + 0.5 - x, yy + 0.5 - y) < radius + 1.5] = 200
    assert (read_colours(pixels)[1] == 0).all()


def test_the_edge_of_a_shape_has_shares_of_its_colour() -> None:
    """A circle covers π r² pixels, those at its edge in part."""
    pixels, factors = draw_shapes(0, 200)
    for row in np.flatnonzero(factors.shape == SHAPE_CLASSES.index("circle")):
        coloured = (np.ptp(pixels[row], axis=-1) >= 60).sum()
        assert coloured == pytest.approx(np.pi * (0.75 * factors.radius[row]) ** 2, rel=0.08)
