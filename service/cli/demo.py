"""The demonstration: draw every class of every generator over gRPC, and report images and speeds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fount.cli.output.images import image_grid
from fount.cli.output.points import points_to_picture
from fount.cli.output.text import table
from fount.client import aio
from fount.client.catalog import ModelInfo
from fount.sampling.types import Chunk
from service.calls import Call, Rows, TensorItem
from service.catalog import Catalog
from service.domain import ModelState, Operation, Parameters, ServedModel
from service.workers import WorkerPool

__all__ = ["DemoRow", "demonstrate", "rows_to_table"]

_SEED = 1
_PER_CLASS = 100  # 10 of a model of many steps, whose samples take as many times longer
_SHOWN_PER_CLASS = 10
_CALL_S = 60.0


@dataclass(frozen=True, kw_only=True)
class DemoRow:
    """The result of one generator.

    Attributes:
        samples_per_s: of the whole stream, including the time to the first sample.
        seed, numerics: to draw the same samples again.
        accuracy: share of samples that the classifier assigns to the requested class; None: no labels or classifier.
        picture: file of the image grid, or of the texts.
    """

    model: str
    samples: int
    samples_per_s: float
    first_s: float
    seed: int
    numerics: str
    accuracy: float | None
    picture: Path


async def demonstrate(server: str, catalog: Catalog, pool: WorkerPool, out: Path) -> list[DemoRow]:
    """Draw from every ready generator, classify the samples, and write an image grid into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    async with aio.Client(server) as client:
        usable = [model for model in await client.models() if model.state in ("ready", "cold")]
        models = [model for model in usable if "sample" in model.operations]
        return [await _demonstrate_one(client, model, catalog, pool, out) for model in models]


async def _demonstrate_one(
    client: aio.Client, model: ModelInfo, catalog: Catalog, pool: WorkerPool, out: Path
) -> DemoRow:
    classes, each = len(model.labels) or 10, _PER_CLASS if model.draw_steps == 1 else _SHOWN_PER_CLASS
    labels = [label for label in range(classes) for _ in range(each)] if model.labels else None
    started_s, first_s, chunks = time.monotonic(), None, list[Chunk]()
    name = f"{model.name}:{model.version}"  # there may be several versions
    encoding: Literal["uint8", "float32"] = "uint8" if "uint8" in model.encodings else "float32"
    count = classes * each
    async for chunk in client.stream(name, count=count, labels=labels, seed=_SEED, encoding=encoding):
        first_s = time.monotonic() - started_s if first_s is None else first_s
        chunks.append(chunk)
    took_s, accuracy = time.monotonic() - started_s, None
    file = out / f"{model.name}-{model.version}.{'txt' if model.modality == 'text' else 'png'}"
    if model.modality == "text":
        texts = [f"==> sample {start} <==\n{text}\n" for start, text in enumerate(t for c in chunks for t in c.texts)]
        file.write_text("\n".join(texts), encoding="utf-8")
    else:
        drawn = np.concatenate([np.asarray(chunk) for chunk in chunks])
        _draw_picture(drawn, labels, model).save(file)
        if labels:  # in a task of its own, at whose end the classifier may be stopped for the next generator
            accuracy = await asyncio.create_task(_accuracy(drawn, labels, model, catalog, pool))
    return DemoRow(
        model=f"{model.name} {model.version}",
        samples=count,
        samples_per_s=count / took_s,
        first_s=first_s or took_s,
        seed=_SEED,
        numerics=chunks[-1].numerics,
        accuracy=accuracy,
        picture=file,
    )


def _draw_picture(drawn: NDArray[Any], labels: Sequence[int] | None, model: ModelInfo) -> Image.Image:
    """Draw some images of each class, or the density of all points."""
    if drawn.ndim != len("NHWC"):
        return image_grid(points_to_picture(drawn, model.value_range)[None], labels=[""])
    classes = len(model.labels) or 10
    stride = len(labels) // classes if labels else _SHOWN_PER_CLASS  # a row for each class, or the first samples
    shown = [k * stride + j for k in range(classes) for j in range(_SHOWN_PER_CLASS)]
    captions = [model.labels[labels[i]] if labels else "" for i in shown]  # a number would look like a label
    return image_grid(drawn[shown], labels=captions, columns=_SHOWN_PER_CLASS)


async def _accuracy(
    images: NDArray[np.uint8], labels: Sequence[int], model: ModelInfo, catalog: Catalog, pool: WorkerPool
) -> float | None:
    for entry in catalog.entries():
        classifier = entry.model
        is_usable = entry.ready or entry.state is ModelState.COLD
        if not classifier or Operation.SAMPLE in classifier.operations:  # no judge of generators
            continue
        is_classifier = is_usable and Operation.CLASSIFY in classifier.operations
        if is_classifier and _fits(classifier, images, model):
            await pool.load(entry.name, entry.version)
            target, _ = catalog.choose(catalog.find(entry.name, entry.version), Operation.CLASSIFY)
            items = (TensorItem(rows=images),)
            call = Call(target=target, operation=Operation.CLASSIFY, parameters=Parameters(), items=items)
            outcome = (await pool.call(call, timeout_s=_CALL_S)).outcomes[0]
            if isinstance(outcome, Rows):
                return float(np.mean(outcome.array.argmax(axis=1) == np.asarray(labels)))
    return None


def _fits(classifier: ServedModel, images: NDArray[np.uint8], model: ModelInfo) -> bool:
    return classifier.sample_dims == images.shape[1:] and classifier.labels == tuple(model.labels)


def rows_to_table(rows: Sequence[DemoRow]) -> str:
    """Format the rows as a table for a terminal."""
    head = ("model", "samples", "samples/s", "first sample", "seed", "numerics", "label accuracy", "picture")
    cells = [head] + [
        (
            row.model, str(row.samples), f"{row.samples_per_s:,.0f}", f"{row.first_s * 1000:.1f} ms", str(row.seed),
            row.numerics, "-" if row.accuracy is None else f"{row.accuracy:.1%}", str(row.picture),
        )
        for row in rows
    ]  # fmt: skip
    return "\n".join(table(cells))
