"""`python -m benchmarks.lessons --data DIR`: build the generators, serve them with the shipped ones, evaluate all.

The model folders are kept in build/lessons, so that a second run trains nothing. Without --data the digits are used.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from benchmarks.child import ROOT
from benchmarks.fount_servers import serve
from benchmarks.lessons.model_folders import LESSONS, build_lessons
from benchmarks.lessons.report import evaluations_to_markdown
from benchmarks.machine import machine_facts
from benchmarks.output import log, write_results
from fount import Client
from fount.evaluation.types import EvaluationInfo
from handlers.recipes.data.load import load_data
from handlers.recipes.model_folder import load_evaluator

__all__ = ["main"]

_SHIPPED = ("cvae", "cgan")


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), envvar="FOUNT_DATA",
              help="Folder with MNIST's files; unset: the digits of 8×8 pixels.")  # fmt: skip
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "build" / "lessons", show_default=True)
@click.option("--count", type=click.IntRange(min=100), help="Samples of each; default: 10 000, of the digits 1400.")
@click.option("--steps", type=click.IntRange(min=1), help="Of the plain autoencoder; default: the recipe's.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of the training.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file, with the table next to it.",
              default=ROOT / "benchmarks" / "results" / "lessons.json", show_default=True)  # fmt: skip
def main(data: Path | None, work: Path, count: int | None, steps: int | None, threads: int, out: Path) -> None:
    """Evaluate generators with a known fault."""
    name = "mnist" if data else "digits"
    folder = work / name
    shipped = [f"{name}-{kind}" for kind in _SHIPPED]
    _build(name, data, folder / "store", shipped, steps, threads)
    count = count or (10_000 if data else 1_400)
    found = _evaluate(name, data, folder, [*shipped, *LESSONS], count)
    text = evaluations_to_markdown(found, {lesson.name: lesson.expected for lesson in LESSONS.values()})
    document = {"machine": machine_facts(), "data": name, "count": count} | {
        "evaluations": {model: _to_json(each) for model, each in found.items()}
    }
    write_results(out, document, text)


def _build(name: str, data: Path | None, store: Path, shipped: list[str], steps: int | None, threads: int) -> None:
    classifier = f"{name}-classifier"
    for model in (*shipped, classifier):
        shutil.copytree(ROOT / "model_store" / model, store / model, dirs_exist_ok=True)
    rows = load_data(name, data)
    classifier_module = load_evaluator(store / classifier, rows).classifier
    build_lessons(rows, classifier_module, store, steps=steps, threads=threads, log=log)


def _evaluate(name: str, data: Path | None, folder: Path, models: list[str], count: int) -> dict[str, EvaluationInfo]:
    """Evaluate the models one after the other; HTML reports are written to the folder."""
    datasets = {} if data is None else {name: data / name if (data / name).is_dir() else data}
    classifier, found = f"{name}-classifier", {}
    with serve(folder / "store", datasets, folder) as server, Client(server) as client:
        for model in models:
            job = client.evaluate(
                model, reference=name, count=count, seed=1, extractor=classifier, classifier=classifier
            )
            found[model] = list(client.watch_evaluation(job.id))[-1]
            if found[model].state != "succeeded":
                raise click.ClickException(f"{model}: {found[model].state}: {found[model].state_reason}")
            (folder / f"{model}.html").write_bytes(client.evaluation_report(job.id).data)
            log(f"{model}: " + ", ".join(f"{each.panel} {each.verdict}" for each in found[model].panels))
    return found


def _to_json(each: EvaluationInfo) -> dict[str, Any]:
    metrics = {
        metric.name: {
            "value": metric.value, "interval": metric.interval, "verdict": metric.verdict, "decides": metric.decides,
            "null": None if metric.null is None else {"mean": metric.null.mean, "range": metric.null.range},
        }
        for metric in each.metrics
    }  # fmt: skip
    panels = {panel.panel: {"verdict": panel.verdict, "sentence": panel.sentence} for panel in each.panels}
    return {"digest": each.envelope.model.digest, "panels": panels, "metrics": metrics}


if __name__ == "__main__":
    main()
