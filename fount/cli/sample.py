"""`fount sample`: write samples to an image grid, a file or a folder, and report the address that reproduces them.

Texts are printed when no file is named.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Unpack, cast

import click
import numpy as np
from google.protobuf.json_format import MessageToDict
from tqdm import tqdm

from fount.cli.classes import class_indices, parse_label, parse_labels, parse_mixture
from fount.cli.conditions import conditions_of, take_pictures
from fount.cli.connection import connected, loaded_model
from fount.cli.options import PATH, FilePath, option, parameter_options, server_options
from fount.cli.output.sample_writers import SampleRun, SampleWriter, open_output, refuse_failed
from fount.cli.output.text import echo_result, error_is_terminal, note_numbers_read_as_names, plain
from fount.cli.output.text_writers import TextList, TextPrinter, open_texts
from fount.client.catalog import ModelInfo
from fount.names import class_index
from fount.sampling.request import ENCODINGS, PRIORITIES, ParametersQuery, SampleQuery, sample_request
from fount.sampling.types import Chunk, Provenance
from fount.v1 import sampling_pb2

__all__ = ["sample"]

_DEFAULT_COUNT = 16
_MIN_BAR_COUNT = 1000  # samples from which on a progress bar is shown


class _Query(ParametersQuery, total=False):
    """The options of the command that describe samples: a `SampleQuery` with classes as text."""

    count: int | None
    start_index: int | None
    seed: int | None
    label: str | None
    labels: list[str] | None
    mixture: dict[str, float] | None
    encoding: Literal["uint8", "float32", "png"] | None
    digest: str | None
    numerics: str | None
    priority: Literal["bulk", "interactive"] | None
    prefix: str | None
    prefix_image: Path | None
    image: Path | None
    mask: Path | None
    stop: str | None


@click.command()
@click.argument("name")
@option("--count", type=int, metavar="N", help="Number of samples; unset, the number of labels, or 16.")
@option("--seed", type=int, metavar="N", help="Seed of the noise, 0 to 2^64 - 1; unset, the server draws one.")
@option("--start-index", type=int, metavar="N", help="Index of the first sample; unset, 0.")
@option("--label", type=parse_label, metavar="LABEL", help="One class for all: its name, or its index, as 2 or '#2'.")
@option("--labels", type=parse_labels, metavar="1,2,3", help="One class per sample.")
@option("--mixture", type=parse_mixture, metavar="7=0.9,1=0.1", help="Classes and their relative weights.")
@option("--prefix", metavar="TEXT", help="Beginning of every text; the rest is drawn.")
@option("--prefix-image", type=PATH, metavar="FILE", help="Picture of the upper rows of every sample.")
@option("--image", type=PATH, metavar="FILE", help="Picture to make samples of, or of which --mask gives a part.")
@option("--mask", type=PATH, metavar="FILE", help="Picture that is white where --image is given, and else black.")
@option("--stop", metavar="TEXT", help="Each text ends before its first occurrence after the prefix.")
@parameter_options
@option("--encoding", type=click.Choice(list(ENCODINGS)),
        help="Encoding; png only for folders.  [default: uint8, of vectors float32]")  # fmt: skip
@option("--digest", metavar="SHA256", help="Pin the model's digest.")
@option("--numerics", metavar="ID", help="Pin the numerics, as `fount model` names them.")
@option("--priority", type=click.Choice(list(PRIORITIES)), help="Priority of the request.")
@option(
    "--out",
    type=FilePath(),
    metavar="PATH",
    help="A .png grid, a .npz file, or a folder/ for one PNG file per sample; of texts, a .txt file or a folder/.",
)
@server_options
# The options are the query's fields, so they arrive as one value rather than as twenty arguments.
def sample(name: str, out: str | None, server: str, timeout_s: float, as_json: bool, **options: Unpack[_Query]) -> None:
    """Draw samples of a model into an image grid, an NPZ file or a folder; print texts.

    NAME is a model's name, name:version, or both with @ and the digest. The same model, seed and indices always give
    the same samples. A class is meant by its name; a number that is no class's name is an index, as '#2' always is.
    Files in a folder/ lie side by side, without folders of classes; a .npz file with labels is a data set.
    Texts are printed without --out, with the summary on stderr. A single text is printed and written as it is, several
    each after a line '==> sample 5 <=='.

    \b
    Example:
      fount sample digits-cvae --label 7 --count 16 --seed 1 --out sevens.png
      fount sample digits-cvae --count 100000 --seed 1 --out digits.npz
      fount sample digits-cvae --mixture 7=0.9,1=0.1 --count 500 --out sevens/
      fount sample verse-gpt --prefix 'Shall I ' --stop . --count 1 --seed 1
      fount sample verse-gpt --count 100 --seed 1 --out verses.txt
    """  # noqa: D301  # \b is click's: keep the lines as they are
    if options.get("count") is None and options.get("labels") is None:
        options["count"] = _DEFAULT_COUNT
    labels, pictures = options.get("labels"), take_pictures(cast(dict[str, Any], options))
    unknown = {**options, "labels": None if labels is None else [0] * len(labels)}
    unknown |= conditions_of(pictures, options.get("prefix"), None)
    sample_request(name, cast(SampleQuery, unknown))  # reports wrong options before anything is requested
    with connected(server, timeout_s) as client:
        info = loaded_model(client, name, options.get("digest"), timeout_s)
        if options.get("encoding") is None and "uint8" not in info.encodings:
            options["encoding"] = "float32"
        query = _with_indices(options, info, name)
        query.update(cast(SampleQuery, conditions_of(pictures, options.get("prefix"), info)))
        request = sample_request(name, query)
        writer = _writer(out, request, info, as_json=as_json)
        prints, texts = isinstance(writer, TextPrinter), writer.texts if isinstance(writer, TextList) else None
        takes_long = request.count >= _MIN_BAR_COUNT or info.draw_steps > 1
        show_bar = not (as_json or prints) and takes_long and error_is_terminal()
        bar, start_s = tqdm(total=request.count, disable=not show_bar), time.perf_counter()
        if show_bar and info.draw_steps > 1:
            query["progress"] = lambda done, total: _advance(bar, request.count * done // total)
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
        **({} if texts is None else {"texts": texts}),
    }
    echo_result(summary, map(plain, _summary_lines(summary, prints=prints)), as_json=as_json, err=prints)


def _writer(
    out: str | None, request: sampling_pb2.SampleRequest, info: ModelInfo, *, as_json: bool
) -> SampleWriter | None:
    """Select what samples are written by; None: they are counted alone."""
    is_text = info.modality == "text"
    if out is not None:
        return (open_texts if is_text else open_output)(out, _run(request, info))
    if not is_text:
        return None
    return (TextList if as_json else TextPrinter)(_run(request, info))


def _with_indices(options: _Query, info: ModelInfo, name: str) -> SampleQuery:
    """Replace classes by their indices, and note numbers that are names.

    A class that the model lacks is left to the server, which lists those there are.
    """
    label, labels, mixture = options.get("label"), options.get("labels"), options.get("mixture")
    texts = dict.fromkeys([*([] if label is None else [label]), *(labels or ()), *(mixture or ())])
    note_numbers_read_as_names(texts, info.labels)
    found = {text: class_index(text, info.labels) for text in texts}
    query: dict[str, Any] = dict(options)
    if label is not None and found[label] is not None:
        query["label"] = found[label]
    if mixture is not None:
        indices = [text if found[text] is None else found[text] for text in mixture]
        if len(set(indices)) < len(indices):
            raise click.BadParameter("names a class twice, by its name and its index", param_hint="--mixture")
        query["mixture"] = dict(zip(indices, mixture.values(), strict=True))
    if labels is not None:  # which are sent as indices
        query["labels"] = class_indices(labels, info, name)
    return cast(SampleQuery, query)


def _draw(
    chunks: Iterator[Chunk], writer: SampleWriter | None, bar: tqdm[Any]
) -> tuple[Provenance | None, Counter[int]]:
    """Write all samples; return their provenance and the number of samples of each class."""
    provenance, counts, done = None, Counter[int](), 0
    try:
        with bar:
            for chunk in chunks:
                refuse_failed(chunk)
                if writer is not None:
                    writer.add(chunk)
                provenance = chunk.provenance
                counts.update([] if chunk.labels is None else chunk.labels.tolist())
                done += len(chunk)
                _advance(bar, done)
        if writer is not None:
            writer.finish()
    except BaseException:
        if writer is not None:
            writer.abandon()
        raise
    return provenance, counts


def _advance(bar: tqdm[Any], done: int) -> None:
    """Show that so many samples are done, or the steps of as many; the bar never goes back."""
    bar.update(max(0, done - bar.n))


def _run(request: sampling_pb2.SampleRequest, info: ModelInfo) -> SampleRun:
    encoding = next(name for name, value in ENCODINGS.items() if value == request.encoding)
    condition = MessageToDict(request.condition)
    if "labels" in condition:
        # One class per sample: another list, or the same one from another start index, is another run.
        ids = np.asarray(request.condition.labels.ids, np.uint32).tobytes()
        condition["labels"] = f"from {request.start_index}, sha256:{hashlib.sha256(ids).hexdigest()}"
    for name in {"image", "mask"} & set(condition):
        condition[name] = f"sha256:{hashlib.sha256(getattr(request.condition, name).data).hexdigest()}"
    asked: dict[str, Any] = {"condition": condition, "parameters": MessageToDict(request.parameters)}
    if request.HasField("stop"):
        asked["stop"] = request.stop
    is_text = info.modality == "text"
    size = info.max_text_bytes if is_text else math.prod(info.sample_shape)
    return SampleRun(
        count=request.count,
        start_index=request.start_index,
        seed=request.seed if request.HasField("seed") else None,
        encoding=encoding,
        class_names=info.labels,
        channels=info.sample_shape[2] if len(info.sample_shape) == 3 else 0,
        is_text=is_text,
        sample_bytes=size * (4 if encoding == "float32" else 1),
        request=asked,
    )


def _summary_lines(summary: Mapping[str, Any], *, prints: bool) -> Iterator[str]:
    last = summary["start_index"] + summary["count"] - 1
    yield f"{summary['count']:,} samples of {summary['model']}, {summary['samples_per_s']:,} per second"
    yield f"Digest    {summary['digest']}"
    yield f"Seed      {summary['seed']}, indices {summary['start_index']} to {last}"
    yield f"Numerics  {summary['numerics']}"
    if summary["labels"]:
        yield f"Classes   {', '.join(f'{name} ({count:,})' for name, count in summary['labels'].items())}"
    if not prints:
        yield f"Written   {summary['out']}" if summary["out"] else "Nothing was written; name a file with --out"
