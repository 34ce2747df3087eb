"""Read the rows of a command, check them against the model, and send them in parts under a progress bar.

Results depend on a row's index and not on its company, so that parts are the bytes of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fount.cli.classes import class_indices
from fount.cli.connection import connected, loaded_model
from fount.cli.given.options import GivenOptions
from fount.cli.output.text import echo_result, error_is_terminal, note_numbers_read_as_names, plain
from fount.cli.pictures import GivenRows, pull_rows, read_files, read_lines
from fount.client.catalog import ModelInfo
from fount.client.sync import Client
from fount.errors import FailedPrecondition, InvalidRequest
from fount.names import class_index
from fount.sampling.types import Samples

__all__ = ["Results", "Work", "check_operations", "opened"]

_PART = 256  # results of one call
_MIN_BAR_COUNT = 1000  # results from which on a progress bar is shown
_PICTURES, _LATENTS = ("images", "samples", "rows"), ("latents",)  # possible names of arrays in an NPZ file
_PICTURE_DIMS, _GREY, _COLOUR = 3, 1, 3


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of all parts.

    Attributes:
        values: (N, ...).
        labels: (N,) class indices; None when the model is unconditional.
        seed: of what was drawn; None where nothing was.
        columns: names of scores or of classes.
        units: of scores.
        value_range: black and white of pictures.
    """

    values: NDArray[Any]
    labels: NDArray[np.int64] | None
    seed: int | None
    numerics: str
    columns: tuple[str, ...]
    units: tuple[str, ...]
    value_range: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Work:
    """A model, the rows for it, and the connection to its server.

    Attributes:
        name: of the model, as the user wrote it.
        given: rows of the model's own shape, or latents; none where a command needs none.
    """

    client: Client
    name: str
    info: ModelInfo
    options: GivenOptions
    given: GivenRows

    @property
    def is_pictures(self) -> bool:
        """Whether the model's samples are pictures that PNG can hold."""
        return len(self.info.sample_shape) == _PICTURE_DIMS and self.info.sample_shape[2] in (_GREY, _COLOUR)

    def ids(self, *, own: bool = True, needed: bool = True, rows_each: int = 1) -> list[int] | None:
        """Return the class of each row, or pair of rows: as options say, or as files do.

        Args:
            own: whether classes that files name are used.
            needed: whether a conditional model needs classes.
            rows_each: 2 for pairs, whose rows have one class.
        """
        label, labels, count = self.options.get("label"), self.options.get("labels"), len(self.given) // rows_each
        if label is not None and labels is not None:
            raise click.UsageError("Give --label or --labels, not both")
        texts = labels or ([] if label is None else [label] * count)
        if texts and not self.info.labels:
            raise click.UsageError(f"{self.info.name} is unconditional; leave --label and --labels out")
        if texts and len(texts) != count:
            what = "pairs" if rows_each > 1 else "rows"
            raise click.UsageError(f"--labels names {len(texts)} classes for {count} {what}; name one for each")
        note_numbers_read_as_names(dict.fromkeys(texts), self.info.labels)
        if texts or not self.info.labels:
            return class_indices(texts, self.info, self.name) or None
        if own and self.given.labels is not None:
            return self._own_ids(self.given.labels, rows_each)
        if needed:
            raise click.UsageError(f"{self.info.name} is conditional; name the class of the rows with --label")
        return None

    def _own_ids(self, labels: Sequence[str], rows_each: int) -> list[int]:
        found = {text: class_index(text, self.info.labels) for text in dict.fromkeys(labels)}
        if unknown := [text for text, index in found.items() if index is None]:
            text = f"The rows are of the class {unknown[0]!r}, which {self.info.name} does not have"
            raise InvalidRequest(f"{text}; name one that it has with --label.")
        ids = [index for text in labels if (index := found[text]) is not None]
        if any(ids[row] != ids[row - row % rows_each] for row in range(len(ids))):
            raise click.UsageError("The rows of a pair have two classes; name one for all with --label")
        return ids[::rows_each]

    def send(
        self,
        call: Callable[..., Samples],
        *arrays: NDArray[Any],
        model: ModelInfo | None = None,
        ids: Sequence[int] | None = None,
        each: int = 1,
        draws: bool = False,
        query: Mapping[str, object] | None = None,
    ) -> Results:
        """Send arrays of equal lengths in parts, and join the results.

        Args:
            call: a method of the client.
            *arrays: (N, ...) each.
            model: another than that of the command.
            ids: N class indices.
            each: results of a row or pair.
            draws: whether results are drawn, with a seed that the first part returns.
            query: arguments of the method.
        """
        info = model or self.info
        total, step, start = len(arrays[0]), max(1, _PART // max(1, each)), self.options.get("start_index") or 0
        sent = {**(query or {}), "priority": self.options.get("priority")}
        if model is None:
            sent["numerics"] = self.options.get("numerics")
        parts: list[Samples] = []
        show_bar = not self.options.get("as_json") and total * each >= _MIN_BAR_COUNT and error_is_terminal()
        with tqdm(total=total * each, disable=not show_bar) as bar:
            for first in range(0, total, step):
                rows = slice(first, first + step)
                own = {} if ids is None else {"labels": ids[rows]}
                values = [array[rows] for array in arrays]
                parts.append(call(str(info.model), *values, start_index=start + first, **own, **sent))
                sent["numerics"] = parts[0].numerics
                if draws:
                    sent["seed"] = parts[0].seed
                bar.update(len(parts[-1]) * each)
        columns = getattr(parts[0], "columns", ())
        labels = [part.labels for part in parts if part.labels is not None]
        return Results(
            values=np.concatenate([part.view(np.ndarray) for part in parts]),
            labels=np.concatenate(labels) if labels else None,
            seed=parts[0].seed if draws else None,
            numerics=parts[0].numerics,
            columns=tuple(column.name for column in columns) or getattr(parts[0], "classes", ()),
            units=tuple(column.unit for column in columns),
            value_range=parts[0].value_range,
        )

    def captions(self, results: Results) -> tuple[str, ...]:
        """Return what to show above samples: classes where there are any, or else the names of the rows."""
        if results.labels is None:
            return self.given.names
        return tuple(self.info.labels[label] for label in results.labels.tolist())

    def provenance(self, results: Results) -> dict[str, Any]:
        """Return what reproduces results, as JSON values: the seed and the first index, if they were drawn."""
        drawn = {"seed": results.seed, "start_index": self.options.get("start_index") or 0}
        return {
            "model": f"{self.info.name}:{self.info.version}",
            "digest": self.info.digest,
            "numerics": results.numerics,
            **({} if results.seed is None else drawn),
        }

    def labelled(self, results: Results) -> dict[str, Any]:
        """Return the classes of results, if they have any, and their provenance, as arrays of an NPZ file."""
        classes = None if results.labels is None else np.array(self.info.labels, np.str_)
        model = {"model": str(self.info.model)}
        return {"labels": results.labels, "classes": classes, **self.provenance(results), **model}

    def report(self, results: Results, headline: str, counts: Mapping[str, Any], out: str | None) -> None:
        """Write what was done to stdout.

        Args:
            results: with the seed and the numerics.
            headline: the first line of the text.
            counts: further JSON values.
            out: the file that was written.
        """
        value = {**self.provenance(results), **counts, "out": out}
        lines = [headline, f"Digest    {self.info.digest}", f"Numerics  {results.numerics}"]
        lines += [] if results.seed is None else [f"Seed      {results.seed}"]
        lines += [] if out is None else [f"Written   {out}"]
        echo_result(value, map(plain, lines), as_json=self.options["as_json"])


@contextmanager
def opened(
    name: str, options: GivenOptions, *operations: str, latents: bool = False, needs_rows: bool = True
) -> Iterator[Work]:
    """Read the rows, connect, look up the model, and check that the rows have its shape.

    Args:
        name: of the model.
        options: of the command.
        *operations: those that the model must have.
        latents: whether rows are latents rather than pictures or vectors.
        needs_rows: whether a command without rows is refused.
    """
    inputs, dataset, limit = options.get("inputs") or (), options.get("dataset"), options["rows"]
    if inputs and dataset is not None:
        raise click.UsageError("Name files, or a data set with --dataset, not both")
    if needs_rows and not inputs and dataset is None:
        what = "an NPZ file with latents" if latents else "images, or a data set with --dataset"
        raise click.UsageError(f"Name {what}")
    rows, is_text = None, bool(inputs) and all(path.suffix.lower() == ".txt" for path in inputs)
    if inputs:
        arrays = _LATENTS if latents else _PICTURES
        rows = read_lines(inputs, limit) if is_text else read_files(inputs, limit, arrays, floats=True)
    with connected(options["server"], options["timeout_s"]) as client:
        info = loaded_model(client, name, options.get("digest"), options["timeout_s"])
        check_operations(info, *operations)
        _check_modality(info, operations, is_text=is_text)
        if rows is None and dataset is not None:
            rows = pull_rows(client, dataset, limit)
        if rows is None:
            rows = GivenRows(values=np.zeros((0, *info.sample_shape), np.float32), names=())
        elif not is_text:
            own = info.input_shape if "translate" in operations else info.sample_shape
            shape = (info.latent_dim,) if latents else own
            rows = _fitted(rows, shape, info, "a latent" if latents else "a row")
        yield Work(client=client, name=name, info=info, options=options, given=rows)


def _check_modality(info: ModelInfo, operations: Sequence[str], *, is_text: bool) -> None:
    """Check that texts are scored by a model of text, and that such a model gets nothing else."""
    if info.modality == "text" and "score" not in operations:
        text = f"{info.name} is of text, and this command is of pictures and vectors. Name another model."
        raise FailedPrecondition(text)
    if info.modality == "text" and not is_text:
        raise FailedPrecondition(f"{info.name} is of text. Name a .txt file, in which each line is a text.")
    if is_text and info.modality != "text":
        raise FailedPrecondition(f"{info.name} is not of text. Name images, or a model of text.")


def check_operations(info: ModelInfo, *operations: str) -> None:
    """Raise FailedPrecondition for a model that lacks an operation."""
    if lacking := [each for each in operations if each not in info.operations]:
        found = f"{info.name} cannot {' or '.join(lacking)}; it can {', '.join(info.operations)}"
        raise FailedPrecondition(f"{found}. Name another model; `fount models` lists them.")


def _fitted(rows: GivenRows, shape: tuple[int, ...], info: ModelInfo, what: str) -> GivenRows:
    """Return rows of the shape of the model, with an axis of one channel, or one number, where it was left out.

    Raises:
        InvalidRequest: they have another shape.
    """
    found = rows.values.shape[1:]
    if not all(shape) or not shape:  # which the server checks, or has no such operation
        return rows
    if (converted := _with_channels(rows.values, shape)) is not None:
        return GivenRows(values=converted, names=rows.names, labels=rows.labels)
    if rows.values.dtype != np.uint8 and (*found, 1) == shape:
        return GivenRows(values=rows.values[..., None], names=rows.names, labels=rows.labels)
    if found == shape and (len(shape) == _PICTURE_DIMS or rows.values.dtype != np.uint8):
        return rows
    remedy = f"give an NPZ file of (rows, {shape[0]}) floats"
    if len(shape) == _PICTURE_DIMS:
        height, width, channels = shape
        remedy = f"resize them to {width} × {height} pixels (width × height)"
        if found[:2] == shape[:2]:
            remedy = "convert them to grey" if channels == _GREY else f"convert them to {channels} channels"
    size, due = (" × ".join(map(str, each)) or "single numbers" for each in (found, shape))
    raise InvalidRequest(f"The rows are {size}, and {what} of {info.name} is {due}: {remedy}.")


def _with_channels(pictures: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Give pictures whose pixels are all grey the channels of a shape; None where it is not that which differs."""
    if pictures.dtype != np.uint8 or pictures.ndim != 1 + _PICTURE_DIMS or len(shape) != _PICTURE_DIMS:
        return None
    channels = {pictures.shape[3], shape[2]}
    if pictures.shape[1:3] != shape[:2] or channels != {_GREY, _COLOUR} or (pictures != pictures[..., :1]).any():
        return None
    return pictures[..., :1].repeat(shape[2], axis=3)
