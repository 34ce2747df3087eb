"""From a caller's Python arguments to requests about evaluations: what needs no server to be wrong is named here.

Everything wrong is named at once, as the gateway does. What models, data sets and gates mean is the gateway's to judge.
"""

from __future__ import annotations

import operator
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, SupportsIndex, TypeVar, cast

from fount.errors import InvalidRequest
from fount.evaluation.types import PANELS, STATES
from fount.sampling.request import ParametersQuery, SampleQuery, model_ref, sample_request
from fount.v1 import evaluation_pb2

__all__ = [
    "REPORT_FORMATS",
    "EvaluationQuery",
    "evaluation_request",
    "list_request",
    "report_request",
]

Panel = Literal["realism", "diversity", "memorisation", "label-fidelity"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Format = Literal["html", "json"]

_Choice = TypeVar("_Choice")
_Problems = list[tuple[str, str]]

REPORT_FORMATS = {
    "html": evaluation_pb2.GetEvaluationReportRequest.FORMAT_HTML,
    "json": evaluation_pb2.GetEvaluationReportRequest.FORMAT_JSON,
}

_FEWEST, _MOST_GATES, _UINT64 = 50, 64, 2**64
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_OF_THE_DRAW = ("seed", "truncation", "temperature", "top_k", "top_p", "guidance_scale", "steps")


class EvaluationQuery(ParametersQuery, total=False):
    """What may be asked of an evaluation; everything may be left out, and None is the same as leaving it out."""

    # "DATASET", or "DATASET:TRAINING:HELD_OUT" with its splits; unset: the one data set of the model's shape that a
    # served classifier can read. Splits unset: "train" and "test".
    reference: str | None
    # How many samples, 50 or more; unset: 10 000, or the gateway's cap.
    count: SupportsIndex | None
    # 0 to 2^64 - 1; unset: the server draws one, found in the envelope.
    seed: SupportsIndex | None
    # The questions; unset or empty: all that the model can be asked.
    panels: Iterable[Panel] | None
    # Conditions as "copy_rate.upper95 < 0.01"; unset or empty: none.
    gates: Iterable[str] | None
    # The model whose features are compared; unset: the reference's classifier, or the one that can read it.
    extractor: str | None
    # The model whose labels are compared; unset: the reference's classifier, or the one that can read it.
    classifier: str | None
    # Makes the call safe to repeat: letters, digits, dots, dashes, underscores; unset: one is made.
    request_id: str | None


def evaluation_request(model: str, query: EvaluationQuery) -> evaluation_pb2.CreateEvaluationRequest:
    """Build a request, whole and checked; without a request id it gets one of its own.

    Raises:
        TypeError: an argument is unknown, or has a type it cannot have.
        InvalidRequest: a value is wrong whatever the model.
    """
    if unknown := query.keys() - EvaluationQuery.__annotations__.keys():
        raise TypeError(f"evaluate() got an unexpected argument {sorted(unknown)[0]!r}")
    given: dict[str, Any] = {name: value for name, value in query.items() if value is not None}
    problems: _Problems = []
    request = evaluation_pb2.CreateEvaluationRequest(
        count=_count(given["count"], problems) if "count" in given else 0,
        panels=_choices("panels", given.get("panels", ()), PANELS, problems),
        gates=_gates(given.get("gates", ()), problems),
        request_id=_request_id(given.get("request_id"), problems),
    )
    if "reference" in given:
        request.reference.CopyFrom(_reference(given["reference"], problems))
    for role in ("extractor", "classifier"):
        if role in given:
            _name_model(request, role, given[role], problems)
    _set_draw(request, model, given, problems)
    _refuse(problems)
    return request


def list_request(states: Iterable[State], model: str | None) -> evaluation_pb2.ListEvaluationsRequest:
    """Build the request for the first page.

    Raises:
        TypeError: an argument has a type it cannot have.
        InvalidRequest: there is no such state.
    """
    problems: _Problems = []
    wanted = _choices("states", states, STATES, problems)
    _refuse(problems)
    return evaluation_pb2.ListEvaluationsRequest(page_size=1000, states=wanted, model=_text("model", model or ""))


def report_request(id: str, format: Format) -> evaluation_pb2.GetEvaluationReportRequest:
    """Build the request for a report.

    Raises:
        TypeError: an argument has a type it cannot have.
        InvalidRequest: there is no such format.
    """
    if _text("format", format) not in REPORT_FORMATS:
        _refuse([("format", f'is "{format}"; it may be {", ".join(REPORT_FORMATS)}')])
    return evaluation_pb2.GetEvaluationReportRequest(id=_text("id", id), format=REPORT_FORMATS[format])


def _set_draw(
    request: evaluation_pb2.CreateEvaluationRequest, model: str, given: Mapping[str, Any], problems: _Problems
) -> None:
    """Model, seed and parameters: a draw's, so they are read as a draw's."""
    query = cast(SampleQuery, {name: given[name] for name in _OF_THE_DRAW if name in given})
    try:
        draw = sample_request(model, query)
    except InvalidRequest as error:
        problems += error.fields
        return
    request.model.CopyFrom(draw.model)
    if draw.HasField("parameters"):
        request.parameters.CopyFrom(draw.parameters)
    if draw.HasField("seed"):
        request.seed = draw.seed


def _name_model(
    request: evaluation_pb2.CreateEvaluationRequest,
    role: Literal["extractor", "classifier"],
    model: str,
    problems: _Problems,
) -> None:
    try:
        getattr(request, role).CopyFrom(model_ref(_text(role, model)))
    except InvalidRequest as error:
        problems += [(role, text) for _, text in error.fields]


def _reference(reference: object, problems: _Problems) -> evaluation_pb2.Reference:
    dataset, *splits = _text("reference", reference).split(":")
    if not dataset or len(splits) not in (0, 2):
        problems.append(("reference", f'is "{reference}"; give "DATASET" or "DATASET:TRAINING:HELD_OUT"'))
        return evaluation_pb2.Reference()
    training, held_out = splits or ("", "")
    return evaluation_pb2.Reference(dataset=dataset, training_split=training, held_out_split=held_out)


def _gates(gates: object, problems: _Problems) -> Sequence[str]:
    read = _texts("gates", gates)
    if len(read) > _MOST_GATES:
        problems.append(("gates", f"are {len(read)}; there may be {_MOST_GATES}"))
    if not all(each.strip() for each in read):
        problems.append(("gates", 'hold an empty one; give conditions as "copy_rate.upper95 < 0.01"'))
    return read


def _request_id(request_id: object, problems: _Problems) -> str:
    if request_id is None:
        return uuid.uuid4().hex
    text = _text("request_id", request_id)
    if not _REQUEST_ID.fullmatch(text):
        problems.append(
            ("request_id", f"is {text[:130]!r}; give 1 to 128 letters, digits, dots, dashes or underscores")
        )
    return text


def _count(value: object, problems: _Problems) -> int:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"count must be a whole number, got {type(value).__name__}")
    number = operator.index(value)
    if not _FEWEST <= number < _UINT64:
        problems.append(("count", f"is {number}; it may be {_FEWEST} or more"))
        return 0
    return number


def _choices(argument: str, values: object, choices: Mapping[str, _Choice], problems: _Problems) -> list[_Choice]:
    read = _texts(argument, values)
    for each in dict.fromkeys(read):
        if each not in choices:
            problems.append((argument, f'hold "{each}"; there are {", ".join(choices)}'))
        elif read.count(each) > 1:
            problems.append((argument, f'hold "{each}" {read.count(each)} times'))
    return [choices[each] for each in read if each in choices]


def _texts(argument: str, values: object) -> list[str]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{argument} must be a sequence of str, got {type(values).__name__}")
    return [_text(argument, each) for each in values]


def _text(argument: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a str, got {type(value).__name__}")
    return value


def _refuse(problems: _Problems) -> None:
    if problems:
        raise InvalidRequest("The request cannot be sent:", fields=problems)
