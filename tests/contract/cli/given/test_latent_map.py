"""`fount latent-map`: the plane that it decodes, and the codes beside it."""

from __future__ import annotations

import json
from statistics import NormalDist

import numpy as np
import pytest
from PIL import Image

from tests.contract.cli.given.files import arrays, error_of, fount, saved
from tests.contract.given.streams import pixels

IMAGES = pixels(40)
CODES = IMAGES.reshape(40, 6) / 255  # what in-memory encoders return the first numbers of


def test_two_numbers_are_drawn_at_quantiles_of_the_prior() -> None:
    assert fount("latent-map plain --side 4 --out m.npz").stdout.startswith("4 × 4 latents decoded, 0 rows encoded\n")
    latents = arrays("m.npz")["latents"].reshape(4, 4, 2)
    expected = [NormalDist().inv_cdf(share) for share in (0.125, 0.375, 0.625, 0.875)]
    np.testing.assert_allclose(latents[0, :, 0], expected, rtol=1e-6)  # to the right
    np.testing.assert_allclose(latents[:, 0, 1], expected[::-1], rtol=1e-6)  # upwards
    assert arrays("m.npz")["samples"].shape == (16, 2, 3, 1)
    assert "codes" not in arrays("m.npz")


def test_a_map_alone_is_pictures_without_gaps() -> None:
    fount("latent-map plain --side 4 --out m.png")
    with Image.open("m.png") as picture:
        assert picture.size == (12 * 50, 8 * 50)  # scaled up to 400 pixels or more
        pixel = np.asarray(picture)[25::50, 25::50]
    fount("latent-map plain --side 4 --out m.npz")
    samples = arrays("m.npz")["samples"].reshape(4, 4, 2, 3)
    assert (pixel == samples.transpose(0, 2, 1, 3).reshape(8, 12)).all()


def test_the_side_is_fifteen_by_default() -> None:
    fount("latent-map plain --out m.npz")
    assert arrays("m.npz")["latents"].shape == (225, 2)


def test_with_rows_two_numbers_are_drawn_at_quantiles_of_their_codes() -> None:
    fount(f"latent-map plain {saved(images=IMAGES)} --side 2 --out m.npz")
    latents = arrays("m.npz")["latents"].reshape(2, 2, 2)
    np.testing.assert_allclose(latents[1, :, 0], np.quantile(CODES[:, 0], [0.25, 0.75]), rtol=1e-6)
    np.testing.assert_allclose(latents[::-1, 0, 1], np.quantile(CODES[:, 1], [0.25, 0.75]), rtol=1e-6)
    np.testing.assert_allclose(arrays("m.npz")["places"], CODES[:, :2], rtol=1e-6)


def test_more_numbers_are_drawn_in_the_plane_of_principal_directions() -> None:
    images = np.zeros((60, 2, 3, 1), np.uint8)
    flat = images.reshape(60, 6)
    flat[:, 2], flat[:, 3], flat[:, 0] = np.arange(60) * 4, np.arange(60) % 2 * 50, 100
    fount(f"latent-map wide {saved(images=images)} --side 3 --out m.npz")
    found = arrays("m.npz")
    assert found["codes"].shape == (60, 4)
    latents = found["latents"].reshape(3, 3, 4)
    np.testing.assert_allclose(latents[..., 0], 100 / 255, rtol=1e-5)  # of which the codes differ in nothing
    along = latents[1, 2] - latents[1, 0]
    assert along[2] > 0.4  # the direction in which they differ most
    assert abs(along[3]) < 0.05
    assert abs((latents[0, 1] - latents[2, 1])[3]) > 0.1


def test_codes_are_drawn_beside_the_map_with_a_legend() -> None:
    labels = np.arange(40) % 2
    fount(f"latent-map plain {saved(images=IMAGES, labels=labels, classes=['cat', 'dog'])} --side 4 --out m.png")
    with Image.open("m.png") as picture:
        assert picture.size == (600 + 400 + 140 + 24, 416)
        pixels_of = np.asarray(picture)
    frame, legend = pixels_of[8:408, 616:1016].reshape(-1, 3).tolist(), pixels_of[8:408, 1016:].reshape(-1, 3).tolist()
    for colour in ([0, 114, 178], [230, 159, 0]):
        assert colour in frame
        assert colour in legend


def test_codes_of_one_class_have_no_legend() -> None:
    fount(f"latent-map plain {saved(images=IMAGES)} --side 4 --out m.png")
    with Image.open("m.png") as picture:
        assert picture.size == (600 + 400 + 24, 416)


def test_a_conditional_model_is_drawn_for_a_class_and_encodes_by_those_of_the_rows() -> None:
    fount("latent-map classes --dataset small --rows 12 --label two --side 2 --encoding float32 --out m.npz")
    found = arrays("m.npz")
    assert found["labels"].tolist() == [2, 2, 2, 2]
    assert found["samples"].dtype == np.float32
    assert set(found["code_labels"].tolist()) == {"zero", "one", "two"}
    fount(f"latent-map classes {saved(images=IMAGES[:3])} --label two --labels 0,1,2 --side 2 --out m.npz")
    fount("latent-map classes in.npz --label two --side 2 --out m.npz")


def test_it_reports_as_json() -> None:
    found = json.loads(fount("latent-map plain --side 2 --out m.npz --json").stdout)
    assert (found["side"], found["rows"], found["out"]) == (2, 0, "m.npz")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("plain --side 1 --out m.png", "1 is not in the range 2<=x<=50"),
        ("plain --out m.jpg", "m.jpg has no supported suffix: write to a .png file or a .npz file"),
        ("wide --out m.png", "whose plane is found from rows; name images, or a data set with --dataset"),
        ("line --out m.png", "line has latents of 1 number, and a map needs two or more; name another model."),
        ("plain two.npz --out m.png", "A plane is found from 3 rows or more, and there are 2; give more of them"),
        ("classes --out m.png", "classes is conditional; name the class of the map with --label"),
        ("plain --label one --out m.png", "plain is unconditional; leave --label out"),
        ("points --out m.png", "m.png would be a picture, and points makes none of 1 or 3 channels: write a .npz file"),
        ("sampler --out m.png", "sampler cannot decode; it can sample"),
    ],
)
def test_it_says_what_is_wrong_and_the_remedy(line: str, message: str) -> None:
    np.savez("two.npz", images=IMAGES[:2])
    assert message in error_of(f"latent-map {line}")
