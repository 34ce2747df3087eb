"""`fount sample`: write samples to an image grid, a file or a folder, and report the address that reproduces them."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Unpack

import click
import numpy as np
from google.protobuf.json_format import MessageToDict
from tqdm import tqdm

from fount.cli.connection import RETRY, connected
from fount.cli.options import FilePath, option, parameter_options, server_options
from fount.cli.output.sample_writers import SampleRun, SampleWriter, open_output, refuse_failed
from fount.cli.output.text import echo_result, error_is_terminal, plain
from fount.client.catalog import ModelInfo
from fount.client.sync import Client
from fount.errors import Loading
from fount.retry import RetryState
from fount.sampling.request import ENCODINGS, PRIORITIES, SampleQuery, sample_request
from fount.sampling.types import Chunk, Provenance
from fount.v1 import sampling_pb2

__all__ = ["sample"]

_DEFAULT_COUNT = 16
_MIN_BAR_COUNT = 1000  # samples from which on a progress bar is shown


def _label(text: str) -> int | str:
    """Parse a class: digits are its index, anything else its name."""
    text = text.strip()
    if not text:
        raise click.BadParameter(f"{text!r} is not a label; give the index or the name of a class")
    return int(text) if text.isascii() and text.isdigit() else text


def _labels(text: str) -> list[int]:
    """Parse class indices separated by commas."""
    try:
        return [int(label) for label in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of class indices, as in 1,2,3") from None


def _mixture(text: str) -> dict[int | str, float]:
    """Parse labels and weights, as in 7=0.9,1=0.1."""
    mixture: dict[int | str, float] = {}
    for component in text.split(","):
        name, _, weight = component.rpartition("=")
        label = _label(name)
        if label in mixture:
            raise click.BadParameter(f"{name!r} is given twice")
        try:
            mixture[label] = float(weight)
        except ValueError:
            raise click.BadParameter(f"{component!r} is not a label and its weight, as in 7=0.9") from None
    return mixture


@click.command()
@click.argument("name")
@option("--count", type=int, metavar="N", help="Number of samples; unset, the number of labels, or 16.")
@option("--seed", type=int, metavar="N", help="Seed of the noise, 0 to 2^64 - 1; unset, the server draws one.")
@option("--start-index", type=int, metavar="N", help="Index of the first sample; unset, 0.")
@option("--label", type=_label, metavar="LABEL", help="One class for all: its index, in digits, or its name.")
@option("--labels", type=_labels, metavar="1,2,3", help="One class index per sample.")
@option("--mixture", type=_mixture, metavar="7=0.9,1=0.1", help="Classes and their relative weights.")
@parameter_options
@option("--encoding", type=click.Choice(list(ENCODINGS)), default="uint8", help="Encoding; png only for folders.")
@option("--digest", metavar="SHA256", help="Pin the model's digest.")
@option("--numerics", metavar="ID", help="Pin the numerics, as `fount model` names them.")
@option("--priority", type=click.Choice(list(PRIORITIES)), help="Priority of the request.")
@option(
    "--out", type=FilePath(), metavar="PATH", help="A .png grid, a .npz file, or a folder/ for one PNG file per sample."
)
@server_options
# The options are the query's fields, so they arrive as one value rather than as sixteen arguments.
def sample(
    name: str, out: str | None, server: str, timeout_s: float, as_json: bool, **query: Unpack[SampleQuery]
) -> None:
    """Draw samples of a model into an image grid, an NPZ file or a folder.

    NAME is a model's name, name:version, or both with @ and the digest. The same model, seed and indices always give
    the same samples.

    \b
    Example:
      fount sample digits-cvae --label 7 --count 16 --seed 1 --out sevens.png
      fount sample digits-cvae --count 100000 --seed 1 --out digits.npz
      fount sample digits-cvae --mixture 7=0.9,1=0.1 --count 500 --out sevens/
    """  # noqa: D301  # \b is click's: keep the lines as they are
    if query.get("count") is None and query.get("labels") is None:
        query["count"] = _DEFAULT_COUNT
    request = sample_request(name, query)  # reports wrong options before anything is requested
    with connected(server, timeout_s) as client:
        info = _loaded_model(client, name, query.get("digest"), timeout_s)
        writer = None if out is None else open_output(out, _run(request, info))
        show_bar = not as_json and request.count >= _MIN_BAR_COUNT and error_is_terminal()
        bar, start_s = tqdm(total=request.count, disable=not show_bar), time.perf_counter()
        provenance, counts = _draw(client.stream(str(info.model), **query), writer, bar)
        seconds = time.perf_counter() - start_s
    names = dict(enumerate(info.labels))
    summary = {
        "model": f"{info.name}:{info.version}",
        "digest": info.digest,
        "seed": None if provenance is None else provenance.seed,
        "numerics": None if provenance is None else provenance.numerics,
        "start_index": request.start_index,
        "count": request.count,
        "labels": {names.get(label, str(label)): count for label, count in sorted(counts.items())},
        "out": out,
        "samples_per_s": round(request.count / seconds, 1),
    }
    echo_result(summary, map(plain, _summary_lines(summary)), as_json=as_json)


def _loaded_model(client: Client, name: str, digest: str | None, timeout_s: float) -> ModelInfo:
    """Look up a model; while its workers load, its classes and shape may be unknown, so wait for them."""
    retry = RetryState(timeout_s, RETRY)
    while (info := client.model(name, digest=digest)).state == "loading":
        time.sleep(retry.delay_s(Loading(f"{info.name}:{info.version} is loading")))
    return info


def _draw(
    chunks: Iterator[Chunk], writer: SampleWriter | None, bar: tqdm[Any]
) -> tuple[Provenance | None, Counter[int]]:
    """Write all samples; return their provenance and the number of samples of each class."""
    provenance, counts = None, Counter[int]()
    try:
        with bar:
            for chunk in chunks:
                refuse_failed(chunk)
                if writer is not None:
                    writer.add(chunk)
                provenance = chunk.provenance
                counts.update([] if chunk.labels is None else chunk.labels.tolist())
                bar.update(len(chunk))
        if writer is not None:
            writer.finish()
    except BaseException:
        if writer is not None:
            writer.abandon()
        raise
    return provenance, counts


def _run(request: sampling_pb2.SampleRequest, info: ModelInfo) -> SampleRun:
    encoding = next(name for name, value in ENCODINGS.items() if value == request.encoding)
    condition = MessageToDict(request.condition)
    if "labels" in condition:
        # One class per sample: another list, or the same one from another start index, is another run.
        ids = np.asarray(request.condition.labels.ids, np.uint32).tobytes()
        condition["labels"] = f"from {request.start_index}, sha256:{hashlib.sha256(ids).hexdigest()}"
    return SampleRun(
        count=request.count,
        start_index=request.start_index,
        seed=request.seed if request.HasField("seed") else None,
        encoding=encoding,
        class_names=info.labels,
        sample_bytes=math.prod(info.sample_shape) * (4 if encoding == "float32" else 1),
        request={"condition": condition, "parameters": MessageToDict(request.parameters)},
    )


def _summary_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    last = summary["start_index"] + summary["count"] - 1
    yield f"{summary['count']:,} samples of {summary['model']}, {summary['samples_per_s']:,} per second"
    yield f"Digest    {summary['digest']}"
    yield f"Seed      {summary['seed']}, indices {summary['start_index']} to {last}"
    yield f"Numerics  {summary['numerics']}"
    if summary["labels"]:
        yield f"Classes   {', '.join(f'{name} ({count:,})' for name, count in summary['labels'].items())}"
    yield f"Written   {summary['out']}" if summary["out"] else "Nothing was written; name a file with --out"
