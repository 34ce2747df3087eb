"""Sample i is the same bytes whatever the count, start index, co-batched requests, worker, restart or repetition."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import numpy as np
import psutil
import pytest

from fount.client import aio
from tests.e2e.addresses import COUNT, SEED, check_mixed_sizes, draw
from tests.e2e.processes import Served, serving

GENERATORS = ["digits-cvae", "digits-vae"]  # the others, more briefly, in test_every_model.py


@pytest.fixture(scope="module")
def whole(served: Served) -> dict[str, np.ndarray]:
    """One request of 1000, of either generator."""
    return {model: draw(served.server, model) for model in GENERATORS}


@pytest.mark.parametrize("model", GENERATORS)
def test_repetition_gives_the_same_bytes(served: Served, whole, model: str) -> None:
    assert draw(served.server, model).tobytes() == whole[model].tobytes()


@pytest.mark.parametrize("model", GENERATORS)
async def test_a_thousand_requests_of_one_among_others_give_the_same_bytes(served: Served, whole, model) -> None:
    async with aio.Client(served.server) as client:

        async def one(index: int) -> np.ndarray:
            return await client.sample(model, count=1, start_index=index, seed=SEED, encoding="float32")

        async def other(k: int) -> None:
            await client.sample(model, count=1 + k % 17)

        mine = [asyncio.create_task(one(index)) for index in range(COUNT)]
        others = [asyncio.create_task(other(k)) for k in range(100)]
        samples = await asyncio.gather(*mine)
        await asyncio.gather(*others)
    assert np.concatenate(samples).tobytes() == whole[model].tobytes()


@pytest.mark.parametrize("model", GENERATORS)
def test_ten_ranges_out_of_order_give_the_same_bytes(served: Served, whole, model: str) -> None:
    cuts = [0, 1, 2, 9, 77, 140, 333, 512, 700, 999, COUNT]
    ranges = list(itertools.pairwise(cuts))
    random.Random(3).shuffle(ranges)
    parts = {a: draw(served.server, model, start_index=a, count=b - a) for a, b in ranges}
    assert np.concatenate([parts[a] for a in sorted(parts)]).tobytes() == whole[model].tobytes()


@pytest.mark.parametrize("model", GENERATORS)
async def test_requests_of_mixed_sizes_at_once_give_the_same_bytes(served: Served, whole, model: str) -> None:
    await check_mixed_sizes(served.server, model, whole[model])


def test_labels_come_back_with_their_samples(served: Served, whole) -> None:
    tail = draw(served.server, "digits-cvae", start_index=600, count=400)
    assert tail.labels.tolist() == whole["digits-cvae"].labels[600:].tolist()


@pytest.mark.parametrize("model", GENERATORS)
def test_levels_are_the_rounded_floats(served: Served, whole, model: str) -> None:
    assert (
        draw(served.server, model, encoding="uint8").tobytes() == np.rint(whole[model] * 255).astype(np.uint8).tobytes()
    )


def workers_of(served: Served, model: str) -> list[psutil.Process]:
    """The processes that have loaded a model: each runs in its unpacked archive."""
    return [
        worker for worker in served.workers() if f"name: {model}\n" in (Path(worker.cwd()) / "model.yaml").read_text()
    ]


@pytest.mark.slow
def test_a_restart_with_two_workers_and_no_state_gives_the_same_bytes(
    archives: Path, tmp_path: Path, served: Served
) -> None:
    many = 8 * COUNT  # enough for several calls at once, which both workers share
    with serving(archives, tmp_path, "--workers", "2", "--state-dir", str(tmp_path / "state")) as restarted:
        for model in GENERATORS:
            pair = workers_of(restarted, model)
            assert len(pair) == 2
            before = [worker.cpu_times().user for worker in pair]
            again = draw(restarted.server, model, count=many)
            assert all(worker.cpu_times().user > spent for worker, spent in zip(pair, before, strict=True))
            alone = draw(served.server, model, count=many)
            assert again.numerics == alone.numerics
            assert again.tobytes() == alone.tobytes()
