"""`fount score` and `fount classify`: log-likelihoods and class probabilities of rows, as tables."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Unpack

import click
import numpy as np
from numpy.typing import NDArray

from fount.cli.classes import class_indices, parse_mixture
from fount.cli.connection import loaded_model
from fount.cli.given.options import GivenOptions, draw_options, label_options, model_options, out_option, row_options
from fount.cli.given.work import Results, Work, check_operations, opened
from fount.cli.options import option
from fount.cli.output.images import to_pillow
from fount.cli.output.results import check_result_file, write_arrays, write_table
from fount.cli.output.text import echo_result, plain, table
from fount.errors import InvalidRequest
from fount.intervals import wilson_interval
from fount.names import class_index

__all__ = ["classify", "score"]

_NORMAL_975 = NormalDist().inv_cdf(0.975)
_NATS_OF_BYTE = 8 * math.log(2)


@click.command()
@click.argument("name")
@row_options(1000)
@label_options
@click.option("--own-labels", is_flag=True, show_envvar=True, help="Score log p(x|y) of the classes that files name.")
@option("--importance-samples", type=int, metavar="K", help="Latents that a bound of a score is computed from.")
@option("--steps", type=int, metavar="N", help="Steps of the grid of a bound or an estimate.")
@draw_options("scores that draw")
@option("--background", metavar="MODEL", help="Also subtract this model's score from the first column.")
@click.option("--complexity", is_flag=True, show_envvar=True, help="Also add the size of each image as PNG, in nats.")
@out_option("A .npz or .csv file of all rows.", "FILE", required=False)
@model_options
def score(
    name: str,
    own_labels: bool,
    importance_samples: int | None,
    steps: int | None,
    seed: int | None,
    background: str | None,
    complexity: bool,
    out: str | None,
    **options: Unpack[GivenOptions],
) -> None:
    """Compute log-likelihoods of rows, or bounds or estimates of them, and their means.

    NAME is a model that scores; IMAGES are as in `fount encode`, or for a model of text .txt files, in which each line
    is a text. A mean is shown with its 95 % interval. The score is log p(x), or log p(x|y) where classes are given.
    Images that are smooth score high even where they are unlike what a model was trained on: the ratio to a background,
    and the sum with the complexity, are meant to correct this.

    \b
    Example:
      fount score mnist-vae --dataset mnist --rows 200 --importance-samples 50 --seed 1
      fount score digits-gmm photos/ --complexity --out scores.csv
      fount score verse-gpt lines.txt
      fount score mnist-vae test.npz --background mnist-background --out scores.npz
    """  # noqa: D301  # \b is click's: keep the lines as they are
    path = None if out is None else check_result_file(out, ".npz", ".csv")
    with opened(name, options, "score") as work:
        rows = work.given.values
        png_nats = _complexities(work) if complexity else None
        ids = _ids(work, own=own_labels)
        query = {"importance_samples": importance_samples, "steps": steps, "seed": seed}
        results = work.send(work.client.score, rows, ids=ids, draws=True, query=query)
        columns = dict(zip(results.columns, results.values.T, strict=True))
        first = results.columns[0]
        if background is not None:
            columns[f"{first} - {background}"] = columns[first] - _background(work, background, results, query)
        if png_nats is not None:
            columns["complexity"] = png_nats
            columns[f"{first} + complexity"] = columns[first] + png_nats
    _write_rows(path, work, results, columns)
    units = results.units + ("nats",) * (len(columns) - len(results.units))
    means = {column: _mean(values) for column, values in columns.items()}
    if options["as_json"]:
        found = [{"name": column, "unit": unit, **means[column]} for column, unit in zip(columns, units, strict=True)]
        echo_result({**work.provenance(results), "rows": len(rows), "scores": found, "out": out}, (), as_json=True)
    else:
        echo_result(None, _score_lines(work, results, means, units, out), as_json=False)


def _ids(work: Work, *, own: bool) -> list[int] | None:
    """Return the class of each row; None for log p(x)."""
    if own and not work.info.labels:
        raise click.UsageError(f"{work.info.name} is unconditional; leave --own-labels out")
    if own and (work.options.get("label") is not None or work.options.get("labels") is not None):
        raise click.UsageError("Give --own-labels, --label or --labels, and only one of them")
    return work.ids(own=own, needed=own)


def _background(work: Work, name: str, results: Results, query: Mapping[str, Any]) -> NDArray[Any]:
    """Return the (N,) first scores of the background model, without classes, and with the parameters that it takes."""
    info = loaded_model(work.client, name, None, work.options["timeout_s"])
    check_operations(info, "score")
    if info.sample_shape != work.info.sample_shape:
        shape, due = (" × ".join(map(str, each)) for each in (info.sample_shape, work.info.sample_shape))
        raise InvalidRequest(
            f"{info.name} scores rows of {shape}, and {work.info.name} of {due}; name another background"
        )
    takes = {parameter.name for parameter in info.parameters}
    own = {key: value for key, value in query.items() if key in takes} | {"seed": results.seed}
    scores = work.send(work.client.score, work.given.values, model=info, draws=True, query=own)
    first: NDArray[Any] = scores.values[:, 0]
    return first


def _complexities(work: Work) -> NDArray[np.float32]:
    """Return the sizes of images as PNG files, (N,) in nats.

    Source: Serrà et al., "Input complexity and out-of-distribution detection with likelihood-based generative models",
    ICLR 2020, section 3.
    """
    values = work.given.values
    if not work.is_pictures or values.dtype != np.uint8:
        raise click.UsageError("--complexity is of images of uint8; give image files, or an NPZ file of uint8")
    return np.array([_png_bytes(image) * _NATS_OF_BYTE for image in values], np.float32)


def _png_bytes(image: NDArray[np.uint8]) -> int:
    file = io.BytesIO()
    to_pillow(image).save(file, "PNG", compress_level=9)
    return len(file.getvalue())


def _mean(values: NDArray[Any]) -> dict[str, float | None]:
    """Return the mean of scores, and half the width of its 95 % interval; None where it is infinite or unknown."""
    mean = float(np.mean(values, dtype=np.float64))
    if not math.isfinite(mean):
        return {"mean": None, "half_width": None}
    if len(values) == 1:
        return {"mean": mean, "half_width": None}
    deviation = float(np.std(values, dtype=np.float64, ddof=1))
    return {"mean": mean, "half_width": _NORMAL_975 * deviation / math.sqrt(len(values))}


def _score_lines(
    work: Work,
    results: Results,
    means: Mapping[str, Mapping[str, float | None]],
    units: Sequence[str],
    out: str | None,
) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("SCORE", "UNIT", "MEAN", "± 95 %")]
    for (column, mean), unit in zip(means.items(), units, strict=True):
        rows.append((column, unit, *("-" if value is None else f"{value:,.2f}" for value in mean.values())))
    yield from table(rows, right_from=2)
    yield ""
    yield f"Rows      {len(work.given):,}"
    yield from _origin(work, results, out)


def _origin(work: Work, results: Results, out: str | None) -> Iterator[str]:
    yield plain(f"Model     {work.info.name}:{work.info.version}")
    yield plain(f"Digest    {work.info.digest}")
    yield plain(f"Numerics  {results.numerics}")
    if results.seed is not None:
        yield f"Seed      {results.seed}"
    if out is not None:
        yield f"Written   {out}"


def _write_rows(path: Path | None, work: Work, results: Results, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write a row each, to an NPZ file with the names of columns, or a CSV file."""
    if path is None:
        return
    if path.suffix.lower() == ".npz":
        values = np.stack(list(columns.values()), axis=1)  # (N, columns)
        arrays = {"scores": values, "columns": np.array(list(columns), np.str_), "labels": results.labels}
        write_arrays(path, {**arrays, **work.provenance(results)})
    else:
        lines = zip(work.given.row_names, *(values.tolist() for values in columns.values()), strict=True)
        write_table(path, ("row", *columns), lines)


@click.command()
@click.argument("name")
@row_options(1000)
@option("--prior", type=parse_mixture, metavar="7=0.9,1=0.1", help="Classes and their weights, for the model's own.")
@out_option("A .npz or .csv file of all probabilities.", "FILE", required=False)
@model_options
def classify(name: str, prior: dict[str, float] | None, out: str | None, **options: Unpack[GivenOptions]) -> None:
    """Show the most probable class of each row, and the accuracy where classes are known.

    NAME is a model that classifies: a classifier, or by Bayes' rule a conditional generator with a likelihood. IMAGES
    are as in `fount encode`; the names of folders, and `labels` in an NPZ file, are the known classes.

    \b
    Example:
      fount classify digits-classifier --dataset digits --rows 100
      fount classify digits-gmm photos/ --prior 7=0.9,1=0.1 --out classes.csv
    """  # noqa: D301  # \b is click's: keep the lines as they are
    path = None if out is None else check_result_file(out, ".npz", ".csv")
    with opened(name, options, "classify") as work:
        weights = None
        if prior is not None:
            ids = class_indices(list(prior), work.info, name)
            if len(set(ids)) < len(ids):
                raise click.BadParameter("names a class twice, by its name and its index", param_hint="--prior")
            weights = dict(zip(ids, prior.values(), strict=True))
        results = work.send(work.client.classify, work.given.values, query={"prior": weights})
    top = results.values.argmax(axis=1)  # (N,)
    known = _known(work.given.labels, results.columns)
    if path is not None:
        _write_classes(path, work, results, known)
    rows = [
        {
            "row": work.given.row_names[row],
            "class": results.columns[top[row]],
            "probability": float(results.values[row, top[row]]),
            "known": None if known is None else results.columns[known[row]],
        }
        for row in range(len(top))
    ]
    accuracy = None if known is None else _accuracy(int((top == known).sum()), len(top))
    if options["as_json"]:
        echo_result({**work.provenance(results), "rows": rows, "accuracy": accuracy, "out": out}, (), as_json=True)
        return
    shown = [(row["row"], row["class"], f"{row['probability']:.3f}", row["known"] or "") for row in rows]
    lines = [*table([("ROW", "CLASS", "PROBABILITY", "KNOWN" if known is not None else ""), *shown]), ""]
    if accuracy is not None:
        lines.append("Accuracy  {value:.3f}, 95 % interval {low:.3f} to {high:.3f}".format(**accuracy))
    echo_result(None, [*lines, *_origin(work, results, out)], as_json=False)


def _known(labels: Sequence[str] | None, classes: Sequence[str]) -> list[int] | None:
    """Return the index of each known class; None where one is not a class of the model."""
    if labels is None:
        return None
    found = [index for label in labels if (index := class_index(label, classes)) is not None]
    return found if len(found) == len(labels) else None


def _accuracy(hits: int, rows: int) -> dict[str, float]:
    low, high = wilson_interval(hits, rows)
    return {"value": hits / rows, "low": low, "high": high}


def _write_classes(path: Path, work: Work, results: Results, known: list[int] | None) -> None:
    if path.suffix.lower() == ".npz":
        classes = np.array(results.columns, np.str_)
        labels = None if known is None else np.array(known, np.int64)
        arrays = {"probabilities": results.values, "classes": classes, "labels": labels}
        write_arrays(path, {**arrays, **work.provenance(results)})
    else:
        lines = ((name, *values) for name, values in zip(work.given.row_names, results.values.tolist(), strict=True))
        write_table(path, ("row", *results.columns), lines)
