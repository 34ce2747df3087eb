"""Build a `SampleRequest` from the Python arguments of `Client.sample` and `Client.stream`.

Types and ranges that need no model card are checked here, and every wrong value is reported at once. What depends on
the model (its labels, parameters, ranges, limits) is checked by the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, SupportsIndex, TypedDict

from numpy.typing import NDArray

from fount.errors import InvalidRequest
from fount.sampling.arguments import UINT32_MAX, UINT64_MAX, Arguments, SupportsArray, array_of, text_of
from fount.sampling.rows import RowsLike, latents_of, masks_of, messages_of, rows_of
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

_GIVEN = {"latent": "latents", "image": "pictures", "mask": "masks"}  # fields of rows
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
    # The beginning of every sample: text, or the first bytes of a picture, row-major uint8; the rest is drawn.
    prefix: str | bytes | None
    # (N, H, W, C), one a sample, or (H, W, C) for all: the picture that a model which translates makes samples of; with
    # `mask`, the picture of which it gives a part, and the rest is drawn.
    image: RowsLike | None
    # As `image`, or without channels: 1 or True where a value of it is given, 0 or False where it is drawn.
    mask: RowsLike | None
    # Each text ends before its first occurrence after the prefix.
    stop: str | None
    # "png" is for `stream` alone.
    encoding: Literal["uint8", "float32", "png"] | None
    # Pins the model digest.
    digest: str | None
    # Pins a numerics id.
    numerics: str | None
    priority: Literal["bulk", "interactive"] | None
    # Called with the steps done and the steps of all samples, summed over samples, while draws of many steps run.
    progress: Callable[[int, int], None] | None


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
        progress="progress" in arguments,
    )
    if request.progress and not callable(query["progress"]):
        raise TypeError(f"progress must be callable, got {type(query['progress']).__name__}")
    if "stop" in arguments:
        request.stop = _stop_of(arguments)
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
    ids = len(request.condition.labels.ids)
    given = {name: getattr(request.condition, name).count for name in _GIVEN}
    count = arguments.whole("count", 1, UINT64_MAX)
    request.count = count = count or ids or max(given.values()) or 1
    for name, rows in given.items():
        if rows > 1 and count != rows:
            arguments.add(name, f"holds {rows} {_GIVEN[name]} for {count} samples; give one a sample, or one for all")
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
        latents = latents_of("latent", arguments.given["latent"], arguments)
        condition.latent.CopyFrom(_rows_message("latent", latents, arguments, "use decode, which takes any number"))
    if "prefix" in arguments:
        condition.prefix = _prefix_of(arguments)
    _set_image(condition, arguments)


def _set_image(condition: sampling_pb2.Condition, arguments: Arguments) -> None:
    """Set the picture, and the mask, that are given, and not with a prefix."""
    if "image" in arguments and "prefix" in arguments:
        arguments.add("image", "cannot go with prefix; give one of both")
    if "mask" in arguments and "image" not in arguments:
        arguments.add("mask", "needs image: the mask is 1 where the image is given, and 0 where it is drawn")
    if "image" not in arguments:
        return
    images, remedy = rows_of("image", arguments.given["image"], arguments), "draw them by several calls"
    condition.image.CopyFrom(_rows_message("image", images, arguments, remedy))
    if condition.image.count and "mask" in arguments:
        masks = masks_of("mask", arguments.given["mask"], images.shape[1:], arguments)
        condition.mask.CopyFrom(_rows_message("mask", masks, arguments, remedy))


def _rows_message(name: str, rows: NDArray[Any], arguments: Arguments, remedy: str) -> sampling_pb2.InputRows:
    """Make one message of rows; a problem is added if they do not fit, and an empty one made of wrong rows."""
    if any(wrong == name for wrong, _ in arguments.problems):
        return sampling_pb2.InputRows()
    first = next(messages_of(rows, None))
    if first.count < len(rows):
        size = "×".join(map(str, rows.shape[1:]))
        text = f"holds {len(rows)} {_GIVEN[name]}, and a request at most {first.count} of {size} numbers"
        arguments.add(name, f"{text}; {remedy}")
    return first


def _prefix_of(arguments: Arguments) -> bytes:
    prefix = arguments.given["prefix"]
    if not isinstance(prefix, str | bytes):
        raise TypeError(f"prefix must be a str, or the bytes of pixels, got {type(prefix).__name__}")
    if not prefix:
        arguments.add("prefix", "is empty; leave it out, and samples are drawn from their beginning")
    return prefix if isinstance(prefix, bytes) else arguments.utf8_of("prefix", prefix)


def _stop_of(arguments: Arguments) -> str:
    stop = arguments.text("stop")
    if not stop:
        arguments.add("stop", "is empty; leave it out, and it ends no text")
    return arguments.utf8_of("stop", stop).decode()


def label_ref(name: str, label: object, arguments: Arguments) -> sampling_pb2.LabelRef:
    """Check a class, named by its index or its name."""
    if isinstance(label, str):
        return sampling_pb2.LabelRef(name=arguments.utf8_of(name, label).decode())
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
