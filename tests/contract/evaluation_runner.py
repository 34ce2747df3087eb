"""Workers, a specification and a runner for tests of evaluations: deterministic, without torch.

`python -m tests.contract.evaluation_runner URL FOLDER` is a runner process whose workers are `FakeWorkers`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from fount.readers import Dataset, DatasetSource, read_dataset
from service.calls import Labels
from service.datasets import Datasets
from service.domain import Parameters
from service.errors import FountServiceError
from service.evaluation.pipeline.pipeline import Pipeline
from service.evaluation.results import Panel
from service.evaluation.specification import MOST_SCORED, PinnedModel, Specification
from service.evaluation.workers import DrawnSamples


def pinned(name: str) -> PinnedModel:
    return PinnedModel(name=name, version="1", digest=f"sha256:{name}", numerics="fake")


@cache
def digits() -> Dataset:
    return read_dataset(DatasetSource(name="digits"))


def specification(
    count: int = 200,
    *,
    seed: int = 7,
    panels: tuple[Panel, ...] = tuple(Panel),
    conditional: bool = True,
    gates: tuple[str, ...] = (),
    dataset_digest: str = "",
    score: str = "",
    score_rows: int = MOST_SCORED,
) -> Specification:
    """Digits against a generator that mixes training rows."""
    found = digits()
    fitting = panels if conditional else tuple(each for each in panels if each is not Panel.LABEL_FIDELITY)
    labels = tuple(range(10))
    return Specification(
        model=pinned("mixer"),
        model_labels=labels if conditional else (),
        extractor=pinned("reader"),
        classifier=pinned("reader"),
        classifier_labels=labels,
        dataset="digits",
        dataset_digest=dataset_digest or found.digest,
        training_split="train",
        held_out_split="test",
        training_rows=len(found.splits["train"]),
        held_out_rows=len(found.splits["test"]),
        classes=found.classes,
        image_shape=found.shape,
        count=count,
        seed=seed,
        parameters=Parameters(),
        panels=fitting,
        gates=gates,
        score=score,
        score_rows=score_rows,
        code_version="test",
    )


@dataclass(kw_only=True)
class FakeWorkers:
    """See `service.evaluation.workers.Workers`.

    Attributes:
        delay_s: how long each call takes.
        errors: raised by the next calls, one each.
        bad_indices: samples that fail.
        blank: every sample is black.
        spoiled: no features are finite.
        calls: calls of each operation.
    """

    delay_s: float = 0.0
    errors: list[FountServiceError] = field(default_factory=list)
    bad_indices: frozenset[int] = frozenset()
    blank: bool = False
    spoiled: bool = False
    calls: Counter[str] = field(default_factory=Counter)

    async def sample(
        self,
        model: PinnedModel,
        *,
        seed: int,
        start_index: int,
        count: int,
        labels: NDArray[np.uint32] | None,
        parameters: Parameters,
    ) -> DrawnSamples:
        await self._answer("sample")
        split = digits().splits["train"]
        addresses = Addresses.of_range(seed, start_index, count)
        words = addresses.words(Stream.LATENT, 2)
        images = np.empty((count, *split.shape), np.uint8)
        for each in range(count):
            rows = np.arange(len(split)) if labels is None else np.flatnonzero(split.labels == labels[each])
            pair = split.images(rows[words[each] % len(rows)]).astype(np.uint16)  # (2, H, W, C)
            images[each] = (3 * pair[0] + pair[1]) // 4
        failed = np.isin(np.arange(start_index, start_index + count), list(self.bad_indices))
        images[failed] = 0
        return DrawnSamples(images=images * (not self.blank), failed=failed)

    async def embed(self, model: PinnedModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        await self._answer("embed")
        pixels = images.reshape(len(images), -1).astype(np.float64) / 255  # (n, H, W, C) -> (n, D)
        into = np.random.default_rng(0).normal(size=(pixels.shape[1], 6)) / 4
        features = np.tanh(pixels @ into).astype(np.float32)
        if self.spoiled:
            features[:, 0] = np.nan
        return features

    async def classify(self, model: PinnedModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        await self._answer("classify")
        pixels = images.reshape(len(images), -1).astype(np.float64) / 255  # (n, H, W, C) -> (n, D)
        apart = ((pixels[:, None] - _class_means()) ** 2).sum(axis=2)  # (n, classes)
        odds = np.exp(-2 * (apart - apart.min(axis=1, keepdims=True)))
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    async def score(
        self, model: PinnedModel, images: NDArray[np.uint8], *, seed: int, start_index: int, labels: Labels | None
    ) -> NDArray[np.float32]:
        """Score rows by their pixels and labels; rows of the training split by a hundred more."""
        await self._answer("score")
        known = {row.tobytes() for row in digits().splits["train"].images(np.arange(len(digits().splits["train"])))}
        scores = images.reshape(len(images), -1).mean(axis=1, dtype=np.float32)  # (n, H, W, C) -> (n,)
        scores += [100 * (row.tobytes() in known) for row in images]
        scores += 0 if labels is None else labels
        return np.stack([scores, -scores], axis=1)

    async def _answer(self, operation: str) -> None:
        self.calls[operation] += 1
        await asyncio.sleep(self.delay_s)
        if self.errors:
            raise self.errors.pop(0)


@cache
def _class_means() -> NDArray[np.float64]:
    split = digits().splits["train"]
    images = split.images(np.arange(len(split), dtype=np.int64)).reshape(len(split), -1) / 255
    return np.stack([images[split.labels == each].mean(axis=0) for each in range(10)])


def pipeline(folder: Path, workers: FakeWorkers | None = None, *, max_wait_s: float = 600.0) -> Pipeline:
    return Pipeline(workers=workers or FakeWorkers(), datasets=Datasets(), folder=folder, max_wait_s=max_wait_s)


async def run_until_terminated(url: str, folder: Path, delay_s: float) -> None:
    from service.evaluation.jobs.database import jobs_url
    from service.evaluation.jobs.runner import Runner

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    running = Runner(jobs_url(url), pipeline(folder, FakeWorkers(delay_s=delay_s)))
    await running.start()
    print("ready", flush=True)  # noqa: T201
    await stop.wait()
    await running.stop()


if __name__ == "__main__":
    asyncio.run(run_until_terminated(sys.argv[1], Path(sys.argv[2]), float(os.environ.get("FAKE_DELAY_S", "0"))))
