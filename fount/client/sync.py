"""The synchronous client: samples as arrays, model cards, plans and evaluations as values, errors with a remedy.

Every method builds a request, sends it and decodes the reply. Requests, checks, resuming and retries are shared with
`fount.client.aio`; `fount.client.calls` sends and waits.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import grpc

from fount.augmentation.augment import AugmentQuery, AugmentStream, Feed, Rows, augment_config, items_of
from fount.augmentation.plan import AnyPlan, PlanInfo, plan_info
from fount.augmentation.pull import PullInfo, PullInfoStream, PullQuery, PullStream, pull_request
from fount.augmentation.rows import RowBatch
from fount.client.calls import Calls
from fount.client.catalog import DatasetInfo, ModelInfo, dataset_info, model_info
from fount.client.channel import options_for
from fount.client.target import server_target
from fount.errors import UnknownCall
from fount.evaluation.request import EvaluationQuery, Format, State, evaluation_request, list_request, report_request
from fount.evaluation.stream import EvaluationWatch, ReportDownload
from fount.evaluation.types import EvaluationInfo, EvaluationReport, evaluation_info
from fount.latent.request import (
    ClassifyQuery,
    DecodeQuery,
    EncodeQuery,
    GivenRequest,
    InterpolateQuery,
    ReconstructQuery,
    ScoreQuery,
    TranslateQuery,
    VaryQuery,
    classify_request,
    decode_request,
    encode_request,
    interpolate_request,
    reconstruct_request,
    score_request,
    translate_request,
    vary_request,
)
from fount.latent.stream import GivenStream
from fount.latent.types import Probabilities, Scores
from fount.retry import RetryPolicy
from fount.sampling.request import SampleQuery, model_ref, refuse_files, sample_request
from fount.sampling.rows import RowsLike
from fount.sampling.stream import SampleStream
from fount.sampling.types import Chunk, SampleCollector, Samples
from fount.v1 import (
    augmentation_pb2,
    augmentation_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
    evaluation_pb2,
    evaluation_pb2_grpc,
    latent_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    sampling_pb2_grpc,
    scoring_pb2_grpc,
    translation_pb2_grpc,
)

if TYPE_CHECKING:
    from fount.augmentation.plan_file import AnyPlanSpec

__all__ = ["Client"]


class Client:
    """A connection to one gateway; safe to share between threads, not with a forked process.

    Every call raises `FountError` when no reply is received; its class says what to do about it. An argument of a type
    it cannot have raises `TypeError`, and a value that is wrong for every server `InvalidRequest`, before anything is
    sent.

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
            server: "host:port", as `fount.client.target.server_target` reads it; None: the environment variable
                FOUNT_SERVER, or 127.0.0.1:50051.
            timeout_s: seconds for a whole call; for streams, between two messages. None: no limit.
            credentials: for TLS; None: the channel is not encrypted.
            retry: when calls to an unavailable server are repeated.
        """
        self.server = server_target(server, tls=credentials is not None)
        self._channel = (
            grpc.insecure_channel(self.server, options_for(self.server))
            if credentials is None
            else grpc.secure_channel(self.server, credentials, options_for(self.server))
        )
        self._calls = Calls(self.server, timeout_s, retry or RetryPolicy(), self._channel)
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)
        self._sampling = sampling_pb2_grpc.SamplingServiceStub(self._channel)
        self._datasets = dataset_pb2_grpc.DatasetServiceStub(self._channel)
        self._augmentation = augmentation_pb2_grpc.AugmentationServiceStub(self._channel)
        self._evaluations = evaluation_pb2_grpc.EvaluationServiceStub(self._channel)
        self._latent = latent_pb2_grpc.LatentServiceStub(self._channel)
        self._scoring = scoring_pb2_grpc.ScoringServiceStub(self._channel)
        self._translation = translation_pb2_grpc.TranslationServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel, from any thread; calls in progress, and waits between two attempts, end with Cancelled."""
        self._calls.close()
        self._channel.close()

    # Four methods take the same arguments, so they are one TypedDict rather than sixteen parameters written four times.
    def sample(self, model: str, **query: Unpack[SampleQuery]) -> Samples:
        """Draw samples into one array.

        Args:
            model: "name", "name:version", or both with "@" and the digest, as replies name it.
            **query: what to draw; see `fount.sampling.request.SampleQuery`.

        Returns:
            (N, H, W, C) uint8 or float32 with labels, seed, model and numerics.

        Raises:
            SampleFailed: some samples failed.
        """
        refuse_files(query)
        stream = SampleStream(sample_request(model, query), self._calls.retry_state(), query.get("progress"))
        collector = SampleCollector(stream.count)
        if stream.fits_unary:
            with suppress(UnknownCall):  # a server that only streams
                reply = self._calls.unary(self._sampling.SampleOnce, stream.begin_once(), stream.retry)
                if (chunk := stream.receive_once(reply)) is not None:
                    collector.add(chunk)
        if not stream.is_complete:
            for chunk in self._calls.stream(self._sampling.Sample, stream):
                collector.add(chunk)
        return collector.finish()

    def stream(self, model: str, **query: Unpack[SampleQuery]) -> Iterator[Chunk]:
        """Draw samples chunk by chunk, in order, in constant memory; a broken stream is resumed.

        Arguments are as in `sample`. Closing the iterator cancels the call. With encoding "png", chunks hold `files`
        instead of an array. Samples that failed are in a chunk's `errors`.
        """
        request, retry = sample_request(model, query), self._calls.retry_state(between_messages=True)
        stream = SampleStream(request, retry, query.get("progress"))
        return self._calls.stream(self._sampling.Sample, stream)

    def models(self) -> list[ModelInfo]:
        """List every version served, by name and then version."""
        request = model_pb2.ListModelsRequest(page_size=1000)
        return [model_info(each) for each in self._calls.pages(self._models.ListModels, request, "models")]

    def model(self, model: str, *, digest: str | None = None) -> ModelInfo:
        """Look up one model, named as in `sample`."""
        request = model_pb2.GetModelRequest(model=model_ref(model, digest))
        return model_info(self._calls.unary(self._models.GetModel, request).model)

    def datasets(self) -> list[DatasetInfo]:
        """List every data set that the gateway can augment, by name."""
        reply = self._calls.unary(self._datasets.ListDatasets, dataset_pb2.ListDatasetsRequest())
        return [dataset_info(each) for each in reply.datasets]

    def dataset(self, name: str) -> DatasetInfo:
        """Look up one data set.

        Raises:
            NotFound: there is none of the name.
            FailedPrecondition: its files cannot be read.
        """
        request = dataset_pb2.GetDatasetRequest(name=name)
        return dataset_info(self._calls.unary(self._datasets.GetDataset, request).dataset)

    def plan(self, spec: AnyPlanSpec) -> PlanInfo:
        """Turn a specification of a data set into exact numbers of rows, and a ticket for pulling them.

        Args:
            spec: what `fount.augmentation.plan_file.load_plan_file` returns, a mapping as in a plan file, or the
                request itself.

        Raises:
            InvalidRequest: keys or values are wrong; every one is named.
            FailedPrecondition: the policy changes labels, or the data set cannot be read.
        """
        from fount.augmentation.plan_file import plan_request  # loads pydantic, which nothing else here needs

        return plan_info(self._calls.unary(self._augmentation.PlanDataset, plan_request(spec)).plan)

    def get_plan(self, plan_id: str) -> PlanInfo:
        """Look up one of the caller's own plans.

        Raises:
            NotFound: it is unknown, expired, or another caller's.
        """
        request = augmentation_pb2.GetPlanRequest(id=plan_id)
        return plan_info(self._calls.unary(self._augmentation.GetPlan, request).plan)

    def plans(self) -> list[PlanInfo]:
        """List the caller's own plans, newest first, without expired ones."""
        request = augmentation_pb2.ListPlansRequest(page_size=1000)
        return [plan_info(each) for each in self._calls.pages(self._augmentation.ListPlans, request, "plans")]

    def pull(self, plan: AnyPlan, **query: Unpack[PullQuery]) -> Generator[RowBatch]:
        """Pull the rows of a plan, or of one shard of it, in order, in constant memory; a broken stream is resumed.

        Closing the iterator cancels the call. Slots for which no sample was accepted are in the batches, marked.

        Args:
            plan: a plan, or its ticket.
            **query: which rows, with how much provenance; see `fount.augmentation.pull.PullQuery`.
        """
        stream = PullStream(pull_request(plan, query), self._calls.retry_state(between_messages=True))
        return self._calls.stream(self._augmentation.PullDataset, stream)

    def pull_info(self, plan: AnyPlan, **query: Unpack[PullQuery]) -> PullInfo:
        """Return what the stream of `pull` with the same arguments consists of, without pulling rows."""
        stream = PullInfoStream(pull_request(plan, query), self._calls.retry_state(between_messages=True))
        with closing(self._calls.stream(self._augmentation.PullDataset, stream)) as infos:
            return next(infos)

    def augment(self, images: Rows, labels: Any = None, **query: Unpack[AugmentQuery]) -> Generator[RowBatch]:
        """Send rows and receive variants of each, in order; nothing is stored, and a broken stream is resumed.

        Rows are read from an iterable as their variants are read, never far ahead. Variant v of row i has the index
        i · variants + v, and the source row i.

        Args:
            images: (N, H, W, C) or (N, H, W) uint8; or an iterable of such arrays, or of pairs of such and labels.
            labels: (N,) class ids of one array of images, returned with the variants.
            **query: how rows are transformed; see `fount.augmentation.augment.AugmentQuery`.
        """
        stream = AugmentStream(augment_config(query), self._calls.retry_state(between_messages=True))
        return self._variants(stream, iter(items_of(images, labels)))

    def _variants(self, stream: AugmentStream, items: Iterator[Any]) -> Generator[RowBatch]:
        with closing(Feed(stream, items)) as feed:
            if feed.fill():
                yield from self._calls.stream(self._augmentation.Augment, stream, feed)

    def encode(self, model: str, rows: RowsLike, **query: Unpack[EncodeQuery]) -> Samples:
        """Return the latents of rows: (N, latent_dim) float32, or with `spread` (N, 2, latent_dim).

        This and the next six methods send rows in messages as the server reads them, resume a broken stream, and raise
        `SampleFailed` for rows that failed; the time limits the wait for each message.

        Args:
            model: as in `sample`.
            rows: pictures or vectors of the model's own shape; see `fount.sampling.rows.RowsLike`.
            **query: see `fount.latent.request.EncodeQuery`; so for the other methods.
        """
        return self._given(self._latent.Encode, encode_request(model, rows, query)).samples()

    def decode(self, model: str, latents: RowsLike, **query: Unpack[DecodeQuery]) -> Samples:
        """Return the samples of (N, latent_dim) latents: (N, H, W, C) uint8 or float32, or (N, D) float32."""
        return self._given(self._latent.Decode, decode_request(model, latents, query)).samples()

    def reconstruct(self, model: str, rows: RowsLike, **query: Unpack[ReconstructQuery]) -> Samples:
        """Encode rows and decode their latents: the same as `decode` of `encode`."""
        return self._given(self._latent.Reconstruct, reconstruct_request(model, rows, query)).samples()

    def interpolate(self, model: str, first: RowsLike, second: RowsLike, **query: Unpack[InterpolateQuery]) -> Samples:
        """Return lines from rows of `first` to those of `second`: (N, points, ...), whose ends are the rows."""
        return self._given(self._latent.Interpolate, interpolate_request(model, first, second, query)).groups()

    def vary(self, model: str, rows: RowsLike, **query: Unpack[VaryQuery]) -> Samples:
        """Return variants of each row: (N, variants, ...), drawn around its latent, or along a direction."""
        return self._given(self._latent.Vary, vary_request(model, rows, query)).groups()

    def score(self, model: str, rows: RowsLike, **query: Unpack[ScoreQuery]) -> Scores:
        """Return log p(x) of each row, or log p(x|y) with labels, or bounds or estimates: (N, columns) float32."""
        return self._given(self._scoring.Score, score_request(model, rows, query)).scores()

    def classify(self, model: str, rows: RowsLike, **query: Unpack[ClassifyQuery]) -> Probabilities:
        """Return p(y|x) of each row: (N, classes) float32."""
        return self._given(self._scoring.Classify, classify_request(model, rows, query)).probabilities()

    def translate(self, model: str, images: RowsLike, **query: Unpack[TranslateQuery]) -> Samples:
        """Return the image that the model makes of each one: (N, H, W, C) uint8 or float32."""
        return self._given(self._translation.Translate, translate_request(model, images, query)).samples()

    def _given(self, call: Any, given: GivenRequest) -> GivenStream:
        stream = GivenStream(given, self._calls.retry_state(between_messages=True))
        for _ in self._calls.stream(call, stream):
            pass  # the stream keeps its results
        return stream

    # Both clients take the same arguments, so they are one TypedDict rather than fourteen parameters written twice.
    def evaluate(self, model: str, **query: Unpack[EvaluationQuery]) -> EvaluationInfo:
        """Create an evaluation, which outlives this client; `watch_evaluation` reports its progress.

        Args:
            model: as in `sample`.
            **query: the reference and the settings; see `fount.evaluation.request.EvaluationQuery`. With the
                `request_id` of an earlier call and the same arguments, the earlier evaluation is returned.

        Raises:
            InvalidRequest: a value is wrong; every one is named.
            NotFound: the model, data set or a split is unknown.
            FailedPrecondition: the reference has another shape, or a model lacks the operation.
            Overloaded: the queue is full.
        """
        request = evaluation_request(model, query)
        return evaluation_info(self._calls.unary(self._evaluations.CreateEvaluation, request).evaluation)

    def evaluation(self, id: str) -> EvaluationInfo:
        """Look up one of the caller's own evaluations.

        Raises:
            NotFound: it is unknown, expired, deleted, or another caller's.
        """
        request = evaluation_pb2.GetEvaluationRequest(id=id)
        return evaluation_info(self._calls.unary(self._evaluations.GetEvaluation, request).evaluation)

    def evaluations(self, states: Iterable[State] = (), model: str | None = None) -> list[EvaluationInfo]:
        """List your own evaluations, newest first, without their metrics: in some states, of one model; unset: all."""
        pages = self._calls.pages(self._evaluations.ListEvaluations, list_request(states, model), "evaluations")
        return [evaluation_info(each) for each in pages]

    def watch_evaluation(self, id: str) -> Generator[EvaluationInfo]:
        """Yield the evaluation whenever it changes, and every few seconds, until it has ended.

        The last value yielded is the final state. A broken stream is opened again. Closing the iterator ends the watch,
        and not the evaluation.
        """
        watch = EvaluationWatch(id, self._calls.retry_state(between_messages=True))
        return self._calls.stream(self._evaluations.WatchEvaluation, watch)

    def cancel_evaluation(self, id: str) -> EvaluationInfo:
        """Cancel an evaluation that is queued or running; one that has ended stays as it is."""
        request = evaluation_pb2.CancelEvaluationRequest(id=id)
        return evaluation_info(self._calls.unary(self._evaluations.CancelEvaluation, request).evaluation)

    def delete_evaluation(self, id: str) -> None:
        """Delete an evaluation with its report, and cancel it first where needed.

        Raises:
            NotFound: as in `evaluation`; also when an earlier attempt of this call deleted it, and its reply was lost.
        """
        self._calls.unary(self._evaluations.DeleteEvaluation, evaluation_pb2.DeleteEvaluationRequest(id=id))

    def evaluation_report(self, id: str, format: Format = "html") -> EvaluationReport:
        """Download the report of an evaluation as a file: "html", one page that opens offline, or "json", all it shows.

        Raises:
            FailedPrecondition: the evaluation has not succeeded.
        """
        download = ReportDownload(report_request(id, format), self._calls.retry_state(between_messages=True))
        *_, report = self._calls.stream(self._evaluations.GetEvaluationReport, download)
        return report
