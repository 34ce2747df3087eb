"""Latents, lines, variants and scores of real rows: the same bytes however rows are cut, packed and accompanied."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest

from fount import Client
from fount.client import aio
from fount.readers import DatasetSource, read_dataset
from tests.e2e.processes import REPOSITORY, Served, run_fount, serving

COUNT, SEED = 240, 20266


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Held-out rows of the digits, and their labels."""
    test = read_dataset(DatasetSource(name="digits")).splits["test"]
    return test.images(np.arange(COUNT)), test.labels[:COUNT].astype(np.int64)


@pytest.fixture(scope="module")
def scoring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A stack of the one small model with exact scores."""
    out = tmp_path_factory.mktemp("scoring") / "archives"
    packed = run_fount("pack", "digits-gmm", "--model-store", str(REPOSITORY / "model_store"), "--out", str(out),
                       home=out.parent)  # fmt: skip
    assert packed.returncode == 0, packed.stderr
    with serving(out, out.parent) as running:
        yield running


async def check_parts(server: str, call, rows: np.ndarray, *, rows_each: int = 1) -> np.ndarray:
    """Compute results whole, then in parts of 2 to 64 rows at once and among others, and compare bytes."""
    async with aio.Client(server) as client:
        whole = np.asarray(await call(client, 0, len(rows)))
        sizes = itertools.cycle((2, 64, 4, 8, 30))
        cuts = [*itertools.takewhile(len(rows).__gt__, itertools.accumulate(sizes, initial=0)), len(rows)]
        ranges = list(itertools.pairwise(cuts))
        shuffled = random.Random(5).sample(ranges, len(ranges))
        others = [call(client, 0, 1 + k % 17) for k in range(10) if rows_each == 1]
        parts, *_ = await asyncio.gather(asyncio.gather(*(call(client, *each) for each in shuffled)), *others)
    by_start = dict(zip(shuffled, parts, strict=True))
    joined = np.concatenate([np.asarray(by_start[each]) for each in ranges])
    assert joined.tobytes() == whole.tobytes()
    return whole


@pytest.mark.parametrize("model", ["digits-vae", "digits-cvae"])
async def test_latents_keep_the_promise_of_addresses(served: Served, digits, model: str) -> None:
    images, labels = digits

    async def call(client: aio.Client, first: int, end: int):
        own = labels[first:end] if model == "digits-cvae" else None
        rows = images[first:end]
        return await client.encode(model, rows, labels=own, sampled=True, seed=SEED, start_index=first)

    await check_parts(served.server, call, images)


@pytest.mark.parametrize("model", ["digits-vae", "digits-cvae"])
async def test_variants_keep_the_promise_of_addresses(served: Served, digits, model: str) -> None:
    images, labels = digits[0][:60], digits[1][:60]

    async def call(client: aio.Client, first: int, end: int):
        own = labels[first:end] if model == "digits-cvae" else None
        rows = images[first:end]
        return await client.vary(model, rows, labels=own, variants=5, seed=SEED, start_index=first)

    await check_parts(served.server, call, images)


async def test_lines_keep_the_promise_of_addresses(served: Served, digits) -> None:
    images = digits[0][:80]

    async def call(client: aio.Client, first: int, end: int):
        return await client.interpolate("digits-vae", images[first:end:2], images[first + 1 : end : 2], points=6)

    whole = await check_parts(served.server, call, images, rows_each=2)
    assert whole[:, 0].tobytes() == images[0::2].tobytes()
    assert whole[:, -1].tobytes() == images[1::2].tobytes()


@pytest.mark.parametrize("model", ["digits-vae", "digits-cvae"])
def test_encode_then_decode_is_reconstruct(served: Served, digits, model: str) -> None:
    images, labels = digits
    own = {"labels": labels} if model == "digits-cvae" else {}
    with Client(served.server) as client:
        z = client.encode(model, images, **own)
        decoded = client.decode(model, np.asarray(z), **own)
        restored = client.reconstruct(model, images, **own)
    assert decoded.tobytes() == restored.tobytes()
    assert np.abs(np.asarray(restored, np.float64) - images).mean() < 25  # of 255: they are the same digits


@pytest.mark.parametrize("model", ["digits-vae", "digits-cvae"])
async def test_samples_of_given_latents_keep_the_promise_of_addresses(served: Served, digits, model: str) -> None:
    images, labels = digits
    own = labels if model == "digits-cvae" else None
    with Client(served.server) as client:
        z = np.asarray(client.encode(model, images, labels=own))
        decoded = client.decode(model, z, labels=own)

    async def call(client: aio.Client, first: int, end: int):
        of_rows = None if own is None else own[first:end]
        return await client.sample(model, start_index=first, latent=z[first:end], labels=of_rows)

    whole = await check_parts(served.server, call, images)
    assert whole.tobytes() == decoded.tobytes()


async def test_scores_keep_the_promise_of_addresses(scoring: Served, digits) -> None:
    images, labels = digits

    async def marginal(client: aio.Client, first: int, end: int):
        return await client.score("digits-gmm", images[first:end], seed=SEED, start_index=first)

    async def conditional(client: aio.Client, first: int, end: int):
        rows, own = images[first:end], labels[first:end]
        return await client.score("digits-gmm", rows, labels=own, seed=SEED, start_index=first)

    log_p = await check_parts(scoring.server, marginal, images)
    log_p_given = await check_parts(scoring.server, conditional, images)
    assert (log_p_given > log_p).mean() > 0.9  # a row is likelier under its own class than in the mean over classes


def test_classes_by_bayes_follow_from_scores(scoring: Served, digits) -> None:
    """p(y|x) = p(x|y) p(y) / p(x), with what the served model returns for each of them."""
    images, labels = digits
    with Client(scoring.server) as client:
        log_p = np.asarray(client.score("digits-gmm", images))[:, 0].astype(np.float64)
        by_class = [np.asarray(client.score("digits-gmm", images, label=k))[:, 0].astype(np.float64) for k in range(10)]
        found = np.asarray(client.classify("digits-gmm", images))
    expected = np.exp(np.stack(by_class, axis=1) - log_p[:, None]) / 10
    assert np.allclose(found, expected, atol=1e-3)
    assert (found.argmax(axis=1) == labels).mean() > 0.95
