"""`fount translate`, `fount upscale` and `fount colourise`: the pictures they read and write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.contract.cli.given.files import arrays, draw, error_of, fount, size, tiles
from tests.contract.given.streams import pixels

IMAGES = pixels(3)


def negatives(images: np.ndarray, first: int = 0, label: int = 0, channels: int = 1) -> np.ndarray:
    """What the in-memory models return: negatives, repeated to 2×3 pixels, with label and index at the ends."""
    flat = images.reshape(len(images), -1)
    flat = 255 - flat[:, np.arange(6 * channels) % flat.shape[1]]
    flat[:, 0], flat[:, -1] = label, first + np.arange(len(images))
    return flat.reshape(-1, 2, 3, channels)


@pytest.fixture(autouse=True)
def folder() -> None:
    for row, image in enumerate(IMAGES):
        draw(f"some/{row}.png", image)
        draw(f"small/{row}.png", image[:1, :2])


def test_it_draws_originals_above_translations() -> None:
    assert fount("translate ways some --label up --out t.png").stdout.startswith("3 pictures translated\n")
    assert (tiles("t.png")[0] == IMAGES[..., 0]).all()
    assert (tiles("t.png")[1] == negatives(IMAGES, 0, 1)[..., 0]).all()


def test_it_writes_a_picture_for_each_into_a_folder() -> None:
    fount("upscale enlarger small --start-index 5 --out large/")
    made = [np.asarray(Image.open(f"large/{row}.png")) for row in range(3)]
    assert np.array_equal(np.stack(made)[..., None], negatives(IMAGES[:, :1, :2], 5))


def test_sources_of_one_name_have_files_of_their_own() -> None:
    draw("two/one/a.png", IMAGES[0])
    draw("two/other/a.png", IMAGES[1])
    fount("translate ways two --label down --variants 2 --out made/")
    names = sorted(path.name for path in Path("made").iterdir())
    assert names == ["a-1-variant1.png", "a-1-variant2.png", "a-2-variant1.png", "a-2-variant2.png"]


def test_variants_are_answers_at_indices_of_their_own() -> None:
    fount("colourise painter some --rows 2 --variants 3 --seed 1 --out c.npz")
    found = arrays("c.npz")
    assert found["source"].tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(found["samples"], negatives(IMAGES[[0, 0, 0, 1, 1, 1]], channels=3))
    assert np.array_equal(found["originals"], IMAGES[:2])
    assert found["seed"] == 1
    fount("colourise painter some --rows 2 --variants 3 --seed 1 --out c.png")
    assert size("c.png") == (4, 2)


def test_directions_of_single_pictures() -> None:
    fount("translate ways some --labels 0,1,up --out t.npz")
    assert arrays("t.npz")["labels"].tolist() == [0, 1, 1]


def as_rgba(image: Image.Image) -> Image.Image:
    return image.convert("RGBA")


def as_rotated(image: Image.Image) -> Image.Image:
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # to be shown turned by 90° clockwise
    return turned


READ = {
    "grey": lambda image: image,
    "colours that are grey": lambda image: image.convert("RGB"),
    "transparency": as_rgba,
    "palette": lambda image: image.convert("P"),
    "turned by EXIF": as_rotated,
}


@pytest.mark.parametrize("convert", READ.values(), ids=READ)
def test_it_reads_pictures_of_every_mode(convert) -> None:
    image = convert(Image.fromarray(IMAGES[0, ..., 0]))
    image.save("in.png", exif=image.getexif())
    fount("translate ways in.png --label up --out t.npz")
    assert np.array_equal(arrays("t.npz")["originals"], IMAGES[:1])


def test_it_converts_a_cmyk_picture() -> None:
    Image.new("CMYK", (3, 2)).save("in.jpg")  # without ink
    fount("translate ways in.jpg --label up --out t.npz")
    assert (arrays("t.npz")["originals"] == 255).all()


REFUSED = {
    "16 bits": (lambda: Image.fromarray(np.zeros((2, 3), np.uint16)).save("in.png"), "16"),
    "one pixel": (lambda: Image.new("L", (1, 1)).save("in.png"), "resize them to 3 × 2"),
    "huge": (lambda: Image.new("L", (5000, 4000)).save("in.png"), "pixels"),
    "colours": (lambda: Image.new("RGB", (3, 2), "red").save("in.png"), "convert them to grey"),
    "no picture": (lambda: Path("in.png").write_bytes(b"not a picture"), "in.png"),
}


@pytest.mark.parametrize(("write", "words"), REFUSED.values(), ids=REFUSED)
def test_it_refuses_pictures_in_words(write, words: str) -> None:
    write()
    assert words in error_of("translate ways in.png --label up --out t.png")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("translate ways some --out t.png", "ways has directions or classes; name one with --label: down, up"),
        ("translate plain some --out t.png", "plain cannot translate"),
        ("upscale painter some --out t.png", "painter enlarges no pictures: it makes 2 × 3 × 3 of 2 × 3 × 1"),
        ("colourise enlarger small --out t.png", "enlarger colours no grey pictures"),
        ("translate ways some --label up --out made", "a .png file, a .npz file or a folder/"),
        ("translate ways some --label up --encoding float32 --out made/", "would hold PNG files"),
        ("translate ways some --label up --variants 0 --out t.png", "--variants"),
        ("translate ways some --label up --eta 1 --out t.png", "eta"),
    ],
    ids=["no direction", "other model", "as large", "no colour", "no folder", "floats", "no variants", "parameter"],
)
def test_it_refuses_in_words(line: str, words: str) -> None:
    assert words in error_of(line)
