"""Draws of many steps on real workers: cut, packed, in company, given their beginning, and through a killed worker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from fount import Client
from fount.client import aio
from fount.readers import DatasetSource, read_dataset
from tests.e2e.processes import REPOSITORY, Served, run_fount, serving

MODELS = ("digits-pixelcnn", "digits-diffusion")
FURTHER = ("grammar-gpt", "digits-imagegpt", "digits-fvbn")
SEED, COUNT = 20_271, 90
TALL = 5
"""Rows of pixels that are given."""
LITTLE_NOISE = 0.002
"""An untrained network amplifies rounding where there is more, beyond the tolerance of golden samples."""


@contextmanager
def serving_models(folder: Path, models: tuple[str, ...]) -> Iterator[Served]:
    """Serve models of the store, or of folders."""
    out, store = folder / "archives", str(REPOSITORY / "model_store")
    run("pack", *models, "--model-store", store, "--out", str(out), home=folder)
    with serving(out, folder) as running:
        yield running


def run(*command: str, home: Path) -> None:
    ended = run_fount(*command, home=home)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def served_many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A stack of two small models that draw in many steps, of discrete and of continuous values."""
    with serving_models(tmp_path_factory.mktemp("many"), MODELS) as running:
        yield running


@pytest.fixture(scope="module")
def served_further(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A stack of further ones, and of a network that diffusers made."""
    from diffusers import DDPMScheduler  # with torch, which most of these tests do without

    from tests.handlers.diffusers_models.saved import save_pipeline

    folder = tmp_path_factory.mktemp("further")
    saved = save_pipeline(folder / "saved", 3, DDPMScheduler(beta_end=LITTLE_NOISE))
    run("new", "ddpm", "--from-diffusers", str(saved), "--model-store", str(folder / "store"), home=folder)
    with serving_models(folder, (*FURTHER, str(folder / "store" / "ddpm"))) as running:
        yield running


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Held-out rows of the digits."""
    return read_dataset(DatasetSource(name="digits")).splits["test"].images(np.arange(COUNT))


def bytes_of(samples) -> list[bytes]:
    """The bytes of each sample, of texts their UTF-8."""
    if samples.texts:
        return [text.encode() for text in samples.texts]
    return [row.tobytes() for row in np.asarray(samples)]


async def in_parts(server: str, model: str, **query) -> tuple[list[bytes], list[bytes]]:
    """Draw samples in one request, and then in shuffled parts next to others, and with other priorities."""
    async with aio.Client(server) as client:
        whole = bytes_of(await client.sample(model, seed=SEED, count=COUNT, **query))
        cuts = [0, 1, 3, 35, 36, 52, COUNT]
        ranges = list(itertools.pairwise(cuts))
        parts = [
            client.sample(model, seed=SEED, start_index=first, count=end - first, **query)
            for first, end in ranges[::2] + ranges[1::2]
        ]
        others = [client.sample(model, seed=k, count=1 + k) for k in range(5)]
        drawn, *_ = await asyncio.gather(asyncio.gather(*parts), *others)
    by_range = dict(zip(ranges[::2] + ranges[1::2], map(bytes_of, drawn), strict=True))
    return whole, [each for cut in ranges for each in by_range[cut]]


@pytest.mark.parametrize("model", MODELS)
async def test_samples_keep_the_promise_of_addresses(served_many: Served, model: str) -> None:
    whole, joined = await in_parts(served_many.server, model)
    assert joined == whole
    assert len(set(whole)) > COUNT // 2


@pytest.mark.slow
async def test_further_models_keep_the_promise_of_addresses(served_further: Served, digits: np.ndarray) -> None:
    for model in FURTHER:
        whole, joined = await in_parts(served_further.server, model)
        assert joined == whole, model
        prefix = "the " if model == "grammar-gpt" else digits[0, :4].tobytes()
        whole, joined = await in_parts(served_further.server, model, prefix=prefix)
        assert joined == whole, model


@pytest.mark.slow
async def test_a_network_of_diffusers_draws_its_pictures_whatever_the_parts(served_further: Served) -> None:
    from diffusers import DDIMScheduler
    from torch import tensor

    from tests.handlers.diffusers_models.saved import draw_with_diffusers, make_unet, noise_of

    whole, joined = await in_parts(served_further.server, "ddpm", label=1, steps=10)
    assert joined == whole
    with Client(served_further.server) as client:
        drawn = client.sample("ddpm", label=1, steps=10, seed=3, count=5)
    expected = draw_with_diffusers(make_unet(3), DDIMScheduler(beta_end=LITTLE_NOISE), noise_of(5), tensor([1] * 5), 10)
    pixels = 127.5 * (expected.permute(0, 2, 3, 1).numpy() + 1)  # (B, C, H, W) -> (B, H, W, C)
    assert np.abs(np.asarray(drawn).astype(float) - pixels).max() <= 2


@pytest.mark.parametrize(
    ("model", "query"),
    [
        ("digits-pixelcnn", {"temperature": 0.8, "top_p": 0.9, "guidance_scale": 2.0}),
        ("digits-diffusion", {"steps": 7, "eta": 1.0, "guidance_scale": 1.5}),
    ],
    ids=MODELS,
)
async def test_parameters_keep_the_promise_of_addresses(served_many: Served, model: str, query: dict) -> None:
    whole, joined = await in_parts(served_many.server, model, **query)
    assert joined == whole
    plain, _ = await in_parts(served_many.server, model)
    assert whole != plain


async def test_a_picture_is_completed_from_its_upper_rows(served_many: Served, digits: np.ndarray) -> None:
    prefix = digits[0, :TALL].tobytes()
    whole, joined = await in_parts(served_many.server, "digits-pixelcnn", label=3, prefix=prefix)
    assert joined == whole
    images = np.frombuffer(b"".join(whole), np.uint8).reshape(COUNT, 8, 8)
    assert (images[:, :TALL] == images[0, :TALL]).all()
    assert len({each[TALL:].tobytes() for each in images}) > COUNT // 2


async def test_a_picture_is_inpainted_where_its_mask_is_0(served_many: Served, digits: np.ndarray) -> None:
    mask = np.zeros((8, 8, 1), np.uint8)
    mask[:, :4] = 1
    whole, joined = await in_parts(served_many.server, "digits-diffusion", label=3, image=digits[:1], mask=mask[None])
    assert joined == whole
    images = np.frombuffer(b"".join(whole), np.uint8).reshape(COUNT, 8, 8)
    assert (images[:, :, :4] == digits[0, :, :4, 0]).all()
    assert len({each[:, 4:].tobytes() for each in images}) > COUNT // 2


@pytest.mark.slow
async def test_texts_begin_with_their_prefix_and_end_before_stop(served_further: Served) -> None:
    whole, joined = await in_parts(served_further.server, "grammar-gpt", prefix="the ", stop="\n")
    assert joined == whole
    assert all(text.startswith(b"the ") and b"\n" not in text for text in whole)


@pytest.mark.parametrize("model", ["digits-pixelcnn", pytest.param("digits-diffusion", marks=pytest.mark.slow)])
async def test_scores_keep_the_promise_of_addresses(served_many: Served, digits: np.ndarray, model: str) -> None:
    rows = digits[:20]
    async with aio.Client(served_many.server) as client:
        whole = np.asarray(await client.score(model, rows, seed=SEED))
        cuts = list(itertools.pairwise([0, 1, 8, 20]))
        parts = [client.score(model, rows[a:b], seed=SEED, start_index=a) for a, b in cuts]
        joined = np.concatenate([np.asarray(each) for each in await asyncio.gather(*parts)])
    assert joined.tobytes() == whole.tobytes()
    assert np.isfinite(whole).all()


def worker_of(served: Served, model: str) -> psutil.Process:
    """The worker that draws now: the one that uses the processor."""
    workers = served.workers()
    for each in workers:
        each.cpu_percent()
    psutil.cpu_percent(0.5)
    return max(workers, key=lambda each: each.cpu_percent())


@pytest.mark.parametrize("model", ["digits-diffusion", pytest.param("digits-pixelcnn", marks=pytest.mark.slow)])
def test_a_worker_killed_in_the_middle_of_draws_changes_no_byte(served_many: Served, model: str) -> None:
    query = {"steps": 60} if model == "digits-diffusion" else {}
    count = 64 if query else 512
    with Client(served_many.server) as client:
        expected = np.asarray(client.sample(model, seed=SEED, count=count, **query))
        killed: list[psutil.Process] = []

        def kill_once(done: int, total: int) -> None:
            if not killed and done:
                killed.append(worker_of(served_many, model))
                killed[0].kill()

        chunks = list(client.stream(model, seed=SEED, count=count, progress=kill_once, **query))
    assert killed
    assert not killed[0].is_running() or killed[0].status() == psutil.STATUS_ZOMBIE
    assert np.concatenate([chunk.samples for chunk in chunks]).tobytes() == expected.tobytes()


async def test_other_requests_do_not_wait_for_a_long_draw(served_many: Served) -> None:
    done: list[int] = []

    async def draw_long(client: aio.Client) -> None:
        query = {"seed": 1, "count": 32, "steps": 256, "progress": lambda steps, total: done.append(steps)}
        async for _ in client.stream("digits-diffusion", **query):
            pass

    async with aio.Client(served_many.server) as client:
        long = asyncio.create_task(draw_long(client))
        async with asyncio.timeout(60):
            while not done:
                await asyncio.sleep(0.01)
            await client.sample("digits-diffusion", seed=2, steps=4)
        assert done[-1] < 32 * 256
        assert not long.done()
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
