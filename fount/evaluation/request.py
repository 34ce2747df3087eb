"""Build evaluation requests from the Python arguments of the client.

Values that are wrong for every server are reported here, all at once. The gateway checks the gates, and what depends on
models and data sets.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import Any, Literal, SupportsIndex

from fount.errors import InvalidRequest
from fount.evaluation.types import PANELS, STATES
from fount.sampling.arguments import UINT64_MAX, Arguments, text_of
from fount.sampling.request import SEND_FAILURE, ParametersQuery, model_ref, set_parameters
from fount.v1 import evaluation_pb2

__all__ = ["REPORT_FORMATS", "EvaluationQuery", "evaluation_request", "list_request", "report_request"]

Panel = Literal["realism", "diversity", "memorisation", "label-fidelity"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Format = Literal["html", "json"]

REPORT_FORMATS = {
    "html": evaluation_pb2.GetEvaluationReportRequest.FORMAT_HTML,
    "json": evaluation_pb2.GetEvaluationReportRequest.FORMAT_JSON,
}

_MIN_COUNT, _MAX_GATES = 50, 64
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class EvaluationQuery(ParametersQuery, total=False):
    """The optional arguments of `Client.evaluate`; None is the same as leaving one out."""

    # "DATASET", or "DATASET:TRAINING:HELD_OUT" with its splits; unset: the one data set of the model's shape that a
    # served classifier can read. Splits unset: "train" and "test".
    reference: str | None
    # Number of samples, 50 or more; unset: 10 000, or the gateway's limit.
    count: SupportsIndex | None
    # 0 to 2^64 - 1; unset: the server draws one and reports it in the envelope.
    seed: SupportsIndex | None
    # The panels to compute; unset or empty: all that the model supports.
    panels: Iterable[Panel] | None
    # Conditions as "copy_rate.upper95 < 0.01"; unset or empty: none.
    gates: Iterable[str] | None
    # The model whose features are compared; unset: the reference's classifier, or the one that can read it.
    extractor: str | None
    # The model whose labels are compared; unset: the reference's classifier, or the one that can read it.
    classifier: str | None
    # Makes the call safe to repeat: letters, digits, dots, dashes, underscores; unset: one is generated.
    request_id: str | None


def evaluation_request(model: str, query: EvaluationQuery) -> evaluation_pb2.CreateEvaluationRequest:
    """Build a request from checked arguments; a request id is generated when none is given."""
    arguments = Arguments("evaluate", query, EvaluationQuery.__annotations__, SEND_FAILURE)
    request = evaluation_pb2.CreateEvaluationRequest(
        count=arguments.whole("count", _MIN_COUNT, UINT64_MAX) or 0,
        panels=arguments.choices("panels", PANELS),
        gates=_gates(arguments),
        request_id=_request_id(arguments),
        reference=_reference(arguments) if "reference" in arguments else None,
        seed=arguments.whole("seed", 0, UINT64_MAX),
    )
    _set_model(request.model, "model", model, arguments)
    for role, message in (("extractor", request.extractor), ("classifier", request.classifier)):
        if role in arguments:
            _set_model(message, role, arguments.text(role), arguments)
    set_parameters(request.parameters, arguments)
    arguments.finish()
    return request


def list_request(states: Iterable[State], model: str | None) -> evaluation_pb2.ListEvaluationsRequest:
    """Build the request for the first page of a list."""
    arguments = Arguments("evaluations", {"states": states}, {"states"}, SEND_FAILURE)
    request = evaluation_pb2.ListEvaluationsRequest(
        page_size=1000, states=arguments.choices("states", STATES), model=text_of("model", model or "")
    )
    arguments.finish()
    return request


def report_request(id: str, format: Format) -> evaluation_pb2.GetEvaluationReportRequest:
    """Build the request for a report."""
    if text_of("format", format) not in REPORT_FORMATS:
        text = f'is "{format}"; it may be {", ".join(REPORT_FORMATS)}'
        raise InvalidRequest(SEND_FAILURE, fields=[("format", text)])
    return evaluation_pb2.GetEvaluationReportRequest(id=text_of("id", id), format=REPORT_FORMATS[format])


def _set_model(message: Any, role: str, model: str, arguments: Arguments) -> None:
    try:
        message.CopyFrom(model_ref(text_of(role, model)))
    except InvalidRequest as error:
        arguments.problems += [(role, text) for _, text in error.fields]


def _reference(arguments: Arguments) -> evaluation_pb2.Reference:
    reference = arguments.text("reference")
    dataset, *splits = reference.split(":")
    if not dataset or len(splits) not in (0, 2):
        arguments.add("reference", f'is "{reference}"; give "DATASET" or "DATASET:TRAINING:HELD_OUT"')
        return evaluation_pb2.Reference()
    training, held_out = splits or ("", "")
    return evaluation_pb2.Reference(dataset=dataset, training_split=training, held_out_split=held_out)


def _gates(arguments: Arguments) -> list[str]:
    gates = arguments.texts("gates")
    if len(gates) > _MAX_GATES:
        arguments.add("gates", f"are {len(gates)}; there may be {_MAX_GATES}")
    if not all(gate.strip() for gate in gates):
        arguments.add("gates", 'hold an empty one; give conditions as "copy_rate.upper95 < 0.01"')
    return gates


def _request_id(arguments: Arguments) -> str:
    if "request_id" not in arguments:
        return uuid.uuid4().hex
    request_id = arguments.text("request_id")
    if not _REQUEST_ID.fullmatch(request_id):
        text = f"is {request_id[:130]!r}; give 1 to 128 letters, digits, dots, dashes or underscores"
        arguments.add("request_id", text)
    return request_id
