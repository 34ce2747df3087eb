"""What the client for asyncio asks about evaluations; a part of `fount.client.aio.Client`.

It moves bytes and waits; requests, checks and what a broken stream means are shared with
`fount.client.sync_evaluations`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Unpack

from fount.client.aio_calls import AioCalling
from fount.evaluation.messages import evaluation_info
from fount.evaluation.request import EvaluationQuery, Format, State, evaluation_request, list_request, report_request
from fount.evaluation.stream import ReportExchange, WatchExchange
from fount.evaluation.types import EvaluationInfo, EvaluationReport
from fount.v1 import evaluation_pb2, evaluation_pb2_grpc

__all__ = ["AioEvaluationMethods"]


class AioEvaluationMethods:
    """Evaluations: asked for, watched, listed, ended, and their reports."""

    _calling: AioCalling
    _evaluations: evaluation_pb2_grpc.EvaluationServiceAsyncStub

    # Asked of both clients, so it is one TypedDict rather than fourteen arguments written twice.
    async def evaluate(self, model: str, **query: Unpack[EvaluationQuery]) -> EvaluationInfo:
        """Ask for an evaluation, which outlives this client; `watch_evaluation` tells how far it is.

        Args:
            model: as in `sample`.
            **query: against what, and how; see `fount.evaluation.request.EvaluationQuery`. With the `request_id` of an
                earlier call and the same arguments, the earlier evaluation comes back.

        Raises:
            InvalidRequest: a value is wrong; every one is named.
            NotFound: the model, data set or a split is unknown.
            FailedPrecondition: the reference is of another shape, or a model cannot do it.
            Overloaded: more are queued than may be.
            FountError: no answer came.
            TypeError: an argument has a type it cannot have.
        """
        request = evaluation_request(model, query)
        return evaluation_info((await self._calling.ask(self._evaluations.CreateEvaluation, request)).evaluation)

    async def evaluation(self, id: str) -> EvaluationInfo:
        """Look one of the caller's own evaluations up.

        Raises:
            NotFound: it is unknown, expired, deleted, or someone else's.
            FountError: no answer came.
        """
        request = evaluation_pb2.GetEvaluationRequest(id=id)
        return evaluation_info((await self._calling.ask(self._evaluations.GetEvaluation, request)).evaluation)

    async def evaluations(self, states: Iterable[State] = (), model: str | None = None) -> list[EvaluationInfo]:
        """List the caller's own evaluations, newest first, without their metrics.

        Args:
            states: those wanted; none: all.
            model: the name of the model wanted; None: every model.

        Raises:
            InvalidRequest: there is no such state.
            FountError: no answer came.
        """
        found: list[EvaluationInfo] = []
        request = list_request(states, model)
        while True:
            reply = await self._calling.ask(self._evaluations.ListEvaluations, request)
            found += map(evaluation_info, reply.evaluations)
            if not reply.next_page_token:
                return found
            request.page_token = reply.next_page_token

    def watch_evaluation(self, id: str) -> AsyncGenerator[EvaluationInfo]:
        """Look at an evaluation whenever it changes, and every few seconds, until it has ended; the last look says how.

        As `fount.client.sync.Client.watch_evaluation`; use `contextlib.aclosing` to end the watch early.

        Raises:
            NotFound: as in `evaluation`, also when it is deleted meanwhile.
            FountError: the rest did not come.
        """
        exchange = WatchExchange(id, self._calling.patience(between_messages=True))
        return self._calling.follow(
            lambda timeout_s: self._evaluations.WatchEvaluation(exchange.begin(), timeout=timeout_s), exchange
        )

    async def cancel_evaluation(self, id: str) -> EvaluationInfo:
        """End an evaluation that is queued or running; one that has ended stays as it is.

        Raises:
            NotFound: as in `evaluation`.
            FountError: no answer came.
        """
        request = evaluation_pb2.CancelEvaluationRequest(id=id)
        return evaluation_info((await self._calling.ask(self._evaluations.CancelEvaluation, request)).evaluation)

    async def delete_evaluation(self, id: str) -> None:
        """Remove an evaluation with its report, cancelling it where needed.

        Raises:
            NotFound: as in `evaluation`; also when an attempt of this very call removed it, and its answer was lost.
            FountError: no answer came.
        """
        await self._calling.ask(self._evaluations.DeleteEvaluation, evaluation_pb2.DeleteEvaluationRequest(id=id))

    async def evaluation_report(self, id: str, format: Format = "html") -> EvaluationReport:
        """Fetch the report of an evaluation that succeeded, as one file.

        Args:
            id: the evaluation's.
            format: "html", one page that opens offline, or "json", everything it shows.

        Raises:
            NotFound: as in `evaluation`.
            FailedPrecondition: it has not succeeded.
            FountError: the file did not come.
        """
        exchange = ReportExchange(report_request(id, format), self._calling.patience(between_messages=True))
        parts = self._calling.follow(
            lambda timeout_s: self._evaluations.GetEvaluationReport(exchange.begin(), timeout=timeout_s), exchange
        )
        async with aclosing(parts):
            return [each async for each in parts][-1]  # one that was not completed has raised
