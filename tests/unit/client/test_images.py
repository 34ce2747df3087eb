"""Image grids and conversion of samples to images."""

import numpy as np
import pytest

from fount.cli.output.images import image_grid, to_pillow, to_uint8


def images(count, channels=1, side=8, value=0):
    return np.full((count, side, side, channels), value, np.uint8)


def test_floats_become_bytes_by_their_value_range():
    assert to_uint8(np.array([-1.0, 0.0, 1.0]), (-1.0, 1.0)).tolist() == [0, 128, 255]


def test_values_outside_the_range_are_clipped():
    assert to_uint8(np.array([-0.5, 1.5, np.nan])).tolist() == [0, 255, 0]


def test_uint8_is_unchanged():
    assert to_uint8(np.array([0, 7, 255], np.uint8), (-1.0, 1.0)).tolist() == [0, 7, 255]


@pytest.mark.parametrize(
    ("shape", "mode"), [((4, 6), "L"), ((4, 6, 1), "L"), ((4, 6, 3), "RGB")], ids=["flat", "grey", "colour"]
)
def test_an_image_has_the_mode_of_its_channels(shape, mode):
    image = to_pillow(np.zeros(shape, np.uint8))
    assert (image.mode, image.size) == (mode, (6, 4))


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (4, 4, 4), (1, 4, 4, 1)], ids=str)
def test_an_image_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="an image is"):
        to_pillow(np.zeros(shape, np.uint8))


def test_small_images_are_scaled_up_and_16_make_a_square():
    assert image_grid(images(16)).size == (4 * 80 + 8, 4 * 98 + 8)


def test_columns_and_scale_can_be_set():
    assert image_grid(images(6), columns=3, scale=2).size == (3 * 24 + 8, 2 * 42 + 8)


def test_fewer_images_than_columns_leave_no_empty_columns():
    assert image_grid(images(2), columns=8, scale=2).size == (2 * 24 + 8, 42 + 8)


def test_a_grid_of_colour_images_is_in_colour():
    assert image_grid(images(1, channels=3)).mode == "RGB"


def test_pixels_are_repeated_not_blurred():
    image = images(1, side=2)
    image[0, 0, 0, 0] = 200
    grid = np.asarray(image_grid(image, [""], scale=2))
    assert grid[26:30, 8:12].tolist() == [[200, 200, 0, 0], [200, 200, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_caption_changes_only_the_pixels_above_its_tile():
    seven, one = (np.asarray(image_grid(images(1), [label])) for label in (7, 1))
    assert (seven != one)[:26].any()
    assert (seven == one)[26:].all()


def test_without_labels_images_are_numbered_from_0():
    assert image_grid(images(2)).tobytes() == image_grid(images(2), ["0", "1"]).tobytes()


def test_a_long_caption_stays_above_its_own_tile():
    grid = np.asarray(image_grid(images(1), ["a very long class name indeed"]))
    assert (grid[:, :8] == 255).all()
    assert (grid[:, -8:] == 255).all()


def test_floats_are_drawn_in_their_value_range():
    drawn = image_grid(np.full((1, 8, 8, 1), 1.0), [""], value_range=(-1.0, 1.0))
    assert drawn.getpixel((40, 60)) == 255


@pytest.mark.parametrize(
    ("count", "labels", "columns", "scale"),
    [(0, [], None, None), (2, [1], None, None), (2, None, 0, None), (2, None, None, 0)],
    ids=["no images", "labels missing", "no columns", "no scale"],
)
def test_invalid_arguments_are_refused(count, labels, columns, scale):
    with pytest.raises(ValueError, match="cannot draw a grid"):
        image_grid(images(count), labels, columns=columns, scale=scale)


@pytest.mark.parametrize(
    ("caption", "drawn"),
    [
        ("Ä", r"\xc4"),
        ("A\u0308", r"\xc4"),
        ("猫", r"\u732b"),
        ("a\nb", r"a\nb"),
        ("\udc80", r"\udc80"),
        ("猫猫猫", r"\u732b..."),
    ],
    ids=["letter", "decomposed letter", "sign", "line break", "no text", "long"],
)
def test_a_caption_shows_characters_that_the_font_lacks_as_escapes(caption, drawn):
    assert image_grid(images(1), [caption]).tobytes() == image_grid(images(1), [drawn]).tobytes()


@pytest.mark.parametrize("pair", ["aä", "猫狗", "°?"])
def test_captions_of_different_names_differ(pair):
    one, other = (image_grid(images(1), [name]).tobytes() for name in pair)
    assert one != other


def test_a_caption_shows_every_sign_that_the_font_has():
    short, escaped = (image_grid(images(1), [name]).tobytes() for name in ("°", r"\xb0"))
    assert short != escaped
