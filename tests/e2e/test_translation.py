"""Translations on real workers: the same bytes however pictures are cut, packed and accompanied, and through a kill."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fount import Client
from fount.client import aio
from fount.readers import DatasetSource, read_dataset
from tests.e2e.processes import REPOSITORY, Served, run_fount, serving
from tests.e2e.test_many_steps import worker_of

INK, SHARPER = "mnist-ink-cyclegan", "mnist-sr4"
COUNT, SEED = 90, 20_272

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def translating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A stack of a model of one step with two directions, and of one that draws in many steps."""
    folder = tmp_path_factory.mktemp("translating")
    store, out = str(REPOSITORY / "model_store"), folder / "archives"
    packed = run_fount("pack", INK, SHARPER, "--model-store", store, "--out", str(out), home=folder)
    assert packed.returncode == 0, packed.stderr
    with serving(out, folder) as running:
        yield running


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Held-out digits on 28×28 pixels: (90, 28, 28, 1) uint8."""
    digits = read_dataset(DatasetSource(name="digits")).splits["test"].images(np.arange(COUNT))
    large = digits.repeat(3, axis=1).repeat(3, axis=2)  # (N, 8, 8, 1) -> (N, 24, 24, 1)
    return np.pad(large, [(0, 0), (2, 2), (2, 2), (0, 0)])


def reduced(pictures: np.ndarray) -> np.ndarray:
    """Means of 4×4 pixels: (N, 7, 7, 1) uint8."""
    blocks = pictures.reshape(-1, 7, 4, 7, 4, 1).astype(np.float64)
    return np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)


async def in_parts(server: str, model: str, rows: np.ndarray, **query) -> tuple[np.ndarray, np.ndarray]:
    """Translate rows in one request, and then in parts at once, next to others with other seeds."""
    ranges = list(itertools.pairwise([0, 1, 3, 35, 36, 52, len(rows)]))
    async with aio.Client(server) as client:
        whole = np.asarray(await client.translate(model, rows, seed=SEED, **query))
        parts = [client.translate(model, rows[a:b], seed=SEED, start_index=a, **query) for a, b in ranges]
        others = [client.translate(model, rows[: 1 + k], seed=k, **query) for k in range(5)]
        made, *_ = await asyncio.gather(asyncio.gather(*parts), *others)
    return whole, np.concatenate([np.asarray(each) for each in made])


@pytest.mark.parametrize("label", ["to-ink", "to-digit"])
async def test_a_translation_keeps_the_promise_of_addresses(translating: Served, pictures, label: str) -> None:
    rows = pictures if label == "to-ink" else 255 - pictures
    whole, joined = await in_parts(translating.server, INK, rows, label=label)
    assert joined.tobytes() == whole.tobytes()
    is_dark = whole[:, :2].mean() < 128  # the border
    assert is_dark == (label == "to-digit")


async def test_a_drawn_translation_keeps_the_promise_of_addresses(translating: Served, pictures) -> None:
    whole, joined = await in_parts(translating.server, SHARPER, reduced(pictures), steps=8)
    assert joined.tobytes() == whole.tobytes()
    difference = np.abs(reduced(whole).astype(int) - reduced(pictures))
    assert difference.max() <= 1


def test_samples_of_one_picture_differ_and_agree_with_it(translating: Served, pictures) -> None:
    small = reduced(pictures)[0]
    with Client(translating.server) as client:
        many = np.asarray(client.sample(SHARPER, image=small, count=12, seed=SEED, steps=8))
        again = client.translate(SHARPER, small[None].repeat(12, axis=0), seed=SEED, steps=8)
    assert many.tobytes() == again.tobytes()
    assert len({each.tobytes() for each in many}) == 12
    assert np.abs(reduced(many).astype(int) - small).max() <= 1


def test_a_worker_killed_in_the_middle_changes_no_byte(translating: Served, pictures) -> None:
    query = {"image": reduced(pictures)[0], "count": 64, "steps": 40, "seed": SEED}
    with Client(translating.server) as client:
        expected = np.asarray(client.sample(SHARPER, **query))
        killed = []

        def kill_once(done: int, total: int) -> None:
            if not killed and done:
                killed.append(worker_of(translating, SHARPER))
                killed[0].kill()

        chunks = list(client.stream(SHARPER, progress=kill_once, **query))
    assert killed
    assert np.concatenate([chunk.samples for chunk in chunks]).tobytes() == expected.tobytes()


def test_files_are_enlarged_by_the_command(translating: Served, pictures, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    for number, image in enumerate(reduced(pictures)[:3]):
        Image.fromarray(image[..., 0]).save(tmp_path / f"small/{number}.png")
    options = ("--server", translating.server, "--seed", "1", "--steps", "8")
    done = run_fount(
        "upscale", SHARPER, str(tmp_path / "small"), "--out", f"{tmp_path}/large/", *options, home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for number in range(3):
        with Image.open(tmp_path / f"large/{number}.png") as picture:
            assert (picture.size, picture.mode) == ((28, 28), "L")
