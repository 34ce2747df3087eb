"""ListEvaluations: one page of a caller's evaluations, and a token for the next."""

from __future__ import annotations

import base64
import binascii
import hashlib
from itertools import accumulate

from fount.v1 import evaluation_pb2
from service.errors import InvalidRequest, UnknownEvaluation, Violation
from service.evaluation.jobs.record import Evaluations
from service.rpc.evaluation_message import STATES, record_to_message

__all__ = ["list_evaluations"]

_PAGE_SIZE, _PAGE_SIZE_MAX = 100, 1000
_PAGE_BYTES = 1 << 20  # of evaluations in one answer: a message holds them all
_FILTER_DIGITS = 16
_NOT_OURS = "is not one this gateway gave for this filter; begin again without it"

_STATES = {number: state for state, number in STATES.items()}


async def list_evaluations(
    kept: Evaluations, subject: str, request: evaluation_pb2.ListEvaluationsRequest
) -> evaluation_pb2.ListEvaluationsResponse:
    """Answer one page.

    It ends before `page_size` evaluations where they come to more than 1 MiB, but holds one however large.

    Raises:
        InvalidRequest: a field is wrong; names every one.
    """
    after = _read(request)
    size = min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MAX)
    states = {_STATES[each] for each in request.states}
    try:
        records = await kept.list(subject, states=states, model=request.model, after=after, limit=size + 1)
    except UnknownEvaluation as error:  # the last one of the page before is gone
        raise InvalidRequest(
            (Violation(field="page_token", description="is of an evaluation that is gone"),)
        ) from error
    messages = [record_to_message(each, with_metrics=False) for each in records[:size]]
    fitting = max(1, sum(end <= _PAGE_BYTES for end in accumulate(each.ByteSize() for each in messages)))
    told = messages[:fitting]
    token = _token(request, told[-1].id) if len(records) > len(told) else ""
    return evaluation_pb2.ListEvaluationsResponse(evaluations=told, next_page_token=token)


def _read(request: evaluation_pb2.ListEvaluationsRequest) -> str:
    """The id behind which the page begins, once every field is checked."""
    wrong = []
    if request.page_size < 0:
        wrong.append(Violation(field="page_size", description=f"must not be negative, got {request.page_size}"))
    for k, number in enumerate(request.states):
        if number not in _STATES:
            wrong.append(Violation(field=f"states[{k}]", description=f"{number} is not a State"))
    after = ""
    try:
        if request.page_token:
            told = base64.b64decode(request.page_token.encode(), altchars=b"-_", validate=True).decode()
            of, _, after = told.partition(" ")
            if of != _filter(request) or not after.isalnum():
                raise ValueError(of)
    except (binascii.Error, ValueError):
        wrong.append(Violation(field="page_token", description=_NOT_OURS))
    if wrong:
        raise InvalidRequest(tuple(wrong))
    return after


def _token(request: evaluation_pb2.ListEvaluationsRequest, last: str) -> str:
    return base64.urlsafe_b64encode(f"{_filter(request)} {last}".encode()).decode()


def _filter(request: evaluation_pb2.ListEvaluationsRequest) -> str:
    """A few digits of what is filtered by, so that a token cannot go on with another list."""
    asked = evaluation_pb2.ListEvaluationsRequest(states=sorted(set(request.states)), model=request.model)
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()[:_FILTER_DIGITS]
