"""From a caller's Python arguments to a `SampleRequest`: types and ranges that need no model card are checked here.

Everything wrong is named at once, as the gateway does. What depends on the model (its labels, parameters, ranges,
limits) is the gateway's to judge.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, Literal, SupportsIndex, TypedDict, TypeVar

import numpy as np

from fount.errors import InvalidRequest
from fount.v1 import model_pb2, sampling_pb2

__all__ = ["ENCODINGS", "PRIORITIES", "ParametersQuery", "SampleQuery", "model_ref", "refuse_files", "sample_request"]

ENCODINGS = {
    "uint8": model_pb2.ENCODING_UINT8,
    "float32": model_pb2.ENCODING_FLOAT32,
    "png": model_pb2.ENCODING_PNG,
}
PRIORITIES = {"bulk": sampling_pb2.PRIORITY_BULK, "interactive": sampling_pb2.PRIORITY_INTERACTIVE}

_Choice = TypeVar("_Choice")

_UINT32, _UINT64 = 2**32, 2**64
_WHOLE_PARAMETERS = ("top_k", "steps")
_REAL_PARAMETERS = ("truncation", "temperature", "top_p", "guidance_scale")


class ParametersQuery(TypedDict, total=False):
    """Parameters of a draw; each model says which it takes, and in what range."""

    truncation: float | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    guidance_scale: float | None
    steps: int | None


class SampleQuery(ParametersQuery, total=False):
    """What may be asked of a model; everything may be left out, and None is the same as leaving it out.

    At most one of `label`, `labels` and `mixture`; none on a conditional model draws labels from the card's prior.
    """

    # How many samples; unset: as many as labels, or 1.
    count: SupportsIndex | None
    # Index of the first sample; unset: 0.
    start_index: SupportsIndex | None
    # 0 to 2^64 - 1; unset: the server draws one, found in the reply.
    seed: SupportsIndex | None
    # One class for all: its index (int) or its name (str).
    label: SupportsIndex | str | None
    # One class index a sample.
    labels: Sequence[int] | np.ndarray[Any, np.dtype[np.integer[Any]]] | None
    # Classes, by index or name, and their relative weights.
    mixture: Mapping[int | str, float] | None
    # "png" is for `stream` alone.
    encoding: Literal["uint8", "float32", "png"] | None
    # Pins the model digest.
    digest: str | None
    # Pins a numerics id.
    numerics: str | None
    priority: Literal["bulk", "interactive"] | None


def model_ref(model: str, digest: str | None = None) -> model_pb2.ModelRef:
    """Read "name", "name:version" or "name:version@sha256:...", the last being how replies name a model.

    Raises:
        TypeError: the model or the digest is not a string.
        InvalidRequest: there is no name, or two digests disagree.
    """
    _check_text("model", model)
    _check_text("digest", digest or "")
    named, _, pinned = model.partition("@")
    name, _, version = named.partition(":")
    if not name:
        raise _invalid([("model", f'"{model}" has no name; give "name" or "name:version"')])
    if digest and pinned and digest != pinned:
        raise _invalid([("digest", f'"{digest}" differs from that of the model, "{pinned}"')])
    return model_pb2.ModelRef(name=name, version=version, digest=digest or pinned)


def sample_request(model: str, query: SampleQuery) -> sampling_pb2.SampleRequest:
    """Build a request, whole and checked.

    Raises:
        TypeError: an argument is unknown, or has a type it cannot have.
        InvalidRequest: a value is out of range whatever the model, or conditions contradict each other.
    """
    if unknown := query.keys() - SampleQuery.__annotations__.keys():
        raise TypeError(f"sample() got an unexpected argument {sorted(unknown)[0]!r}")
    given = {name: value for name, value in query.items() if value is not None}
    _check_text("numerics", given.get("numerics", ""))
    problems: list[tuple[str, str]] = []
    request = sampling_pb2.SampleRequest(
        model=model_ref(model, query.get("digest")),
        start_index=_whole("start_index", given.get("start_index", 0), 0, _UINT64, problems),
        encoding=_choice("encoding", given.get("encoding", "uint8"), ENCODINGS, problems),
        numerics=str(given.get("numerics", "")),
    )
    if "priority" in given:
        request.priority = _choice("priority", given["priority"], PRIORITIES, problems)
    if "seed" in given:
        request.seed = _whole("seed", given["seed"], 0, _UINT64, problems)
    _set_condition(request, given, problems)
    _set_count(request, given, problems)
    _set_parameters(request, given, problems)
    if problems:
        raise _invalid(problems)
    return request


def refuse_files(query: SampleQuery) -> None:
    """Refuse what cannot become one array.

    Raises:
        InvalidRequest: PNG files were asked for.
    """
    if query.get("encoding") == "png":
        raise _invalid([("encoding", '"png" gives files, not an array; use stream(..., encoding="png") and .files')])


def _set_count(request: sampling_pb2.SampleRequest, given: Mapping[str, Any], problems: list[tuple[str, str]]) -> None:
    ids = len(request.condition.labels.ids)
    request.count = count = _whole("count", given.get("count", ids or 1), 1, _UINT64, problems)
    if ids and count != ids:
        problems.append(("labels", f"holds {ids} classes for {count} samples; leave count out, or make them equal"))
    if request.start_index + count > _UINT64:
        problems.append(("count", f"start_index + count is {request.start_index + count}, above 2^64"))


def _set_condition(
    request: sampling_pb2.SampleRequest, given: Mapping[str, Any], problems: list[tuple[str, str]]
) -> None:
    kinds = [kind for kind in ("label", "labels", "mixture") if kind in given]
    if len(kinds) > 1:
        problems.append((kinds[1], f"cannot go with {kinds[0]}; give one of label, labels and mixture"))
    if "label" in given:
        request.condition.label.CopyFrom(_label_ref("label", given["label"], problems))
    elif "labels" in given:
        request.condition.labels.ids.extend(_label_ids(given["labels"], problems))
    elif "mixture" in given:
        request.condition.mixture.CopyFrom(_mixture(given["mixture"], problems))


def _label_ref(argument: str, label: object, problems: list[tuple[str, str]]) -> sampling_pb2.LabelRef:
    if isinstance(label, str):
        return sampling_pb2.LabelRef(name=label)
    if isinstance(label, bool) or not hasattr(label, "__index__"):
        raise TypeError(f"{argument} must be a class index (int) or a class name (str), got {_type_name(label)}")
    return sampling_pb2.LabelRef(id=_whole(argument, label, 0, _UINT32, problems))


def _label_ids(labels: object, problems: list[tuple[str, str]]) -> Sequence[int]:
    if isinstance(labels, str | bytes) or not isinstance(labels, Sequence | np.ndarray):
        raise TypeError(f"labels must be a sequence of class indices, got {_type_name(labels)}")
    beyond = [each for each in labels if isinstance(each, int) and not 0 <= each < _UINT32]
    if beyond:
        problems.append(("labels", f"holds {beyond[0]}; indices are 0 to 2^32 - 1"))
        return []
    ids = np.asarray(labels)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise TypeError(f"labels must be a flat sequence of class indices (int), got {ids.dtype} of shape {ids.shape}")
    if not ids.size:
        problems.append(("labels", "is empty; give one class index a sample"))
    elif ids.min() < 0 or ids.max() >= _UINT32:
        problems.append(("labels", f"holds {int(ids.min())} to {int(ids.max())}; indices are 0 to 2^32 - 1"))
        return []
    return list(map(int, ids))


def _mixture(mixture: object, problems: list[tuple[str, str]]) -> sampling_pb2.Mixture:
    if not isinstance(mixture, Mapping):
        raise TypeError(f"mixture must map labels to weights, got {_type_name(mixture)}")
    components = [
        sampling_pb2.MixtureComponent(
            label=_label_ref("mixture", label, problems), weight=_real(f"mixture[{label!r}]", weight)
        )
        for label, weight in mixture.items()
    ]
    if not components:
        problems.append(("mixture", "is empty; give at least one class and its weight"))
    return sampling_pb2.Mixture(components=components)


def _set_parameters(
    request: sampling_pb2.SampleRequest, given: Mapping[str, Any], problems: list[tuple[str, str]]
) -> None:
    for name in _REAL_PARAMETERS:
        if name in given:
            setattr(request.parameters, name, _real(name, given[name]))
    for name in _WHOLE_PARAMETERS:
        if name in given:
            setattr(request.parameters, name, _whole(name, given[name], 0, _UINT32, problems))


def _whole(argument: str, value: object, low: int, limit: int, problems: list[tuple[str, str]]) -> int:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{argument} must be a whole number, got {_type_name(value)}")
    if low <= operator.index(value) < limit:
        return operator.index(value)
    problems.append((argument, f"is {operator.index(value)}; it may be {low} to {limit - 1}"))
    return low


def _real(argument: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{argument} must be a number, got {_type_name(value)}")
    return float(value)


def _choice(argument: str, value: object, choices: Mapping[str, _Choice], problems: list[tuple[str, str]]) -> _Choice:
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be one of {', '.join(choices)}, got {_type_name(value)}")
    if value not in choices:
        problems.append((argument, f'is "{value}"; it may be {", ".join(choices)}'))
    return choices.get(value, next(iter(choices.values())))


def _check_text(argument: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a str, got {_type_name(value)}")


def _type_name(value: object) -> str:
    return type(value).__name__


def _invalid(problems: Sequence[tuple[str, str]]) -> InvalidRequest:
    return InvalidRequest("The request cannot be sent:", fields=problems)
