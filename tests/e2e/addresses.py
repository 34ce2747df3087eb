"""Samples of a served model, drawn whole and in parts."""

from __future__ import annotations

import asyncio
import itertools
import random

import numpy as np

from fount import Client
from fount.client import aio

SEED = 20261
COUNT = 1000
MIXED = (1, 2, 3, 7, 8, 64)


def draw(server: str, model: str, **fields) -> np.ndarray:
    with Client(server) as client:
        return client.sample(model, **({"count": COUNT, "seed": SEED, "encoding": "float32"} | fields))


async def check_mixed_sizes(server: str, model: str, whole: np.ndarray) -> None:
    """Draw by requests of 1, 2, 3, 7, 8 and 64 samples, all at once, in an order of chance."""
    cuts = list(itertools.takewhile(len(whole).__ge__, itertools.accumulate(itertools.cycle(MIXED), initial=0)))
    ranges = list(itertools.pairwise(cuts))
    random.Random(13).shuffle(ranges)
    async with aio.Client(server) as client:

        async def part(first: int, end: int) -> np.ndarray:
            return await client.sample(model, count=end - first, start_index=first, seed=SEED, encoding="float32")

        parts = await asyncio.gather(*(part(*each) for each in ranges))
    by_start = dict(zip(ranges, parts, strict=True))
    assert np.concatenate([by_start[each] for each in sorted(ranges)]).tobytes() == whole[: cuts[-1]].tobytes()
