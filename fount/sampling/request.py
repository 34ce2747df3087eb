"""Build a `SampleRequest` from the Python arguments of `Client.sample` and `Client.stream`.

Types and ranges that need no model card are checked here, and every wrong value is reported at once. What depends on
the model (its labels, parameters, ranges, limits) is checked by the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, SupportsIndex, TypedDict

from fount.errors import InvalidRequest
from fount.sampling.arguments import UINT32_MAX, UINT64_MAX, Arguments, SupportsArray, array_of, text_of
from fount.sampling.rows import RowsLike, latents_of, messages_of
from fount.v1 import model_pb2, sampling_pb2

__all__ = [
    "ENCODINGS", "PRIORITIES", "SEND_FAILURE", "ParametersQuery", "SampleQuery", "label_ids", "label_ref", "mixture_of",
    "model_ref", "refuse_files", "sample_request", "set_parameters",
]  # fmt: skip

SEND_FAILURE = "The request cannot be sent:"
"""Begins the message of an error found before anything is sent."""

ENCODINGS = {
    "uint8": model_pb2.ENCODING_UINT8,
    "float32": model_pb2.ENCODING_FLOAT32,
    "png": model_pb2.ENCODING_PNG,
}
PRIORITIES = {"bulk": sampling_pb2.PRIORITY_BULK, "interactive": sampling_pb2.PRIORITY_INTERACTIVE}

_WHOLE_PARAMETERS = ("top_k", "steps", "importance_samples")
_REAL_PARAMETERS = ("truncation", "temperature", "top_p", "guidance_scale", "eta", "prior_fit")


class ParametersQuery(TypedDict, total=False):
    """Sampling parameters; the card of a model lists those it takes, with their ranges."""

    truncation: float | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    guidance_scale: float | None
    steps: int | None
    eta: float | None
    importance_samples: int | None
    prior_fit: float | None


class SampleQuery(ParametersQuery, total=False):
    """The optional arguments of `Client.sample` and `Client.stream`; None is the same as leaving one out.

    At most one of `label`, `labels` and `mixture`; none on a conditional model draws labels from the card's prior.
    """

    # Number of samples; unset: as many as labels, or 1.
    count: SupportsIndex | None
    # Index of the first sample; unset: 0.
    start_index: SupportsIndex | None
    # 0 to 2^64 - 1; unset: the server draws one and reports it in the reply.
    seed: SupportsIndex | None
    # One class for all: its index (int) or its name (str); text that is no name may be an index, as "7" or "#7".
    label: SupportsIndex | str | None
    # One class index a sample: a sequence, an array or a tensor.
    labels: Sequence[SupportsIndex] | SupportsArray | None
    # Classes, by index or name as for `label`, and their relative weights.
    mixture: Mapping[int | str, float] | None
    # (N, latent_dim), one a sample, or (latent_dim,) for all, to decode in place of noise; unset: noise is drawn.
    latent: RowsLike | None
    # "png" is for `stream` alone.
    encoding: Literal["uint8", "float32", "png"] | None
    # Pins the model digest.
    digest: str | None
    # Pins a numerics id.
    numerics: str | None
    priority: Literal["bulk", "interactive"] | None


def model_ref(model: str, digest: str | None = None) -> model_pb2.ModelRef:
    """Parse "name", "name:version" or "name:version@sha256:...", which is how replies name a model.

    Raises:
        InvalidRequest: there is no name, or two digests disagree.
    """
    named, _, pinned = text_of("model", model).partition("@")
    name, _, version = named.partition(":")
    text_of("digest", digest or "")
    if not name:
        text = f'"{model}" has no name; give "name" or "name:version"'
        raise InvalidRequest(SEND_FAILURE, fields=[("model", text)])
    if digest and pinned and digest != pinned:
        text = f'"{digest}" differs from that of the model, "{pinned}"'
        raise InvalidRequest(SEND_FAILURE, fields=[("digest", text)])
    return model_pb2.ModelRef(name=name, version=version, digest=digest or pinned)


def sample_request(model: str, query: SampleQuery) -> sampling_pb2.SampleRequest:
    """Build a request from arguments; wrong ones are reported as in `fount.sampling.arguments`."""
    arguments = Arguments("sample", query, SampleQuery.__annotations__, SEND_FAILURE)
    request = sampling_pb2.SampleRequest(
        model=model_ref(model, query.get("digest")),
        start_index=arguments.whole("start_index", 0, UINT64_MAX) or 0,
        seed=arguments.whole("seed", 0, UINT64_MAX),
        encoding=arguments.choice("encoding", ENCODINGS, "uint8"),
        numerics=arguments.text("numerics"),
    )
    if "priority" in arguments:
        request.priority = arguments.choice("priority", PRIORITIES, "bulk")
    _set_condition(request.condition, arguments)
    _set_count(request, arguments)
    set_parameters(request.parameters, arguments)
    arguments.finish()
    return request


def refuse_files(query: SampleQuery) -> None:
    """Raise an InvalidRequest if PNG files are requested, which do not become one array."""
    if query.get("encoding") == "png":
        text = '"png" gives files, not an array; use stream(..., encoding="png") and .files'
        raise InvalidRequest(SEND_FAILURE, fields=[("encoding", text)])


def set_parameters(parameters: sampling_pb2.Parameters, arguments: Arguments) -> None:
    """Set the sampling parameters that are given."""
    for name in _REAL_PARAMETERS:
        if name in arguments:
            setattr(parameters, name, arguments.real_of(name, arguments.given[name]))
    for name in _WHOLE_PARAMETERS:
        if name in arguments:
            setattr(parameters, name, arguments.whole(name, 0, UINT32_MAX))


def _set_count(request: sampling_pb2.SampleRequest, arguments: Arguments) -> None:
    ids, latents = len(request.condition.labels.ids), request.condition.latent.count
    count = arguments.whole("count", 1, UINT64_MAX)
    request.count = count = count or ids or latents or 1
    if latents > 1 and count != latents:
        arguments.add("latent", f"holds {latents} latents for {count} samples; give one a sample, or one for all")
    if ids and count != ids:
        arguments.add("labels", f"holds {ids} classes for {count} samples; leave count out, or make them equal")
    if request.start_index + count > UINT64_MAX + 1:
        arguments.add("count", f"start_index + count is {request.start_index + count}, above 2^64")


def _set_condition(condition: sampling_pb2.Condition, arguments: Arguments) -> None:
    kinds = [kind for kind in ("label", "labels", "mixture") if kind in arguments]
    if len(kinds) > 1:
        arguments.add(kinds[1], f"cannot go with {kinds[0]}; give one of label, labels and mixture")
    if "label" in arguments:
        condition.label.CopyFrom(label_ref("label", arguments.given["label"], arguments))
    elif "labels" in arguments:
        condition.labels.ids.extend(label_ids(arguments.given["labels"], arguments))
    elif "mixture" in arguments:
        condition.mixture.CopyFrom(mixture_of("mixture", arguments))
    if "latent" in arguments:
        condition.latent.CopyFrom(_latent_rows(arguments))


def _latent_rows(arguments: Arguments) -> sampling_pb2.InputRows:
    latents = latents_of("latent", arguments.given["latent"], arguments)
    if any(name == "latent" for name, _ in arguments.problems):
        return sampling_pb2.InputRows()
    first = next(messages_of(latents, None))
    if first.count < len(latents):
        text = f"holds {len(latents)} latents, and a request at most {first.count} of {latents.shape[1]} numbers"
        arguments.add("latent", f"{text}; use decode, which takes any number")
    return first


def label_ref(name: str, label: object, arguments: Arguments) -> sampling_pb2.LabelRef:
    """Check a class, named by its index or its name."""
    if isinstance(label, str):
        return sampling_pb2.LabelRef(name=label)
    if type(label) is not int and (isinstance(label, bool) or not isinstance(label, SupportsIndex)):
        raise TypeError(f"{name} must be a class index (int) or a class name (str), got {type(label).__name__}")
    return sampling_pb2.LabelRef(id=arguments.whole_of(name, label, 0, UINT32_MAX))


def label_ids(labels: object, arguments: Arguments) -> Sequence[int]:
    """Check `labels`, a flat sequence of class indices; empty when they are wrong."""
    if isinstance(labels, Sequence):
        outside = [each for each in labels if isinstance(each, int) and not 0 <= each <= UINT32_MAX]
        if outside:
            arguments.add("labels", f"holds {outside[0]}; indices are 0 to 2^32 - 1")
            return []
    ids = array_of("labels", labels, "class indices")
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise TypeError(f"labels must be a flat sequence of class indices (int), got {ids.dtype} of shape {ids.shape}")
    if not ids.size:
        arguments.add("labels", "is empty; give one class index a sample")
    elif ids.min() < 0 or ids.max() > UINT32_MAX:
        arguments.add("labels", f"holds {int(ids.min())} to {int(ids.max())}; indices are 0 to 2^32 - 1")
        return []
    indices: list[int] = ids.tolist()
    return indices


def mixture_of(name: str, arguments: Arguments) -> sampling_pb2.Mixture:
    """Read an argument that maps classes to weights."""
    mixture = arguments.given[name]
    if not isinstance(mixture, Mapping):
        raise TypeError(f"{name} must map labels to weights, got {type(mixture).__name__}")
    if not mixture:
        arguments.add(name, "is empty; give at least one class and its weight")
    components = [
        sampling_pb2.MixtureComponent(
            label=label_ref(name, label, arguments), weight=arguments.real_of(f"{name}[{label!r}]", weight)
        )
        for label, weight in mixture.items()
    ]
    return sampling_pb2.Mixture(components=components)
