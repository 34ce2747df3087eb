"""Watching an evaluation, and fetching its report, without the I/O: what came, and whether to ask again.

Both streams may be opened again at any time: a watch begins with what the evaluation is then, a report with its first
byte.
"""

from __future__ import annotations

from fount.errors import BadReply, FountError
from fount.evaluation.types import EvaluationInfo, EvaluationReport, evaluation_info
from fount.retry import Patience
from fount.v1 import evaluation_pb2

__all__ = ["ReportExchange", "WatchExchange"]


class WatchExchange:
    """A `WatchEvaluation` call without its I/O.

    Attributes:
        patience: the time and attempts left.
    """

    def __init__(self, id: str, patience: Patience) -> None:
        self._id, self.patience = id, patience
        self._last: EvaluationInfo | None = None

    def begin(self) -> evaluation_pb2.WatchEvaluationRequest:
        """The request to send now."""
        return evaluation_pb2.WatchEvaluationRequest(id=self._id)

    def receive(self, response: evaluation_pb2.WatchEvaluationResponse) -> EvaluationInfo:
        """Take one look in.

        Raises:
            BadReply: it is of another evaluation.
        """
        if response.evaluation.id != self._id:
            raise BadReply(f"Evaluation {self._id!r} is watched, but {response.evaluation.id!r} came")
        self._last = evaluation_info(response.evaluation)
        self.patience.take_progress()
        return self._last

    def finish(self) -> None:
        """Take note that the stream ended well.

        Raises:
            BadReply: the evaluation has not ended.
        """
        if self._last is None or not self._last.is_over:
            raise BadReply(f"The watch of evaluation {self._id!r} ended before the evaluation did")

    def recover(self, error: FountError) -> float | None:
        """Decide what a broken stream means.

        Returns:
            Seconds to wait before `begin`, or None when the evaluation had ended before it broke.

        Raises:
            FountError: the error itself, when it is final.
        """
        return None if self._last is not None and self._last.is_over else self.patience.delay_s(error)


class ReportExchange:
    """A `GetEvaluationReport` call without its I/O.

    Attributes:
        patience: the time and attempts left.
    """

    def __init__(self, request: evaluation_pb2.GetEvaluationReportRequest, patience: Patience) -> None:
        self._request, self.patience = request, patience
        self._data = bytearray()
        self._first: evaluation_pb2.GetEvaluationReportResponse | None = None

    def begin(self) -> evaluation_pb2.GetEvaluationReportRequest:
        """The request to send now: of the whole file, whatever came before a break."""
        self._data, self._first = bytearray(), None
        return self._request

    def receive(self, response: evaluation_pb2.GetEvaluationReportResponse) -> EvaluationReport | None:
        """Take one part in, and give the report it completes.

        Raises:
            BadReply: parts disagree about the file, or are more than it has.
        """
        first = self._first = self._first or response
        said = (response.total_bytes, response.redacted)
        if said != (first.total_bytes, first.redacted) or len(self._data) + len(response.data) > first.total_bytes:
            raise BadReply(f"Parts of the report of evaluation {self._request.id!r} do not belong together")
        self._data += response.data
        return EvaluationReport(data=bytes(self._data), redacted=first.redacted) if self._is_complete else None

    def finish(self) -> None:
        """Take note that the stream ended well.

        Raises:
            BadReply: parts are missing.
        """
        if not self._is_complete:
            total = 0 if self._first is None else self._first.total_bytes
            raise BadReply(f"The report ended after {len(self._data):,} of {total:,} bytes")

    def recover(self, error: FountError) -> float | None:
        """Decide what a broken stream means, as `WatchExchange.recover` does."""
        return None if self._is_complete else self.patience.delay_s(error)

    @property
    def _is_complete(self) -> bool:
        return self._first is not None and 0 < len(self._data) == self._first.total_bytes
