"""`python -m benchmarks.evaluation.faults --data DIR`: which panel detects which injected fault, on the real MNIST.

Training rows are 20 000 of the training split; the samples of the generator are 5 000 others; held-out
rows are the test split. Features and probabilities are those of the shipped classifier.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.child import ROOT
from benchmarks.evaluation.injected_faults import (
    Fault,
    LabelledImages,
    Reader,
    Source,
    build_evidence,
    evaluate,
    faults,
    nearest_rows,
    real_rows,
)
from handlers.cards.card import load_card
from handlers.loading.build import build_module
from handlers.recipes.data.load import load_data
from service.evaluation.results import Metric, Panel, PanelResult, Verdict

__all__ = ["Row", "main", "measure", "problems", "read_with", "to_markdown"]

Row = tuple[Fault, Sequence[Metric], Sequence[PanelResult]]
_TRAINING, _COUNT, _ADDRESSES = 20_000, 5_000, 100
_QUIET = (Verdict.LIKE_REAL, Verdict.NEAR_REAL)


def read_with(folder: Path) -> Reader:
    """Compute features and probabilities with a shipped classifier, in float32."""
    module: Any = build_module(load_card(folder), folder).eval()

    def read(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features, probabilities = [], []
        with torch.inference_mode():
            for first in range(0, len(images), 500):
                batch = torch.from_numpy(images[first : first + 500]).permute(0, 3, 1, 2).float() / 255
                features.append(module.embed(batch).numpy())
                probabilities.append(module.classify(batch).numpy())
        return np.concatenate(features), np.concatenate(probabilities)

    return read


def measure(data: Path, names: Sequence[str] = (), count: int = _COUNT) -> list[Row]:
    """Evaluate every fault, or only the named ones."""
    read = read_with(ROOT / "model_store" / "mnist-classifier")
    mnist = load_data("mnist", data)
    images, labels = _rows(mnist.train)
    order = np.random.default_rng(0).permutation(len(images))
    seen, rest = order[:_TRAINING], order[_TRAINING:]
    training, held_out = real_rows(images[seen], labels[seen], read), real_rows(*_rows(mnist.test), read)
    near = nearest_rows(held_out.images, held_out.features, training)
    pool = LabelledImages(images=images[rest], labels=labels[rest])
    drawn = LabelledImages(images=pool.images[:count], labels=pool.labels[:count])
    known: dict[tuple[object, ...], Any] = {}
    rows: list[Row] = []
    for fault in faults():
        if names and fault.name not in names:
            continue
        start = time.perf_counter()
        source = Source(drawn=drawn, pool=pool, training=training, read=read, random=np.random.default_rng(1))
        faulty = fault.inject(source)
        grid = _label_grid(replace(source, drawn=_grid_rows(pool), random=np.random.default_rng(2)), fault)
        evidence = build_evidence(
            faulty, grid, training, held_out, read, mnist.classes, {space: far for space, (far, _) in near.items()}
        )
        rows.append((fault, *evaluate(evidence, known)))
        verdicts = ", ".join(f"{each.panel} {each.verdict}" for each in rows[-1][2])
        click.echo(f"{fault.name}: {verdicts} ({time.perf_counter() - start:.0f} s)", err=True)
    return rows


def to_markdown(rows: Sequence[Row]) -> str:
    """Format the matrix of verdicts, each with the deciding metrics that detected the fault."""
    panels = [panel.value.replace("-", " ") for panel in Panel]
    lines = [f"| fault | {' | '.join(panels)} |", "|---" * (len(panels) + 1) + "|"]
    for fault, metrics, results in rows:
        cells = [_cell(fault, each, metrics) for each in results]
        lines.append(f"| **{fault.name}**: {fault.description} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, envvar="FOUNT_DATA",
              help="Folder with MNIST's files.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "results", show_default=True)
@click.option("--fault", "names", multiple=True, help="Only this fault, without writing results. Repeatable.")
def main(data: Path, out: Path, names: tuple[str, ...]) -> None:
    """Inject faults and report which panel detects each."""
    rows = measure(data, names)
    table = f"{_COUNT} samples, {_TRAINING} training rows, 10000 held-out rows of MNIST.\n\n{to_markdown(rows)}"
    click.echo(table)
    if not names:
        out.mkdir(parents=True, exist_ok=True)
        (out / "faults.md").write_text(table)
        (out / "faults.json").write_text(json.dumps([_to_json(row) for row in rows], indent=1) + "\n")
    missed = [problem for row in rows for problem in problems(row)]
    for problem in missed:
        click.echo(problem, err=True)
    sys.exit(1 if missed else 0)


def problems(row: Row) -> list[str]:
    """List the errors of a row: a panel that misses its fault, or that reports another."""
    fault, _, results = row
    missed = [each for each in results if each.panel in fault.fires and each.verdict is not Verdict.WORSE]
    wrong = [each for each in results if each.panel not in fault.fires and each.verdict not in _QUIET]
    return [
        *(f"{fault.name}: {each.panel} is {each.verdict} and should fire" for each in missed),
        *(f"{fault.name}: {each.panel} is {each.verdict}: {each.sentence}" for each in wrong),
    ]


def _cell(fault: Fault, result: PanelResult, metrics: Sequence[Metric]) -> str:
    words = result.verdict.value.replace("-", " ")
    fired = [
        f"{each.name} {each.value:.3g} (real {each.null.mean:.3g})"
        for each in metrics
        if each.panel is result.panel and each.decides and each.verdict is Verdict.WORSE
        and each.value is not None and each.null is not None
    ]  # fmt: skip
    text = f"**{words}**" if result.panel in fault.fires else words
    return f"{text}: {'; '.join(fired)}" if fired else text


_KEPT = ("name", "value", "interval", "null", "verdict", "decides")


def _to_json(row: Row) -> dict[str, Any]:
    fault, metrics, results = row
    return {
        "fault": fault.name,
        "says": fault.description,
        "must_fire": sorted(fault.fires),
        "panels": [each.to_json() for each in results],
        "metrics": [
            {key: value for key, value in each.to_json().items() if key in _KEPT}  # descriptions and classes are long
            for each in metrics
        ],
    }


def _rows(split: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images = np.rint(split.images.numpy() * 255).astype(np.uint8)  # (n, 1, 28, 28)
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)), split.labels.numpy().astype(np.int64)


def _grid_rows(pool: LabelledImages) -> LabelledImages:
    """Select rows of every label from the end of the pool, since real rows have no noise to keep equal."""
    classes = [np.flatnonzero(pool.labels == each)[-_ADDRESSES:] for each in np.unique(pool.labels)]
    rows = np.stack(classes, axis=1).reshape(-1)  # (addresses, classes) -> (addresses · classes,)
    return LabelledImages(images=pool.images[rows], labels=pool.labels[rows])


def _label_grid(source: Source, fault: Fault) -> NDArray[np.uint8]:
    """Build the label grid of the faulty generator: faulty images, or images in the order of faulty labels."""
    faulty = fault.inject(replace(source, pool=source.drawn)) if fault.name != "shrinkage" else source.drawn
    images = faulty.images.copy()
    moved = faulty.labels != source.drawn.labels
    images[moved] = images[np.roll(np.flatnonzero(moved), 1)]
    return images.reshape(_ADDRESSES, -1, *images.shape[1:])


if __name__ == "__main__":
    main()
