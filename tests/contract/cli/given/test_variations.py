"""`fount reconstruct`, `fount interpolate` and `fount vary`: the pictures and arrays they write."""

from __future__ import annotations

import numpy as np
import pytest

from service.workers.memory import MemoryPool
from tests.contract.cli.given.files import arrays, draw, error_of, fount, saved, size, tiles
from tests.contract.given.streams import pixels

IMAGES = pixels(12)
FLAT = IMAGES.reshape(12, 6)
DECODED = np.pad(FLAT[:, :2], [(0, 0), (0, 4)]).reshape(12, 2, 3)  # what the in-memory model makes of a picture


@pytest.fixture(autouse=True)
def folder() -> None:
    for row, image in enumerate(IMAGES):
        draw(f"some/{row:02}.png", image)
    for row, image in enumerate(IMAGES[:4]):
        draw(f"sorted/{('one', 'two')[row // 2]}/{row}.png", image)


def test_it_draws_originals_above_reconstructions() -> None:
    assert fount("reconstruct plain some --rows 3 --out r.png").stdout.startswith("3 rows reconstructed\n")
    assert size("r.png") == (3, 2)
    assert (tiles("r.png")[0] == IMAGES[:3, ..., 0]).all()
    assert (tiles("r.png")[1] == DECODED[:3]).all()


def test_it_reconstructs_eight_rows_by_default() -> None:
    fount("reconstruct plain some --out r.png")
    assert size("r.png") == (8, 2)


def test_it_breaks_lines_of_more_than_ten() -> None:
    fount("reconstruct plain some --rows 12 --out r.png")
    assert size("r.png") == (10, 4)
    found = tiles("r.png")
    assert (found[2, :2] == IMAGES[10:, ..., 0]).all()
    assert (found[3, :2] == DECODED[10:]).all()
    assert (found[2:, 2:] == 255).all()


def test_it_writes_reconstructions_with_their_originals() -> None:
    fount("reconstruct plain some --rows 2 --encoding float32 --out r.npz")
    found = arrays("r.npz")
    assert found["samples"].dtype == np.float32
    assert np.rint(255 * found["samples"][..., 0]).tolist() == DECODED[:2].tolist()
    assert found["originals"].tolist() == IMAGES[:2].tolist()


def test_it_reconstructs_drawn_latents() -> None:
    line = "reconstruct plain some --rows 2 --sampled --seed 1"
    fount(f"{line} --out a.npz")
    fount(f"{line} --start-index 9 --out b.npz")
    fount("encode plain some --rows 2 --sampled --seed 1 --out z.npz")
    fount("decode plain z.npz --out d.npz")
    assert arrays("a.npz")["samples"].tolist() == arrays("d.npz")["samples"].tolist()
    assert arrays("a.npz")["samples"].tolist() != arrays("b.npz")["samples"].tolist()
    assert arrays("a.npz")["samples"][..., 0].tolist() != DECODED[:2].tolist()


def test_it_draws_originals_that_are_floats() -> None:
    saved(rows=(IMAGES[:2] / 255).astype(np.float32))
    fount("reconstruct plain in.npz --out r.png")
    assert (tiles("r.png")[0] == IMAGES[:2, ..., 0]).all()
    assert (tiles("r.png")[1] == DECODED[:2]).all()


def test_it_draws_a_line_of_each_pair() -> None:
    assert fount("interpolate plain some --rows 4 --points 3 --out i.png").stdout.startswith("2 lines of 3 samples\n")
    assert size("i.png") == (3, 2)
    found = tiles("i.png")
    assert (found[:, 0] == IMAGES[[0, 2], ..., 0]).all()
    assert (found[:, 2] == IMAGES[[1, 3], ..., 0]).all()
    middle = (FLAT[[0, 2], :2].astype(float) + FLAT[[1, 3], :2]) / 2
    assert abs(found[:, 1, 0, :2] - middle).max() <= 1


def test_it_takes_eight_points_by_default() -> None:
    fount("interpolate plain some --rows 2 --out i.png")
    assert size("i.png") == (8, 1)


def test_it_keeps_the_norm_on_a_spherical_line() -> None:
    ends = np.zeros((2, 2, 3, 1), np.uint8)
    ends[0, 0, 0], ends[1, 0, 1] = 255, 255  # latents (1, 0) and (0, 1)
    saved(images=ends)
    fount("interpolate plain in.npz --points 3 --path spherical --out i.npz")
    found = arrays("i.npz")
    assert found["samples"][1, 0, :2, 0].tolist() == [180, 180]  # 255 / √2
    assert found["source"].tolist() == [0, 0, 0]
    fount("interpolate plain in.npz --points 3 --path linear --encoding float32 --out i.npz")
    assert arrays("i.npz")["samples"][1, 0, :2, 0].tolist() == [0.5, 0.5]


def test_pairs_have_the_class_of_their_rows() -> None:
    fount("interpolate classes sorted --points 3 --out i.npz")
    assert arrays("i.npz")["labels"].tolist() == [1, 1, 1, 2, 2, 2]
    fount("interpolate classes sorted --points 2 --labels 0,two --out i.npz")
    assert arrays("i.npz")["labels"].tolist() == [0, 0, 2, 2]


def test_it_draws_originals_before_their_variants() -> None:
    line = "vary plain some --rows 2 --variants 3 --seed 4"
    assert fount(f"{line} --scale 0 --out v.png").stdout.startswith("2 rows, 3 variants of each\n")
    assert size("v.png") == (4, 2)
    assert (tiles("v.png")[:, 0] == IMAGES[:2, ..., 0]).all()
    assert (tiles("v.png")[:, 1:] == DECODED[:2, None]).all()


def test_it_draws_eight_variants_of_another_scale_seed_and_index() -> None:
    options = {"a": "", "scale": "--scale 0.1", "seed": "--seed 2", "index": "--start-index 1"}
    for name, option in options.items():
        fount(f"vary plain some --rows 2 --out {name}.npz --seed 1 {option}")
    found = {name: arrays(f"{name}.npz")["samples"].tobytes() for name in options}
    assert len(set(found.values())) == 4
    assert arrays("a.npz")["samples"].shape == (16, 2, 3, 1)
    assert arrays("a.npz")["source"].tolist() == [0] * 8 + [1] * 8
    assert arrays("a.npz")["originals"].tolist() == IMAGES[:2].tolist()


def test_it_walks_along_a_direction() -> None:
    saved(images=np.zeros((1, 2, 3, 1), np.uint8))
    line = "vary plain in.npz --variants 3 --direction tall"
    fount(f"{line} --from-amount 0 --to-amount 1 --out v.npz")
    assert arrays("v.npz")["samples"][:, 0, 0, 0].tolist() == [0, 128, 255]
    fount(f"{line} --encoding float32 --to-amount 0.25 --out v.npz")
    assert arrays("v.npz")["samples"][:, 0, 0, 0].tolist() == [0, 0, 0.25]
    assert "seed" not in arrays("v.npz")


def test_variants_are_a_data_set(pool: MemoryPool) -> None:
    fount("vary classes sorted --rows 2 --variants 2 --out v.npz")
    found = arrays("v.npz")
    assert found["labels"].tolist() == [1, 1, 1, 1]
    assert fount("classify classes v.npz").stdout.count(" one") == 4  # the known class of each


def test_it_varies_points() -> None:
    fount(f"vary points {saved(points=np.zeros((2, 2), np.float32))} --variants 3 --out v.npz")
    assert arrays("v.npz")["samples"].shape == (6, 2)


@pytest.mark.parametrize("command", ["reconstruct", "interpolate", "vary"])
def test_colour_stays_colour(command: str) -> None:
    images = pixels(6).reshape(2, 2, 3, 3)
    for row, image in enumerate(images):
        draw(f"colour/{row}.png", image)
    fount(f"{command} colour colour --out c.png")
    assert (tiles("c.png")[0, 0] == images[0]).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("reconstruct plain some --out r.txt", "r.txt has no supported suffix: write to a .png file or a .npz file"),
        ("interpolate plain some --rows 3 --out i.png", "3 rows make no pairs; give an even number of them"),
        ("interpolate plain some --points 1 --out i.png", "points: is 1; it may be 2 to 1000"),
        ("interpolate plain some --path curved --out i.png", "'curved' is not one of 'linear', 'spherical'"),
        ("vary plain some --variants 0 --out v.png", "variants: is 0; it may be 1 to 1000"),
        ("vary plain some --scale 101 --out v.png", "scale: is 101; it may be 0 to 100"),
        ("vary plain some --direction wide --out v.png", "tall"),
        ("vary plain some --to-amount 1 --out v.png", "to_amount: goes with a direction"),
        ("vary plain some --direction tall --seed 1 --out v.png", "seed: cannot go with direction"),
        ("vary plain some --variants 400 --out v.png", "A grid shows 2500 images at most, and not 3208"),
        ("vary sampler some --out v.png", "sampler cannot encode or decode; it can sample"),
    ],
)
def test_it_says_what_is_wrong_and_the_remedy(line: str, message: str) -> None:
    assert message in error_of(line)


def test_rows_of_a_pair_must_be_of_one_class() -> None:
    np.savez("pair.npz", images=IMAGES[:2], labels=[0, 1])
    message = "The rows of a pair have two classes; name one for all with --label"
    assert error_of("interpolate classes pair.npz --out i.png") == message
