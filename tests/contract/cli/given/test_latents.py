"""`fount encode` and `fount decode`, and the rows that all commands over given rows read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from service.workers.memory import MemoryPool
from tests.contract.cli.given.files import arrays, draw, error_of, fount, saved, size, tiles
from tests.contract.given.streams import pixels

IMAGES = pixels(3)
LATENTS = (IMAGES.reshape(3, 6)[:, :2] / np.float32(255)).astype(np.float32)  # what the in-memory encoder returns
DECODED = np.pad(IMAGES.reshape(3, 6)[:, :2], [(0, 0), (0, 4)]).reshape(3, 2, 3)


@pytest.fixture(autouse=True)
def folder() -> None:
    """Three pictures, and the same in folders of classes."""
    for row, image in enumerate(IMAGES):
        draw(f"flat/{row}.png", image)
        draw(f"sorted/{('zero', 'one', 'two')[row]}/{row}.png", image)


def test_it_writes_the_latents_of_pictures() -> None:
    result = fount("encode plain flat --out z.npz")
    assert result.stdout.splitlines()[0] == "3 rows encoded to 2 numbers each"
    assert result.stdout.splitlines()[-1] == "Written   z.npz"
    found = arrays("z.npz")
    assert found["latents"].tobytes() == LATENTS.tobytes()
    assert set(found) == {"latents", "model", "digest", "numerics"}


def test_it_reports_as_json() -> None:
    found = json.loads(fount("encode plain flat --sampled --seed 5 --out z.npz --json").stdout)
    assert found.pop("digest").startswith("sha256:")
    assert (found.pop("model"), found.pop("numerics"), found.pop("out")) == ("plain:1", "memory", "z.npz")
    assert found == {"seed": 5, "start_index": 0, "rows": 3, "latent_dim": 2}


def test_it_reads_every_kind_of_rows() -> None:
    inputs = ["flat", "flat/0.png flat/1.png flat/2.png", saved(anything=IMAGES)]
    np.savez("floats.npz", rows=(IMAGES / 255).astype(np.float32))
    np.savez("doubles.npz", rows=IMAGES[..., 0] / 255, more=1)
    for each in [*inputs, "floats.npz", "doubles.npz"]:
        fount(f"encode plain {each} --out z.npz")
        np.testing.assert_allclose(arrays("z.npz")["latents"], LATENTS, atol=1e-7)


def test_it_reads_rows_of_a_data_set_with_their_classes() -> None:
    fount("encode classes --dataset small --rows 7 --out z.npz")
    found = arrays("z.npz")
    assert found["latents"].shape == (7, 2)
    assert found["labels"].shape == (7,)
    assert found["classes"].tolist() == ["zero", "one", "two"]


def test_it_takes_classes_from_folders(pool: MemoryPool) -> None:
    fount("encode classes sorted --out z.npz")
    assert arrays("z.npz")["labels"].tolist() == [1, 2, 0]  # in the order of the folders' names: one, two, zero


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"labels": [2, 0, 1]}, [2, 0, 1]),
        ({"labels": [0, 1, 1], "classes": ["two", "zero"]}, [2, 0, 0]),
        ({"label": ["one", "zero", "one"]}, [1, 0, 1]),
    ],
    ids=["indices", "indices with names", "names"],
)
def test_it_takes_classes_from_arrays(more, expected) -> None:
    fount(f"encode classes {saved(images=IMAGES, **more)} --out z.npz")
    assert arrays("z.npz")["labels"].tolist() == expected


def test_it_prefers_classes_of_options() -> None:
    fount("encode classes sorted --label two --out z.npz")
    assert arrays("z.npz")["labels"].tolist() == [2, 2, 2]
    fount("encode classes flat --labels zero,#2,1 --out z.npz")
    assert arrays("z.npz")["labels"].tolist() == [0, 2, 1]


def test_it_draws_latents_of_a_seed_and_an_index() -> None:
    fount("encode plain flat --sampled --seed 5 --out a.npz")
    fount("encode plain flat --sampled --seed 5 --out same.npz")
    fount("encode plain flat --sampled --seed 6 --out seed.npz")
    fount("encode plain flat --sampled --seed 5 --start-index 1 --out later.npz")
    a, same, seed, later = (arrays(f"{name}.npz")["latents"] for name in ("a", "same", "seed", "later"))
    assert (a == same).all()
    assert (a != LATENTS).all()
    assert (a != seed).all()
    noise = np.round((later - LATENTS)[:2] / 0.25, 4)
    assert (noise == np.round((a - LATENTS)[1:] / 0.25, 4)).all()
    assert (arrays("later.npz")["seed"], arrays("later.npz")["start_index"]) == (5, 1)


def test_it_writes_deviations() -> None:
    fount("encode plain flat --spread --out z.npz")
    assert arrays("z.npz")["latents"].tobytes() == LATENTS.tobytes()
    assert arrays("z.npz")["spread"].tolist() == [[0.25, 0.25]] * 3


def test_it_sends_many_rows_in_parts_as_one(pool: MemoryPool) -> None:
    images = pixels(600, seed=3)
    fount(f"encode plain {saved(images=images)} --sampled --out z.npz")
    whole = arrays("z.npz")
    seed = int(whole["seed"])
    np.savez("part.npz", images=images[300:])
    fount(f"encode plain part.npz --sampled --seed {seed} --start-index 300 --out part_z.npz")
    assert (whole["latents"][300:] == arrays("part_z.npz")["latents"]).all()
    fount("encode plain in.npz --rows 400 --out z.npz")
    assert arrays("z.npz")["latents"].shape == (400, 2)


def test_it_shows_progress_of_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fount.cli.given.work.error_is_terminal", lambda: True)
    saved(images=pixels(1000, seed=3))
    assert "1000/1000" in fount("encode plain in.npz --out z.npz").stderr
    assert fount("encode plain in.npz --out z.npz --json").stderr == ""
    assert fount("encode plain in.npz --rows 999 --out z.npz").stderr == ""


def test_it_decodes_what_it_encoded() -> None:
    fount("encode plain flat --out z.npz")
    assert fount("decode plain z.npz --out d.npz").stdout.splitlines()[0] == "3 latents decoded"
    fount("reconstruct plain flat --out r.npz")
    assert arrays("d.npz")["samples"][..., 0].tolist() == DECODED.tolist()
    assert arrays("d.npz")["samples"].tobytes() == arrays("r.npz")["samples"].tobytes()


def test_it_decodes_with_the_classes_of_the_file() -> None:
    fount("encode classes sorted --out z.npz")
    fount("decode classes z.npz --out d.npz")
    assert arrays("d.npz")["samples"][:, 1, 2, 0].tolist() == [1, 2, 0]
    fount("decode classes z.npz --label two --out d.npz")
    assert arrays("d.npz")["samples"][:, 1, 2, 0].tolist() == [2, 2, 2]


def test_it_draws_decoded_latents() -> None:
    fount(f"decode plain {saved(latents=LATENTS)} --out d.png")
    assert size("d.png") == (2, 2)
    assert (tiles("d.png").reshape(4, 2, 3)[:3] == DECODED).all()
    fount("decode plain in.npz --rows 2 --encoding float32 --out d.npz")
    assert arrays("d.npz")["samples"].dtype == np.float32
    assert arrays("d.npz")["samples"].shape == (2, 2, 3, 1)
    fount("decode plain in.npz --encoding float32 --out d.png")
    assert (tiles("d.png").reshape(4, 2, 3)[:3] == DECODED).all()


def test_it_works_on_points() -> None:
    fount(f"encode points {saved(points=LATENTS)} --out z.npz")
    assert arrays("z.npz")["latents"].tobytes() == LATENTS.tobytes()
    fount("decode points z.npz --out d.npz")
    assert arrays("d.npz")["samples"].shape == (3, 2)


def test_it_pins_digest_numerics_and_priority() -> None:
    fount("encode plain flat --out z.npz")
    digest = str(arrays("z.npz")["digest"])
    fount(f"encode plain flat --digest {digest} --numerics memory --priority interactive --out z.npz")
    assert "model.digest: " in error_of("encode plain flat --digest sha256:0 --out z.npz")
    assert "'other'" in error_of("encode plain flat --numerics other --out z.npz")
    assert "'urgent' is not one of 'bulk', 'interactive'" in error_of("encode plain flat --priority urgent --out z.npz")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("encode plain --out z.npz", "Name images, or a data set with --dataset"),
        ("encode plain flat --dataset small --out z.npz", "Name files, or a data set with --dataset, not both"),
        ("encode plain flat --out z.png", "z.png has no supported suffix: write to a .npz file"),
        ("encode plain flat --out no/z.npz", "no/z.npz cannot be written: there is no folder no"),
        ("encode plain absent.png --out z.npz", "There is no file 'absent.png'."),
        ("encode plain flat --label one --out z.npz", "plain is unconditional; leave --label and --labels out"),
        ("encode classes flat --out z.npz", "classes is conditional; name the class of the rows with --label"),
        ("encode classes flat --label 1 --labels 1,1,1 --out z.npz", "Give --label or --labels, not both"),
        ("encode classes flat --labels 1,1 --out z.npz", "--labels names 2 classes for 3 rows; name one for each"),
        (
            "encode classes flat --label cat --out z.npz",
            "classes has no class 'cat'; `fount model classes` lists its classes.",
        ),
        (
            "encode large flat --out z.npz",
            "The rows are 2 × 3 × 1, and a row of large is 4 × 4 × 1: resize them to 4 × 4 pixels (width × height).",
        ),
        (
            "encode points flat --out z.npz",
            "The rows are 2 × 3 × 1, and a row of points is 2: give an NPZ file of (rows, 2) floats.",
        ),
        (
            "decode plain flat --out z.npz",
            "The rows are 2 × 3 × 1, and a latent of plain is 2: give an NPZ file of (rows, 2) floats.",
        ),
        (
            "encode sampler flat --out z.npz",
            "sampler cannot encode; it can sample. Name another model; `fount models` lists them.",
        ),
        (
            "decode points in.npz --out z.png",
            "z.png would be a picture, and points makes none of 1 or 3 channels: write a .npz file",
        ),
        (
            "encode plain many.npz --out z.npz",
            "The images cannot be used: many.npz holds a, b; name the array of rows images.",
        ),
        (
            "encode plain grey.npz --out z.npz",
            "The images cannot be used:\n  grey.npz: holds images of (1, 2, 3, 2); (N, H, W, 1 or 3) is supported",
        ),
        (
            "encode plain empty.npz --out z.npz",
            "The images cannot be used:\n  empty.npz: holds (0, 2), which is no rows; give at least one",
        ),
    ],
)
def test_it_says_what_is_wrong_and_the_remedy(pool: MemoryPool, line: str, message: str) -> None:
    saved(latents=LATENTS)
    np.savez("many.npz", a=1, b=2)
    np.savez("grey.npz", images=np.zeros((1, 2, 3, 2), np.uint8))
    np.savez("empty.npz", latents=np.zeros((0, 2)))
    assert error_of(line) == message
    assert pool.calls == []


def test_it_names_classes_that_the_model_lacks() -> None:
    message = "The rows are of the class 'cat', which classes does not have; name one that it has with --label."
    assert error_of(f"encode classes {saved(images=IMAGES, labels=['one', 'cat', 'one'])} --out z.npz") == message


def test_it_does_not_send_wrong_options() -> None:
    message = "The request cannot be sent:\n  spread: cannot go with sampled, since drawn latents have no spread; "
    assert error_of("encode plain flat --sampled --spread --out z.npz") == message + "leave out one of both"
    seed = error_of("encode plain flat --sampled --seed -1 --out z.npz")
    assert seed.startswith("The request cannot be sent:\n  seed: is -1;")


def test_it_refuses_grids_too_large() -> None:
    np.savez("z.npz", latents=np.zeros((2501, 2), np.float32))
    message = "A grid shows 2500 images at most, and not 2501; write a .npz file, or lower --rows"
    assert error_of("decode plain z.npz --rows 3000 --out d.png") == message


def test_it_names_a_row_that_failed(pool: MemoryPool) -> None:
    pool.faults.bad_indices = frozenset({1})
    try:
        assert "1 samples failed:\n  sample 1: " in error_of("encode plain flat --out z.npz")
    finally:
        pool.faults.bad_indices = frozenset()
