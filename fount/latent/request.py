"""Build the streams of given rows from the Python arguments of the client's methods.

As in `fount.sampling.request`: what is wrong for every server is reported here, all at once, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, TypedDict

import numpy as np
from numpy.typing import NDArray

from fount.sampling.arguments import UINT64_MAX, Arguments, SupportsArray
from fount.sampling.request import (
    ENCODINGS,
    PRIORITIES,
    SEND_FAILURE,
    ParametersQuery,
    label_ids,
    label_ref,
    mixture_of,
    model_ref,
    set_parameters,
)
from fount.sampling.rows import RowsLike, latents_of, rows_of, texts_of
from fount.v1 import latent_pb2, scoring_pb2, translation_pb2

__all__ = [
    "ClassifyQuery", "DecodeQuery", "EncodeQuery", "GivenRequest", "InterpolateQuery", "ReconstructQuery", "ScoreQuery",
    "TranslateQuery", "VaryQuery", "classify_request", "decode_request", "encode_request", "interpolate_request",
    "reconstruct_request", "score_request", "translate_request", "vary_request",
]  # fmt: skip

_ARRAYS = {name: ENCODINGS[name] for name in ("uint8", "float32")}
_PATHS = {
    "linear": latent_pb2.InterpolateConfig.PATH_LINEAR,
    "spherical": latent_pb2.InterpolateConfig.PATH_SPHERICAL,
}
_DEFAULT_OUTPUTS, _MOST_OUTPUTS = 8, 1000  # of a row
_MOST_SCALE = 100.0


class _Query(TypedDict, total=False):
    """What every stream takes; None is the same as leaving an argument out."""

    # Index of the first row, or number of the first pair; unset: 0.
    start_index: SupportsIndex | None
    # Pins the model digest.
    digest: str | None
    # Pins a numerics id.
    numerics: str | None
    priority: Literal["bulk", "interactive"] | None


class _LabelQuery(_Query, total=False):
    """At most one of `label` and `labels`; a conditional model needs one, except for scores."""

    # The class of every row, as in `Client.sample`.
    label: SupportsIndex | str | None
    # One class index a row, or pair.
    labels: Sequence[SupportsIndex] | SupportsArray | None


class DecodeQuery(_LabelQuery, total=False):
    """The optional arguments of `Client.decode`."""

    # Unset: "uint8" for pictures, "float32" for vectors.
    encoding: Literal["uint8", "float32"] | None


class EncodeQuery(_LabelQuery, total=False):
    """The optional arguments of `Client.encode`."""

    # Draw each latent from its distribution, rather than take its mean.
    sampled: bool | None
    # Also return the standard deviations; not with `sampled`.
    spread: bool | None
    # 0 to 2^64 - 1, of drawn latents; unset: the server draws one and reports it in the reply.
    seed: SupportsIndex | None


class ReconstructQuery(DecodeQuery, total=False):
    """The optional arguments of `Client.reconstruct`; `sampled` and `seed` as in `Client.encode`."""

    sampled: bool | None
    seed: SupportsIndex | None


class InterpolateQuery(DecodeQuery, total=False):
    """The optional arguments of `Client.interpolate`."""

    # Number of samples of each pair, its ends included, 2 to 1000; unset: 8.
    points: SupportsIndex | None
    # "spherical" keeps the norm of latents; unset: "linear".
    path: Literal["linear", "spherical"] | None


class VaryQuery(DecodeQuery, total=False):
    """The optional arguments of `Client.vary`: `scale` draws around a row's latent, `direction` walks along a line."""

    # Number of variants of each row, 1 to 1000; unset: 8.
    variants: SupportsIndex | None
    # Distance in units of the model's latent_spread, 0 to 100; unset: 0.5.
    scale: float | None
    # Name of one of the model's directions; unset: variants are drawn.
    direction: str | None
    # Amounts of the first and last variant along the direction, -100 to 100; unset: -2 and 2.
    from_amount: float | None
    to_amount: float | None
    # Of drawn variants, as in `Client.encode`.
    seed: SupportsIndex | None


class ScoreQuery(_LabelQuery, ParametersQuery, total=False):
    """The optional arguments of `Client.score`, with the parameters that the model takes."""

    # Of scores that draw, as in `Client.encode`.
    seed: SupportsIndex | None


class TranslateQuery(DecodeQuery, ParametersQuery, total=False):
    """The optional arguments of `Client.translate`, with the parameters that the model takes.

    `label` and `labels` name the direction, or the class that rows become; a model without classes takes none.
    """

    # Of models that draw, as in `Client.encode`.
    seed: SupportsIndex | None


class ClassifyQuery(_Query, total=False):
    """The optional arguments of `Client.classify`."""

    # Classes, by index or name, and their relative weights, in place of the card's prior.
    prior: Mapping[int | str, float] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenRequest:
    """A stream of given rows that can be sent.

    Attributes:
        message: the type of its requests.
        config: the content of the first.
        rows: (units · rows_each, ...) uint8 or float32; a unit is a row, or a pair.
        labels: (units,) class indices; None: they have none of their own.
        rows_each: rows of a unit.
        results_each: results of a unit.
    """

    message: Any
    config: Any
    rows: NDArray[Any]
    labels: NDArray[np.uint32] | None = None
    rows_each: int = 1
    results_each: int = 1

    @property
    def units(self) -> int:
        """How many rows, or pairs."""
        return len(self.rows) // self.rows_each


def encode_request(model: str, rows: RowsLike, query: EncodeQuery) -> GivenRequest:
    """Build the stream of `Client.encode`."""
    arguments = Arguments("encode", query, EncodeQuery.__annotations__, SEND_FAILURE)
    config = latent_pb2.EncodeConfig(latents=_latents(arguments), spread=arguments.flag("spread"))
    if config.spread and arguments.flag("sampled"):
        arguments.add("spread", "cannot go with sampled, since drawn latents have no spread; leave out one of both")
    array = rows_of("rows", rows, arguments)
    return _request(latent_pb2.EncodeRequest, config, model, array, arguments)


def decode_request(model: str, latents: RowsLike, query: DecodeQuery) -> GivenRequest:
    """Build the stream of `Client.decode`."""
    arguments = Arguments("decode", query, DecodeQuery.__annotations__, SEND_FAILURE)
    array = latents_of("latents", latents, arguments)
    return _request(latent_pb2.DecodeRequest, latent_pb2.DecodeConfig(), model, array, arguments)


def reconstruct_request(model: str, rows: RowsLike, query: ReconstructQuery) -> GivenRequest:
    """Build the stream of `Client.reconstruct`."""
    arguments = Arguments("reconstruct", query, ReconstructQuery.__annotations__, SEND_FAILURE)
    config = latent_pb2.ReconstructConfig(latents=_latents(arguments))
    return _request(latent_pb2.ReconstructRequest, config, model, rows_of("rows", rows, arguments), arguments)


def interpolate_request(model: str, first: RowsLike, second: RowsLike, query: InterpolateQuery) -> GivenRequest:
    """Build the stream of `Client.interpolate`."""
    arguments = Arguments("interpolate", query, InterpolateQuery.__annotations__, SEND_FAILURE)
    points = arguments.whole("points", 2, _MOST_OUTPUTS) or _DEFAULT_OUTPUTS
    config = latent_pb2.InterpolateConfig(points=points, path=arguments.choice("path", _PATHS, "linear"))
    ends = rows_of("first", first, arguments), rows_of("second", second, arguments)
    (one, other), pairs = ends, ends[0]
    if (one.shape, one.dtype) == (other.shape, other.dtype):
        pairs = np.stack(ends, axis=1).reshape(-1, *one.shape[1:])  # 2 × (n, ...) -> (n, 2, ...) -> (2n, ...)
    else:
        text = f"are {other.dtype} of shape {other.shape}, and first {one.dtype} of {one.shape}; make both the same"
        arguments.add("second", text)
    return _request(
        latent_pb2.InterpolateRequest, config, model, pairs, arguments, rows_each=2, results_each=config.points
    )


def vary_request(model: str, rows: RowsLike, query: VaryQuery) -> GivenRequest:
    """Build the stream of `Client.vary`."""
    arguments = Arguments("vary", query, VaryQuery.__annotations__, SEND_FAILURE)
    variants = arguments.whole("variants", 1, _MOST_OUTPUTS) or _DEFAULT_OUTPUTS
    config = latent_pb2.VaryConfig(variants=variants)
    scale = arguments.real("scale", 0.0, _MOST_SCALE)
    amounts = {name: arguments.real(name, -_MOST_SCALE, _MOST_SCALE) for name in ("from_amount", "to_amount")}
    if "direction" in arguments:
        config.walk.CopyFrom(latent_pb2.Walk(direction=arguments.text("direction"), **amounts))
        for name in ("scale", "seed"):
            if name in arguments:
                arguments.add(name, "cannot go with direction, along which nothing is drawn; leave out one of both")
    else:
        config.jitter.CopyFrom(latent_pb2.Jitter(scale=scale))
        for name, amount in amounts.items():
            if amount is not None:
                arguments.add(name, "goes with a direction; give its name as direction")
    array = rows_of("rows", rows, arguments)
    return _request(latent_pb2.VaryRequest, config, model, array, arguments, results_each=variants)


def score_request(model: str, rows: RowsLike, query: ScoreQuery) -> GivenRequest:
    """Build the stream of `Client.score`."""
    arguments = Arguments("score", query, ScoreQuery.__annotations__, SEND_FAILURE)
    config = scoring_pb2.ScoreConfig()
    set_parameters(config.parameters, arguments)
    array = texts_of("rows", rows, arguments)
    if array is None:
        array = rows_of("rows", rows, arguments)
    return _request(scoring_pb2.ScoreRequest, config, model, array, arguments)


def translate_request(model: str, images: RowsLike, query: TranslateQuery) -> GivenRequest:
    """Build the stream of `Client.translate`."""
    arguments = Arguments("translate", query, TranslateQuery.__annotations__, SEND_FAILURE)
    config = translation_pb2.TranslateConfig()
    set_parameters(config.parameters, arguments)
    array = rows_of("images", images, arguments)
    return _request(translation_pb2.TranslateRequest, config, model, array, arguments)


def classify_request(model: str, rows: RowsLike, query: ClassifyQuery) -> GivenRequest:
    """Build the stream of `Client.classify`."""
    arguments = Arguments("classify", query, ClassifyQuery.__annotations__, SEND_FAILURE)
    config = scoring_pb2.ClassifyConfig()
    if "prior" in arguments:
        config.prior.CopyFrom(mixture_of("prior", arguments))
    return _request(scoring_pb2.ClassifyRequest, config, model, rows_of("rows", rows, arguments), arguments)


def _latents(arguments: Arguments) -> latent_pb2.Latents.ValueType:
    return latent_pb2.LATENTS_SAMPLED if arguments.flag("sampled") else latent_pb2.LATENTS_MEAN


def _request(
    message: Any,
    config: Any,
    model: str,
    rows: NDArray[Any],
    arguments: Arguments,
    *,
    rows_each: int = 1,
    results_each: int = 1,
) -> GivenRequest:
    """Set what all configs share, and raise what is wrong."""
    units = len(rows) // rows_each
    config.model.CopyFrom(model_ref(model, arguments.given.get("digest")))
    config.start_index = arguments.whole("start_index", 0, UINT64_MAX) or 0
    config.numerics = arguments.text("numerics")
    if "priority" in arguments:
        config.priority = arguments.choice("priority", PRIORITIES, "bulk")
    if "encoding" in arguments:
        config.encoding = arguments.choice("encoding", _ARRAYS, "uint8")
    if (seed := arguments.whole("seed", 0, UINT64_MAX)) is not None:
        config.seed = seed
    if "label" in arguments:
        config.label.CopyFrom(label_ref("label", arguments.given["label"], arguments))
    if "label" in arguments and "labels" in arguments:
        arguments.add("labels", "cannot go with label; give one of both")
    labels = None
    if "labels" in arguments:
        labels = np.array(label_ids(arguments.given["labels"], arguments), np.uint32)
        if not any(name == "labels" for name, _ in arguments.problems) and len(labels) != units:
            arguments.add("labels", f"holds {len(labels)} classes for {units} {'pairs' if rows_each > 1 else 'rows'}")
    if (config.start_index + units) * results_each > UINT64_MAX + 1:
        text = f"is {config.start_index}; the last of {units * results_each} results would be beyond 2^64; start lower"
        arguments.add("start_index", text)
    arguments.finish()
    return GivenRequest(
        message=message, config=config, rows=rows, labels=labels, rows_each=rows_each, results_each=results_each
    )
