"""The family `transforms`: each transform changes its own image as named, and no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fount.address import Addresses
from fount.transform_columns import COLUMNS, IDENTITY, NOISE_FIRST_BLOCK
from fount.transforms import RANGES, Policy, Transform, draw
from handlers.execution.probes import make_manipulations
from handlers.models.transforms import Transforms

Image = NDArray[np.uint8]
FAMILY = Transforms.from_config({})
PICTURE: Image = np.arange(10, 250, 10, np.uint8)[:24].reshape(4, 6, 1)
SQUARE: Image = np.arange(25, dtype=np.uint8).reshape(5, 5, 1) * 10


def table_of(**message: float) -> NDArray[np.float32]:
    row = IDENTITY.copy()
    for name, value in message.items():
        row[COLUMNS.index(name)] = value
    return row[None]


def run(images: Image, table: NDArray[np.float32], addresses: Addresses) -> Image:
    with torch.inference_mode():
        return FAMILY.transform(torch.from_numpy(images), table, addresses).numpy()


def change(picture: Image, index: int = 0, **message: float) -> Image:
    return run(picture[None].copy(), table_of(**message), Addresses.of_range(1, index, 1))[0]


def test_the_identity_gives_the_same_bytes() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (13, 9, 3), np.uint8)
    assert change(picture).tobytes() == picture.tobytes()


def test_a_horizontal_flip_mirrors_left_and_right() -> None:
    assert change(PICTURE, flip_horizontal=1).tolist() == PICTURE[:, ::-1].tolist()


def test_a_vertical_flip_mirrors_top_and_bottom() -> None:
    assert change(PICTURE, flip_vertical=1).tolist() == PICTURE[::-1].tolist()


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (-90, -1), (180, 2)])
def test_quarter_turns_move_pixels_anticlockwise(degrees: float, quarters: int) -> None:
    assert change(SQUARE, rotate_degrees=degrees).tolist() == np.rot90(SQUARE, quarters).tolist()


def test_a_flip_comes_before_a_rotation() -> None:
    assert change(SQUARE, flip_horizontal=1, rotate_degrees=90).tolist() == np.rot90(SQUARE[:, ::-1]).tolist()


def test_a_shift_by_whole_pixels_is_exact() -> None:
    shifted = change(PICTURE, shift_x=2 / 6, shift_y=-1 / 4)
    assert shifted[:3, 2:].tolist() == PICTURE[1:, :4].tolist()
    assert not shifted[3].any()
    assert not shifted[:, :2].any()


def test_a_shift_by_half_a_pixel_gives_means() -> None:
    assert change(PICTURE, shift_x=-0.5 / 6)[0, :5, 0].tolist() == [15, 25, 35, 45, 55]


def test_a_zoom_by_two_keeps_the_centre_and_doubles_a_distance() -> None:
    picture = np.zeros((9, 9, 1), np.uint8)
    picture[4, 4], picture[4, 6] = 200, 100
    zoomed = change(picture, zoom_factor=2)
    assert (zoomed[4, 4, 0], zoomed[4, 8, 0]) == (200, 100)


def test_a_zoom_below_one_leaves_black_around() -> None:
    zoomed = change(np.full((8, 8, 1), 255, np.uint8), zoom_factor=0.5)
    assert zoomed[2:6, 2:6].all()
    assert zoomed[0].sum() == zoomed[:, -1].sum() == 0


def test_a_shear_leans_the_top_to_the_right() -> None:
    picture = np.zeros((5, 5, 1), np.uint8)
    picture[:, 2] = 255
    sheared = change(picture, shear_degrees=45)
    assert sheared[..., 0].argmax(axis=1).tolist() == [4, 3, 2, 1, 0]


def test_brightness_adds_a_share_of_white_and_stops_at_the_ends() -> None:
    picture = np.array([0, 100, 250], np.uint8).reshape(1, 3, 1)
    assert change(picture, brightness=0.2).ravel().tolist() == [51, 151, 255]
    assert change(picture, brightness=-0.2).ravel().tolist() == [0, 49, 199]


def test_contrast_scales_about_the_mean() -> None:
    picture = np.array([80, 100, 120], np.uint8).reshape(1, 3, 1)
    assert change(picture, contrast_factor=2).ravel().tolist() == [60, 100, 140]
    assert change(picture, contrast_factor=0).ravel().tolist() == [100, 100, 100]


def test_noise_has_the_requested_standard_deviation() -> None:
    noisy = change(np.full((64, 64, 3), 128, np.uint8), noise_std=0.1).astype(np.float64) - 128
    assert noisy.std() == pytest.approx(25.5, rel=0.02)
    assert abs(noisy.mean()) < 1


def test_noise_depends_on_the_address() -> None:
    grey = np.full((8, 8, 1), 128, np.uint8)
    assert change(grey, index=3, noise_std=0.1).tobytes() == change(grey, index=3, noise_std=0.1).tobytes()
    assert change(grey, index=3, noise_std=0.1).tobytes() != change(grey, index=4, noise_std=0.1).tobytes()


def test_noise_values_never_change() -> None:
    noisy = change(np.full((2, 4, 1), 128, np.uint8), index=5, noise_std=0.1)
    assert noisy.ravel().tolist() == [122, 68, 181, 145, 149, 133, 87, 147]


def test_noise_of_a_large_image_starts_with_that_of_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    large = change(np.full((4, 40, 1), 128, np.uint8), noise_std=0.1)
    monkeypatch.setattr("handlers.models.transforms._NOISE_VALUES", 24)  # drawn in several stretches
    assert change(np.full((4, 40, 1), 128, np.uint8), noise_std=0.1).tobytes() == large.tobytes()
    assert change(np.full((1, 40, 1), 128, np.uint8), noise_std=0.1).tobytes() == large[:1].tobytes()


def test_parameters_and_noise_share_no_block() -> None:
    assert 4 * (len(RANGES) + 1) // 4 < NOISE_FIRST_BLOCK


def test_erasing_blackens_only_the_rectangle() -> None:
    erased = change(np.full((4, 6, 1), 9, np.uint8), erase_x=1 / 3, erase_y=0.25, erase_width=0.5, erase_height=0.5)
    expected = np.full((4, 6, 1), 9)
    expected[1:3, 2:5] = 0
    assert erased.tolist() == expected.tolist()


def test_channels_are_moved_together() -> None:
    picture = np.stack([SQUARE[..., 0], SQUARE[..., 0] + 1, 255 - SQUARE[..., 0]], axis=-1)
    turned = change(picture, rotate_degrees=90)
    assert turned.tolist() == np.rot90(picture).tolist()


SHAPES = [(28, 28, 1), (8, 8, 1), (17, 33, 3), (1, 1, 1), (5, 1, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_row_has_the_same_bytes_in_any_batch(shape: tuple[int, int, int]) -> None:
    rows = make_manipulations(Addresses.of_range(3, 0, 200), shape)
    whole = run(rows.images, rows.table, rows.addresses)
    order = np.random.default_rng(1).permutation(200)
    mixed = rows.take(order)
    assert run(mixed.images, mixed.table, mixed.addresses).tobytes() == whole[order].tobytes()
    for place in range(0, 200, 9):
        alone = rows.take(slice(place, place + 1))
        assert run(alone.images, alone.table, alone.addresses).tobytes() == whole[place].tobytes()


@pytest.mark.parametrize("kind", list(RANGES))
def test_every_kind_changes_something_and_only_its_rows(kind: int) -> None:
    low, high = RANGES[kind]  # type: ignore[index]
    policy = Policy(transforms=(Transform(kind=kind, probability=0.5, min=low, max=high),))  # type: ignore[arg-type]
    addresses = Addresses.of_range(2, 0, 64)
    images = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 1), np.uint8)
    table = draw(policy, addresses)
    changed = (run(images, table, addresses) != images).any(axis=(1, 2, 3))
    assert (changed == (table != IDENTITY).any(axis=1)).mean() > 0.95  # the smallest change may round to none
    assert not changed[(table == IDENTITY).all(axis=1)].any()


def test_a_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="take no configuration"):
        Transforms.from_config({"padding": 1})
