"""Streaming calls about evaluations over all their attempts: a watch, and the download of a report.

No I/O happens here. Both streams may be opened again at any time: a watch begins with the current state of the
evaluation, a report with its first byte.
"""

from __future__ import annotations

from fount.errors import BadReply, FountError
from fount.evaluation.types import EvaluationInfo, EvaluationReport, evaluation_info
from fount.retry import RetryState
from fount.v1 import evaluation_pb2

__all__ = ["EvaluationWatch", "ReportDownload"]


class EvaluationWatch:
    """A `WatchEvaluation` call over all its attempts; `retry` has the time and the attempts left."""

    def __init__(self, id: str, retry: RetryState) -> None:
        self._id, self.retry = id, retry
        self._last: EvaluationInfo | None = None

    def begin(self) -> evaluation_pb2.WatchEvaluationRequest:
        """Return the request of the next attempt."""
        return evaluation_pb2.WatchEvaluationRequest(id=self._id)

    def receive(self, response: evaluation_pb2.WatchEvaluationResponse) -> EvaluationInfo:
        """Decode one state of the evaluation; a BadReply is raised for that of another one."""
        if response.evaluation.id != self._id:
            raise BadReply(f"Evaluation {self._id!r} is watched, but {response.evaluation.id!r} arrived.")
        self._last = evaluation_info(response.evaluation)
        self.retry.record_progress()
        return self._last

    def finish(self) -> None:
        """Raise a BadReply if the stream ended before the evaluation did."""
        if not self._is_over:
            raise BadReply(f"The watch of evaluation {self._id!r} ended before the evaluation did.")

    def recover(self, error: FountError) -> float | None:
        """Return the seconds to wait before the next attempt, None if the evaluation has ended; or raise the error."""
        return None if self._is_over else self.retry.delay_s(error)

    @property
    def _is_over(self) -> bool:
        return self._last is not None and self._last.is_over


class ReportDownload:
    """A `GetEvaluationReport` call over all its attempts; `retry` has the time and the attempts left."""

    def __init__(self, request: evaluation_pb2.GetEvaluationReportRequest, retry: RetryState) -> None:
        self._request, self.retry = request, retry
        self._data = bytearray()
        self._first: evaluation_pb2.GetEvaluationReportResponse | None = None

    def begin(self) -> evaluation_pb2.GetEvaluationReportRequest:
        """Return the request of the next attempt, always of the whole file."""
        self._data, self._first = bytearray(), None
        return self._request

    def receive(self, response: evaluation_pb2.GetEvaluationReportResponse) -> EvaluationReport | None:
        """Add one part, and return the report it completes; a BadReply is raised for parts of different files."""
        first = self._first = self._first or response
        same_file = (response.total_bytes, response.redacted) == (first.total_bytes, first.redacted)
        if not same_file or len(self._data) + len(response.data) > first.total_bytes:
            raise BadReply(f"The parts of the report of evaluation {self._request.id!r} do not belong together.")
        self._data += response.data
        return EvaluationReport(data=bytes(self._data), redacted=first.redacted) if self._is_complete else None

    def finish(self) -> None:
        """Raise a BadReply if parts are missing."""
        if not self._is_complete:
            total = 0 if self._first is None else self._first.total_bytes
            raise BadReply(f"The report ended after {len(self._data):,} of {total:,} bytes.")

    def recover(self, error: FountError) -> float | None:
        """Return the seconds to wait before the next attempt, None when all parts were received; or raise the error."""
        return None if self._is_complete else self.retry.delay_s(error)

    @property
    def _is_complete(self) -> bool:
        return self._first is not None and 0 < len(self._data) == self._first.total_bytes
