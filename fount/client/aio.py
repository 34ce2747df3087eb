"""The asyncio client: `fount.client.sync` with async and await.

The methods, their arguments and their errors are those of `fount.client.sync.Client`, which describes them; all
that does no I/O is shared with it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import grpc

from fount.augmentation.augment import AioFeed, AugmentQuery, AugmentStream, Rows, augment_config, items_of
from fount.augmentation.plan import AnyPlan, PlanInfo, plan_info
from fount.augmentation.pull import PullInfo, PullInfoStream, PullQuery, PullStream, pull_request
from fount.augmentation.rows import RowBatch
from fount.client.calls import AioCalls
from fount.client.catalog import DatasetInfo, ModelInfo, dataset_info, model_info
from fount.client.loop_channel import LoopChannel
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
    """A connection to one gateway, used within one event loop at a time; the next loop gets a channel of its own.

    Leaving an `async for` early does not close an async generator at once: use `contextlib.aclosing`, which cancels the
    call.

    Example:
        >>> async with Client() as client:
        ...     sevens = await client.sample("digits-cvae", label=7, count=16, seed=1)
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        timeout_s: float | None = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Prepare a channel, as `fount.client.sync.Client` does; it is opened by the first call in an event loop."""
        self.server = server_target(server, tls=credentials is not None)
        self._channel = LoopChannel(self.server, credentials)
        self._calls = AioCalls(self.server, timeout_s, retry or RetryPolicy(), self._channel)
        channel = self._channel.for_stubs
        self._models = model_pb2_grpc.ModelServiceStub(channel)
        self._sampling = sampling_pb2_grpc.SamplingServiceStub(channel)
        self._datasets = dataset_pb2_grpc.DatasetServiceStub(channel)
        self._augmentation = augmentation_pb2_grpc.AugmentationServiceStub(channel)
        self._evaluations = evaluation_pb2_grpc.EvaluationServiceStub(channel)
        self._latent = latent_pb2_grpc.LatentServiceStub(channel)
        self._scoring = scoring_pb2_grpc.ScoringServiceStub(channel)
        self._translation = translation_pb2_grpc.TranslationServiceStub(channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls in progress are cancelled."""
        await self._channel.close()

    async def sample(self, model: str, **query: Unpack[SampleQuery]) -> Samples:
        """Draw samples into one array."""
        refuse_files(query)
        stream = SampleStream(sample_request(model, query), self._calls.retry_state(), query.get("progress"))
        collector = SampleCollector(stream.count)
        if stream.fits_unary:
            with suppress(UnknownCall):  # a server that only streams
                reply = await self._calls.unary(self._sampling.SampleOnce, stream.begin_once(), stream.retry)
                if (chunk := stream.receive_once(reply)) is not None:
                    collector.add(chunk)
        if not stream.is_complete:
            async with aclosing(self._calls.stream(self._sampling.Sample, stream)) as chunks:
                async for chunk in chunks:
                    collector.add(chunk)
        return collector.finish()

    def stream(self, model: str, **query: Unpack[SampleQuery]) -> AsyncGenerator[Chunk]:
        """Draw samples chunk by chunk, in order, in constant memory."""
        request, retry = sample_request(model, query), self._calls.retry_state(between_messages=True)
        stream = SampleStream(request, retry, query.get("progress"))
        return self._calls.stream(self._sampling.Sample, stream)

    async def models(self) -> list[ModelInfo]:
        """List every version served, by name and then version."""
        request = model_pb2.ListModelsRequest(page_size=1000)
        return [model_info(each) async for each in self._calls.pages(self._models.ListModels, request, "models")]

    async def model(self, model: str, *, digest: str | None = None) -> ModelInfo:
        """Look up one model."""
        request = model_pb2.GetModelRequest(model=model_ref(model, digest))
        return model_info((await self._calls.unary(self._models.GetModel, request)).model)

    async def datasets(self) -> list[DatasetInfo]:
        """List every data set that the gateway can augment, by name."""
        reply = await self._calls.unary(self._datasets.ListDatasets, dataset_pb2.ListDatasetsRequest())
        return [dataset_info(each) for each in reply.datasets]

    async def dataset(self, name: str) -> DatasetInfo:
        """Look up one data set."""
        request = dataset_pb2.GetDatasetRequest(name=name)
        return dataset_info((await self._calls.unary(self._datasets.GetDataset, request)).dataset)

    async def plan(self, spec: AnyPlanSpec) -> PlanInfo:
        """Turn a specification of a data set into exact numbers of rows, and a ticket for pulling them."""
        from fount.augmentation.plan_file import plan_request  # loads pydantic, which nothing else here needs

        return plan_info((await self._calls.unary(self._augmentation.PlanDataset, plan_request(spec))).plan)

    async def get_plan(self, plan_id: str) -> PlanInfo:
        """Look up one of the caller's own plans."""
        request = augmentation_pb2.GetPlanRequest(id=plan_id)
        return plan_info((await self._calls.unary(self._augmentation.GetPlan, request)).plan)

    async def plans(self) -> list[PlanInfo]:
        """List the caller's own plans, newest first, without expired ones."""
        request = augmentation_pb2.ListPlansRequest(page_size=1000)
        return [plan_info(each) async for each in self._calls.pages(self._augmentation.ListPlans, request, "plans")]

    def pull(self, plan: AnyPlan, **query: Unpack[PullQuery]) -> AsyncGenerator[RowBatch]:
        """Pull the rows of a plan, or of one shard of it, in order, in constant memory."""
        stream = PullStream(pull_request(plan, query), self._calls.retry_state(between_messages=True))
        return self._calls.stream(self._augmentation.PullDataset, stream)

    async def pull_info(self, plan: AnyPlan, **query: Unpack[PullQuery]) -> PullInfo:
        """Return what the stream of `pull` with the same arguments consists of, without pulling rows."""
        stream = PullInfoStream(pull_request(plan, query), self._calls.retry_state(between_messages=True))
        async with aclosing(self._calls.stream(self._augmentation.PullDataset, stream)) as infos:
            return await anext(infos)

    def augment(
        self, images: Rows | AsyncIterator[Any], labels: Any = None, **query: Unpack[AugmentQuery]
    ) -> AsyncGenerator[RowBatch]:
        """Send rows, which may come from an async iterator, and receive variants of each, in order."""
        stream = AugmentStream(augment_config(query), self._calls.retry_state(between_messages=True))
        items = items_of(images, labels)
        return self._variants(stream, items if isinstance(items, AsyncIterator) else iter(items))

    async def _variants(
        self, stream: AugmentStream, items: Iterator[Any] | AsyncIterator[Any]
    ) -> AsyncGenerator[RowBatch]:
        feed = AioFeed(stream, items)
        if not await feed.fill():
            return
        async with aclosing(self._calls.stream(self._augmentation.Augment, stream, feed)) as batches:
            async for batch in batches:
                yield batch

    async def encode(self, model: str, rows: RowsLike, **query: Unpack[EncodeQuery]) -> Samples:
        """Return the latents of rows: (N, latent_dim) float32, or with `spread` (N, 2, latent_dim)."""
        return (await self._given(self._latent.Encode, encode_request(model, rows, query))).samples()

    async def decode(self, model: str, latents: RowsLike, **query: Unpack[DecodeQuery]) -> Samples:
        """Return the samples of (N, latent_dim) latents: (N, H, W, C) uint8 or float32, or (N, D) float32."""
        return (await self._given(self._latent.Decode, decode_request(model, latents, query))).samples()

    async def reconstruct(self, model: str, rows: RowsLike, **query: Unpack[ReconstructQuery]) -> Samples:
        """Encode rows and decode their latents: the same as `decode` of `encode`."""
        return (await self._given(self._latent.Reconstruct, reconstruct_request(model, rows, query))).samples()

    async def interpolate(
        self, model: str, first: RowsLike, second: RowsLike, **query: Unpack[InterpolateQuery]
    ) -> Samples:
        """Return lines from rows of `first` to those of `second`: (N, points, ...), whose ends are the rows."""
        return (await self._given(self._latent.Interpolate, interpolate_request(model, first, second, query))).groups()

    async def vary(self, model: str, rows: RowsLike, **query: Unpack[VaryQuery]) -> Samples:
        """Return variants of each row: (N, variants, ...), drawn around its latent, or along a direction."""
        return (await self._given(self._latent.Vary, vary_request(model, rows, query))).groups()

    async def score(self, model: str, rows: RowsLike, **query: Unpack[ScoreQuery]) -> Scores:
        """Return log p(x) of each row, or log p(x|y) with labels, or bounds or estimates: (N, columns) float32."""
        return (await self._given(self._scoring.Score, score_request(model, rows, query))).scores()

    async def classify(self, model: str, rows: RowsLike, **query: Unpack[ClassifyQuery]) -> Probabilities:
        """Return p(y|x) of each row: (N, classes) float32."""
        return (await self._given(self._scoring.Classify, classify_request(model, rows, query))).probabilities()

    async def translate(self, model: str, images: RowsLike, **query: Unpack[TranslateQuery]) -> Samples:
        """Return the image that the model makes of each one: (N, H, W, C) uint8 or float32."""
        return (await self._given(self._translation.Translate, translate_request(model, images, query))).samples()

    async def _given(self, call: Any, given: GivenRequest) -> GivenStream:
        stream = GivenStream(given, self._calls.retry_state(between_messages=True))
        async with aclosing(self._calls.stream(call, stream)) as chunks:
            async for _ in chunks:
                pass  # the stream keeps its results
        return stream

    async def evaluate(self, model: str, **query: Unpack[EvaluationQuery]) -> EvaluationInfo:
        """Create an evaluation, which outlives this client."""
        request = evaluation_request(model, query)
        return evaluation_info((await self._calls.unary(self._evaluations.CreateEvaluation, request)).evaluation)

    async def evaluation(self, id: str) -> EvaluationInfo:
        """Look up one of the caller's own evaluations."""
        request = evaluation_pb2.GetEvaluationRequest(id=id)
        return evaluation_info((await self._calls.unary(self._evaluations.GetEvaluation, request)).evaluation)

    async def evaluations(self, states: Iterable[State] = (), model: str | None = None) -> list[EvaluationInfo]:
        """List the caller's own evaluations, newest first, without their metrics."""
        pages = self._calls.pages(self._evaluations.ListEvaluations, list_request(states, model), "evaluations")
        return [evaluation_info(each) async for each in pages]

    def watch_evaluation(self, id: str) -> AsyncGenerator[EvaluationInfo]:
        """Yield the evaluation whenever it changes, and every few seconds, until it has ended."""
        watch = EvaluationWatch(id, self._calls.retry_state(between_messages=True))
        return self._calls.stream(self._evaluations.WatchEvaluation, watch)

    async def cancel_evaluation(self, id: str) -> EvaluationInfo:
        """Cancel an evaluation that is queued or running."""
        request = evaluation_pb2.CancelEvaluationRequest(id=id)
        return evaluation_info((await self._calls.unary(self._evaluations.CancelEvaluation, request)).evaluation)

    async def delete_evaluation(self, id: str) -> None:
        """Delete an evaluation with its report, and cancel it first where needed."""
        await self._calls.unary(self._evaluations.DeleteEvaluation, evaluation_pb2.DeleteEvaluationRequest(id=id))

    async def evaluation_report(self, id: str, format: Format = "html") -> EvaluationReport:
        """Download the report of an evaluation that succeeded, as one file."""
        download = ReportDownload(report_request(id, format), self._calls.retry_state(between_messages=True))
        async with aclosing(self._calls.stream(self._evaluations.GetEvaluationReport, download)) as reports:
            return [report async for report in reports][-1]  # one that is not completed has raised
