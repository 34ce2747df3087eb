"""All of model_store/ at once: every model is served, keeps the promise of addresses, and is in the demonstration."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from fount import Client
from fount.client import aio
from tests.e2e.addresses import check_mixed_sizes, draw
from tests.e2e.processes import REPOSITORY, Served, run_fount, serving

pytestmark = pytest.mark.slow

STORE = REPOSITORY / "model_store"
CARDS = {card.parent.name: yaml.safe_load(card.read_text()) for card in sorted(STORE.glob("*/model.yaml"))}
GENERATORS = [name for name, card in CARDS.items() if "SAMPLE" in card["operations"]]
MANY_STEPS = frozenset(name for name, card in CARDS.items() if card.get("draw_steps", 1) > 1)
TEXTS = frozenset(name for name, card in CARDS.items() if card["sample"]["modality"] == "text")
_ACCURACY_SLACK = 0.12  # of 100 samples or more: three standard errors, where the card's value is 0.8


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("every") / "archives"
    packed = run_fount("pack", "--all", "--model-store", str(STORE), "--out", str(out), home=out.parent)
    assert packed.returncode == 0, packed.stderr
    return out


@pytest.fixture(scope="module")
def served(archives: Path) -> Iterator[Served]:
    with serving(archives, archives.parent) as running:
        yield running


def test_every_model_is_served(served: Served) -> None:
    with Client(served.server) as client:
        states = {model.name: model.state for model in client.models()}
    assert sorted(states) == sorted(CARDS)
    assert set(states.values()) <= {"ready", "cold"}, states  # there are more than are loaded at once


@pytest.mark.parametrize("name", GENERATORS)
def test_parts_are_the_bytes_of_the_whole(served: Served, name: str) -> None:
    with Client(served.server) as client:

        def draw(start_index: int, count: int) -> list[object]:
            encoding = None if name in TEXTS else "float32"
            samples = client.sample(name, start_index=start_index, count=count, seed=20261, encoding=encoding)
            return [each.tobytes() for each in samples] if name not in TEXTS else list(samples.texts)

        cuts = (0, 1, 9, 24) if name in MANY_STEPS else (0, 1, 77, 300)
        parts = [draw(first, end - first) for first, end in pairwise(cuts)]
        assert [each for part in parts for each in part] == draw(0, cuts[-1])


@pytest.mark.parametrize("name", [name for name in GENERATORS if name not in TEXTS])
async def test_requests_of_mixed_sizes_at_once_give_the_bytes_of_the_whole(served: Served, name: str) -> None:
    await check_mixed_sizes(served.server, name, draw(served.server, name, count=85 if name in MANY_STEPS else 510))


async def test_scores_that_draw_are_the_bytes_of_the_whole(served: Served) -> None:
    async with aio.Client(served.server) as client:
        images = np.asarray(await client.sample("mnist-vae", count=120, seed=20262))

        async def score(first: int, end: int) -> bytes:
            rows = images[first:end]
            scores = await client.score("mnist-vae", rows, importance_samples=5, seed=20263, start_index=first)
            return np.asarray(scores).tobytes()

        whole = await score(0, 120)
        parts = await asyncio.gather(score(0, 1), score(1, 64), score(64, 67), score(67, 120))
    assert b"".join(parts) == whole


@pytest.fixture(scope="module")
def demonstrated(archives: Path) -> subprocess.CompletedProcess[str]:
    options = ("--archives", str(archives), "--state-dir", str(archives.parent / "state"), "--out", "pictures")
    return run_fount("demo", *options, home=archives.parent, timeout=550)


@pytest.mark.slow
def test_the_demonstration_paints_every_generator(demonstrated, archives: Path) -> None:
    assert (demonstrated.returncode, "warning" in demonstrated.stderr) == (0, False), demonstrated.stderr
    painted = sorted(file.name for file in (archives.parent / "pictures").iterdir())
    suffixes = {name: "txt" if name in TEXTS else "png" for name in GENERATORS}
    assert painted == sorted(f"{name}-{CARDS[name]['version']}.{suffix}" for name, suffix in suffixes.items())


def test_the_demonstration_reads_conditional_samples_as_their_labels(demonstrated) -> None:
    rates = dict(re.findall(r"^(\S+) .* ([\d.]+)% ", demonstrated.stdout, re.M))
    known = {name: value for name in GENERATORS if (value := _accuracy_of(CARDS[name])) is not None}
    assert len(known) > 10
    assert set(known) <= set(rates)
    assert all(float(rates[name]) / 100 > value - _ACCURACY_SLACK for name, value in known.items()), (rates, known)


def _accuracy_of(card: dict) -> float | None:
    measured = (each["value"] for each in card.get("quality", ()) if each["metric"] == "label-accuracy")
    return next(measured, None)
