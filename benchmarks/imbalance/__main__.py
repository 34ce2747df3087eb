"""`python -m benchmarks.imbalance --data DIR`: reduce a class, train, serve, pull, classify, report.

Generator, filter and verifying classifier are trained on the reduced training rows alone. Existing results (the
generator, finished runs) are reused, so that an interrupted experiment continues.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from shutil import copytree

import click
import numpy as np
from tqdm import tqdm

from benchmarks.child import ROOT
from benchmarks.fount_servers import serve
from benchmarks.imbalance.arms import ARMS, Arm
from benchmarks.imbalance.learning import STEPS, Score, train_and_score
from benchmarks.imbalance.reduced_mnist import REDUCED_CLASS, write_reduced_mnist
from benchmarks.imbalance.report import scores_to_markdown, scores_to_picture
from benchmarks.imbalance.training import TRAINED
from benchmarks.machine import machine_facts
from fount import Client
from handlers.recipes.data.load import load_data

_DATASET = "mnist-cut"


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, envvar="FOUNT_DATA",
              help="Folder with MNIST's files.")  # fmt: skip
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "build" / "imbalance", show_default=True)
@click.option("--seeds", type=click.IntRange(2, 10), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each training.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "docs", show_default=True,
              help="Folder for imbalance.png; the table and the JSON go to benchmarks/results.")  # fmt: skip
def main(data: Path, work: Path, seeds: int, threads: int, out: Path) -> None:
    """Measure the effect of each way to balance a class."""
    remaining = write_reduced_mnist(data, work / "data" / "mnist")
    click.echo(f"class {REDUCED_CLASS} is reduced to {remaining} training rows", err=True)
    store = _train(work)
    runs: dict[str, dict[str, object]] = _read(work / "runs.json")
    with ExitStack() as stack:
        client: Client | None = None
        for arm, seed in tqdm([(arm, seed) for seed in range(seeds) for arm in ARMS], unit="run"):
            key = f"{arm.name} {seed}"
            if key in runs:
                continue
            if client is None:
                server = stack.enter_context(serve(store, {_DATASET: work / "data" / "mnist"}, work))
                client = stack.enter_context(Client(server))
            runs[key] = _run(client, arm, seed, data, threads)
            (work / "runs.json").write_text(json.dumps(runs, indent=1))
    _report(runs, seeds, out)


def _train(work: Path) -> Path:
    """Train generator and classifier on the reduced rows in another process; returns the model store."""
    store = work / "store"
    if not all((store / name / "model.yaml").is_file() for name in TRAINED):
        command = [sys.executable, "-m", "benchmarks.imbalance.training", str(work / "data"), str(work)]
        subprocess.run(command, check=True, cwd=ROOT)
    if not (store / "transforms").is_dir():
        copytree(ROOT / "model_store" / "transforms", store / "transforms")
    return store


def _run(client: Client, arm: Arm, seed: int, data: Path, threads: int) -> dict[str, object]:
    plan = client.plan(arm.plan_spec(_DATASET, seed))
    batches = [batch.accepted() for batch in client.pull(plan, provenance="none")]
    images = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    test = load_data("mnist", data).test
    weights = list(plan.class_weights) if arm.weighted else None
    score = train_and_score(
        images, labels, (test.images, test.labels), seed=seed, class_weights=weights, threads=threads
    )
    return {"rows": len(labels), "rejected": plan.rows - len(labels), "score": asdict(score)}


def _report(runs: dict[str, dict[str, object]], seeds: int, out: Path) -> None:
    scores = {arm.name: [Score(**runs[f"{arm.name} {seed}"]["score"]) for seed in range(seeds)] for arm in ARMS}  # type: ignore[arg-type]
    rows = {arm.name: int(str(runs[f"{arm.name} 0"]["rows"])) for arm in ARMS}
    table = scores_to_markdown(scores, rows)
    results = ROOT / "benchmarks" / "results"
    document = {"machine": machine_facts(), "steps": STEPS, "seeds": seeds, "runs": runs}
    (results / "imbalance.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (results / "imbalance.md").write_text(table, encoding="utf-8")
    out.mkdir(parents=True, exist_ok=True)
    scores_to_picture(scores, out / "imbalance.png")
    click.echo(table, nl=False)


def _read(file: Path) -> dict[str, dict[str, object]]:
    return json.loads(file.read_text()) if file.is_file() else {}  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
