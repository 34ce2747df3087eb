"""The client: samples as arrays, model cards as values, errors a person can act on.

It moves bytes and waits; everything else (requests, checks, resuming, retries) is shared with `fount.client.aio`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, Self, Unpack, cast

import grpc

from fount.augmentation.augment import AugmentExchange, AugmentQuery, Rows, augment_config, items_of
from fount.augmentation.feed import Feed
from fount.augmentation.plan import AnyPlan, PlanInfo, Wishes, plan_info, plan_message
from fount.augmentation.pull import HeaderExchange, PullExchange, PullInfo, PullQuery, pull_request
from fount.augmentation.rows import RowBatch
from fount.client.calls import Calling
from fount.client.catalog import DatasetInfo, ModelInfo, dataset_info, model_info
from fount.client.status import error_of
from fount.evaluation.request import EvaluationQuery, Format, State, evaluation_request, list_request, report_request
from fount.evaluation.stream import ReportExchange, WatchExchange
from fount.evaluation.types import EvaluationInfo, EvaluationReport, evaluation_info
from fount.retry import CHANNEL_OPTIONS, RetryPolicy, SampleExchange, default_server
from fount.sampling.request import SampleQuery, model_ref, refuse_files
from fount.sampling.types import Chunk, SampleCollector, Samples
from fount.v1 import (
    augmentation_pb2,
    augmentation_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
    evaluation_pb2,
    evaluation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    sampling_pb2_grpc,
)

__all__ = ["Client", "EvaluationMethods"]

# FOLDED FROM fount.client.sync:
# What the client asks about evaluations; a part of `fount.client.sync.Client`. It moves bytes and waits;
# requests, checks and what a broken stream means are shared with `fount.client.aio`.


class EvaluationMethods:
    """Evaluations: asked for, watched, listed, ended, and their reports."""

    _calling: Calling
    _evaluations: evaluation_pb2_grpc.EvaluationServiceStub

    # Asked of both clients, so it is one TypedDict rather than fourteen arguments written twice.
    def evaluate(self, model: str, **query: Unpack[EvaluationQuery]) -> EvaluationInfo:
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
        return evaluation_info(self._calling.ask(self._evaluations.CreateEvaluation, request).evaluation)

    def evaluation(self, id: str) -> EvaluationInfo:
        """Look one of the caller's own evaluations up.

        Raises:
            NotFound: it is unknown, expired, deleted, or someone else's.
            FountError: no answer came.
        """
        request = evaluation_pb2.GetEvaluationRequest(id=id)
        return evaluation_info(self._calling.ask(self._evaluations.GetEvaluation, request).evaluation)

    def evaluations(self, states: Iterable[State] = (), model: str | None = None) -> list[EvaluationInfo]:
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
            reply = self._calling.ask(self._evaluations.ListEvaluations, request)
            found += map(evaluation_info, reply.evaluations)
            if not reply.next_page_token:
                return found
            request.page_token = reply.next_page_token

    def watch_evaluation(self, id: str) -> Generator[EvaluationInfo]:
        """Look at an evaluation whenever it changes, and every few seconds, until it has ended; the last look says how.

        A broken stream is opened again. Closing the iterator ends the watch, and not the evaluation.

        Raises:
            NotFound: as in `evaluation`, also when it is deleted meanwhile.
            FountError: the rest did not come.
        """
        exchange = WatchExchange(id, self._calling.patience(between_messages=True))
        return self._calling.follow(
            lambda timeout_s: self._evaluations.WatchEvaluation(exchange.begin(), timeout=timeout_s), exchange
        )

    def cancel_evaluation(self, id: str) -> EvaluationInfo:
        """End an evaluation that is queued or running; one that has ended stays as it is.

        Raises:
            NotFound: as in `evaluation`.
            FountError: no answer came.
        """
        request = evaluation_pb2.CancelEvaluationRequest(id=id)
        return evaluation_info(self._calling.ask(self._evaluations.CancelEvaluation, request).evaluation)

    def delete_evaluation(self, id: str) -> None:
        """Remove an evaluation with its report, cancelling it where needed.

        Raises:
            NotFound: as in `evaluation`; also when an attempt of this very call removed it, and its answer was lost.
            FountError: no answer came.
        """
        self._calling.ask(self._evaluations.DeleteEvaluation, evaluation_pb2.DeleteEvaluationRequest(id=id))

    def evaluation_report(self, id: str, format: Format = "html") -> EvaluationReport:
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
        return list(parts)[-1]  # one that was not completed has raised


class Client(EvaluationMethods):
    """A connection to one gateway; safe to share between threads, not with a forked process.

    Example:
        >>> with Client() as client:
        ...     sevens = client.sample("digits-cvae", label=7, count=16, seed=1)
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        timeout_s: float | None = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Open a channel; it connects with the first call.

        Args:
            server: "host:port"; unset, FOUNT_SERVER or 127.0.0.1:50051.
            timeout_s: seconds for a whole call, and for `stream` between two chunks. None: no limit.
            credentials: for TLS; unset, the channel is not encrypted.
            retry: how patiently a server that does not answer is tried again.
        """
        self.server = server or default_server()
        self._calling = Calling(self.server, timeout_s, retry or RetryPolicy())
        self._channel = (
            grpc.insecure_channel(self.server, CHANNEL_OPTIONS)
            if credentials is None
            else grpc.secure_channel(self.server, credentials, CHANNEL_OPTIONS)
        )
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)
        self._sampling = sampling_pb2_grpc.SamplingServiceStub(self._channel)
        self._datasets = dataset_pb2_grpc.DatasetServiceStub(self._channel)
        self._augmentation = augmentation_pb2_grpc.AugmentationServiceStub(self._channel)
        self._evaluations = evaluation_pb2_grpc.EvaluationServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel, from any thread; calls in progress, and waits between two, end with Cancelled."""
        self._calling.closed.set()
        self._channel.close()

    # Four methods take one query, so it is one TypedDict rather than sixteen arguments written four times.
    def sample(self, model: str, **query: Unpack[SampleQuery]) -> Samples:
        """Draw samples into one array.

        Args:
            model: "name", "name:version", or both with "@" and the digest, as replies name it.
            **query: what to draw; see `fount.sampling.request.SampleQuery`.

        Returns:
            (N, H, W, C) uint8 or float32 with labels, seed, model and numerics.

        Raises:
            FountError: it did not come; the class says what to do about it.
            TypeError: an argument has a type it cannot have.
        """
        refuse_files(query)
        exchange = SampleExchange(model, query, self._calling.patience())
        collector = SampleCollector(exchange.count)
        if exchange.is_few:
            for chunk in self._ask_once(exchange):
                collector.add(chunk)
        if not exchange.is_complete:
            for chunk in self._chunks(exchange):
                collector.add(chunk)
        return collector.finish()

    def stream(self, model: str, **query: Unpack[SampleQuery]) -> Iterator[Chunk]:
        """Draw samples chunk by chunk, in order, in constant memory; a broken stream is resumed.

        Closing the iterator cancels the call. With encoding "png", chunks hold `files` instead of an array. Samples
        that failed are in a chunk's `errors`.

        Args:
            model: as in `sample`.
            **query: as in `sample`.

        Raises:
            FountError: the rest did not come; the class says what to do about it.
            TypeError: an argument has a type it cannot have.
        """
        return self._chunks(SampleExchange(model, query, self._calling.patience(between_messages=True)))

    def models(self) -> list[ModelInfo]:
        """List every version served, by name and then version.

        Raises:
            FountError: no answer came.
        """
        models: list[ModelInfo] = []
        request = model_pb2.ListModelsRequest(page_size=1000)
        while True:
            reply = self._calling.ask(self._models.ListModels, request)
            models += map(model_info, reply.models)
            if not reply.next_page_token:
                return models
            request.page_token = reply.next_page_token

    def model(self, model: str, *, digest: str | None = None) -> ModelInfo:
        """Look one model up, named as in `sample`.

        Raises:
            NotFound: it is not served.
            FountError: no answer came.
        """
        request = model_pb2.GetModelRequest(model=model_ref(model, digest))
        return model_info(self._calling.ask(self._models.GetModel, request).model)

    def datasets(self) -> list[DatasetInfo]:
        """List every data set that may be augmented, by name.

        Raises:
            FountError: no answer came.
        """
        reply = self._calling.ask(self._datasets.ListDatasets, dataset_pb2.ListDatasetsRequest())
        return [dataset_info(each) for each in reply.datasets]

    def dataset(self, name: str) -> DatasetInfo:
        """Look one data set up.

        Raises:
            NotFound: there is none of the name.
            FailedPrecondition: its files cannot be read.
            FountError: no answer came.
        """
        request = dataset_pb2.GetDatasetRequest(name=name)
        return dataset_info(self._calling.ask(self._datasets.GetDataset, request).dataset)

    def plan(self, wishes: Wishes) -> PlanInfo:
        """Turn wishes for a data set into exact slots, and a ticket to pull their rows by.

        Args:
            wishes: a mapping as in a plan file (`fount.augmentation.plan.load_wishes` reads one), or the request
            itself.

        Raises:
            InvalidRequest: keys or values are wrong; every one is named.
            FailedPrecondition: the policy changes labels, or the data set cannot be read.
            FountError: no answer came.
        """
        return plan_info(self._calling.ask(self._augmentation.PlanDataset, plan_message(wishes)).plan)

    def get_plan(self, plan_id: str) -> PlanInfo:
        """Look one of the caller's own plans up.

        Raises:
            NotFound: it is unknown, expired, or someone else's.
            FountError: no answer came.
        """
        request = augmentation_pb2.GetPlanRequest(id=plan_id)
        return plan_info(self._calling.ask(self._augmentation.GetPlan, request).plan)

    def plans(self) -> list[PlanInfo]:
        """List the caller's own plans, newest first, without expired ones.

        Raises:
            FountError: no answer came.
        """
        plans: list[PlanInfo] = []
        request = augmentation_pb2.ListPlansRequest(page_size=1000)
        while True:
            reply = self._calling.ask(self._augmentation.ListPlans, request)
            plans += map(plan_info, reply.plans)
            if not reply.next_page_token:
                return plans
            request.page_token = reply.next_page_token

    def pull(self, plan: AnyPlan, **query: Unpack[PullQuery]) -> Generator[RowBatch]:
        """Pull the rows of a plan, or of one shard of it, in order, in constant memory; a broken stream is resumed.

        Closing the iterator cancels the call. Slots for which no sample was accepted are in the batches, marked.

        Args:
            plan: a plan, or its ticket.
            **query: which rows, and what each tells; see `fount.augmentation.pull.PullQuery`.

        Raises:
            FountError: the rest did not come; the class says what to do about it.
            TypeError: an argument has a type it cannot have.
        """
        exchange = PullExchange(pull_request(plan, query), self._calling.patience(between_messages=True))
        return self._calling.follow(self._pull_call(exchange), exchange)

    def pull_info(self, plan: AnyPlan, **query: Unpack[PullQuery]) -> PullInfo:
        """Ask what the stream of `pull` with the same arguments is, without pulling rows.

        Raises:
            FountError: no answer came.
            TypeError: an argument has a type it cannot have.
        """
        exchange = PullExchange(pull_request(plan, query), self._calling.patience(between_messages=True))
        with closing(self._calling.follow(self._pull_call(exchange), HeaderExchange(exchange))) as answers:
            return next(answers)

    def augment(self, images: Rows, labels: Any = None, **query: Unpack[AugmentQuery]) -> Generator[RowBatch]:
        """Push rows and receive variants of each, in order; nothing is stored, and a broken stream is resumed.

        Rows are taken from an iterable as their variants are read, never far ahead. Variant v of row i has the index
        i · variants + v, and the source row i.

        Args:
            images: (N, H, W, C) or (N, H, W) uint8; or an iterable of such arrays, or of pairs of such and labels.
            labels: (N,) class ids of one array of images, given back with the variants.
            **query: what is done to each; see `fount.augmentation.augment.AugmentQuery`.

        Raises:
            FountError: the rest did not come; the class says what to do about it.
            TypeError: an argument has a type it cannot have.
        """
        exchange = AugmentExchange(augment_config(query), self._calling.patience(between_messages=True))
        return self._variants(exchange, iter(items_of(images, labels)))

    def _pull_call(self, exchange: PullExchange) -> Callable[[float | None], Any]:
        return lambda timeout_s: self._augmentation.PullDataset(exchange.begin(), timeout=timeout_s)

    def _variants(self, exchange: AugmentExchange, items: Iterator[Any]) -> Generator[RowBatch]:
        feed = Feed(exchange, items)
        try:
            if feed.fill():
                yield from self._calling.follow(
                    lambda timeout_s: self._augmentation.Augment(feed.requests(), timeout=timeout_s),
                    exchange,
                    feed.fill,
                )
        finally:
            feed.close()

    def _ask_once(self, exchange: SampleExchange) -> list[Chunk]:
        """The first samples, by one message each way; none from a server that knows streams alone."""
        delay_s: float | None = 0.0
        while delay_s is not None:
            self._calling.pause(delay_s)
            try:
                timeout_s = exchange.patience.call_timeout_s()
                return exchange.receive_once(self._sampling.SampleOnce(exchange.begin_once(), timeout=timeout_s))
            except grpc.RpcError as error:
                if cast(grpc.Call, error).code() is grpc.StatusCode.UNIMPLEMENTED:
                    break
                delay_s = exchange.recover(error_of(error, self.server))
        return []

    def _chunks(self, exchange: SampleExchange) -> Iterator[Chunk]:
        return self._calling.follow(
            lambda timeout_s: self._sampling.Sample(exchange.begin(), timeout=timeout_s), exchange
        )
