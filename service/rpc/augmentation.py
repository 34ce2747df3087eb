"""AugmentationService: plans, the rows of plans, and variants of a client's own rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc

from fount.transforms import COLUMNS
from fount.v1 import augmentation_pb2, augmentation_pb2_grpc, model_pb2
from service.augmentation.copy_filter import CopyFilters
from service.augmentation.open_plan import Level, MadeRows, Pinned
from service.augmentation.planner import Planner
from service.augmentation.rows import RowMaker, out_of_bag_rows
from service.augmentation.slots import Source
from service.augmentation.variants import VariantMaker
from service.caller import current_caller
from service.catalog import Catalog
from service.config import GatewayConfig
from service.datasets import Datasets
from service.errors import InvalidRequest, NotReady
from service.rpc.augment_request import VariantsOrder, read_config
from service.rpc.chunks import image_spec, rows_to_responses
from service.rpc.interceptor import current_request_id
from service.rpc.policy import policy_to_proto
from service.rpc.pull_request import Pull, open_pull
from service.scheduler.inference import InferenceClient, RequestContext
from service.telemetry.metrics import Metrics

__all__ = ["AugmentationServicer"]

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[object, object]

_SOURCES = {int(source): source.name.lower() for source in Source}


class AugmentationServicer(augmentation_pb2_grpc.AugmentationServiceServicer):
    """Answers the five RPCs.

    Args:
        planner: makes plans, keeps them, opens their tickets.
        catalog: what is served now.
        datasets: whose safe policies may be asked for.
        inference: classifies, embeds, transforms and samples on workers.
        copies: the copy filters, shared with the planner.
        metrics: counts.
        config: the window of a stream, and the largest request.
    """

    def __init__(
        self,
        *,
        planner: Planner,
        catalog: Catalog,
        datasets: Datasets,
        inference: InferenceClient,
        copies: CopyFilters,
        metrics: Metrics,
        config: GatewayConfig,
    ) -> None:
        self._planner = planner
        self._catalog = catalog
        self._datasets = datasets
        self._inference = inference
        self._metrics = metrics
        self._config = config
        self._rows = RowMaker(inference, copies)

    async def PlanDataset(  # noqa: N802  # gRPC's name
        self, request: augmentation_pb2.PlanDatasetRequest, context: Context
    ) -> augmentation_pb2.PlanDatasetResponse:
        """Turn wishes into slots and a ticket."""
        return augmentation_pb2.PlanDatasetResponse(plan=await self._planner.plan(request, _request_context(context)))

    async def GetPlan(  # noqa: N802  # gRPC's name
        self, request: augmentation_pb2.GetPlanRequest, context: Context
    ) -> augmentation_pb2.GetPlanResponse:
        """Return a plan of the caller's own."""
        plan = await asyncio.to_thread(self._planner.get, request.id, current_caller())  # plans may lie on a disk
        return augmentation_pb2.GetPlanResponse(plan=plan)

    async def ListPlans(  # noqa: N802  # gRPC's name
        self, request: augmentation_pb2.ListPlansRequest, context: Context
    ) -> augmentation_pb2.ListPlansResponse:
        """Return the caller's plans, a page at a time."""
        plans, token = await asyncio.to_thread(
            self._planner.list, current_caller(), request.page_size, request.page_token
        )
        return augmentation_pb2.ListPlansResponse(plans=plans, next_page_token=token)

    async def PullDataset(  # type: ignore[override]  # noqa: N802  # gRPC's name; chunks are framed messages
        self, request: augmentation_pb2.PullDatasetRequest, context: Context
    ) -> AsyncGenerator[augmentation_pb2.PullDatasetResponse | bytes, None]:
        """Stream a header, then the rows of a shard in order."""
        with self._metrics.open_pull("PullDataset"):
            pull = await open_pull(request, self._planner, current_caller())
            header = augmentation_pb2.PullDatasetResponse(header=_pull_header(pull))
            header_sent = False
            try:
                async with aclosing(self._pulled(pull, _request_context(context))) as rows:
                    async for made in rows:
                        if not header_sent:  # only now: whatever refuses the stream refuses it before its header
                            yield header
                            header_sent = True
                        for response in rows_to_responses(made):
                            yield response
                        self._delivered(made)
            except NotReady:
                self._name_what_retired(pull)
                raise
            if not header_sent:
                yield header

    async def Augment(  # type: ignore[override]  # noqa: N802  # gRPC's name; chunks are framed messages
        self, request_iterator: AsyncIterator[augmentation_pb2.AugmentRequest], context: Context
    ) -> AsyncGenerator[augmentation_pb2.AugmentResponse | bytes, None]:
        """Stream a header, then the variants of every row that comes."""
        with self._metrics.open_pull("Augment"):
            requests = aiter(request_iterator)
            order = read_config(
                await anext(requests, None),
                catalog=self._catalog,
                datasets=self._datasets,
                caller=current_caller(),
                max_request_bytes=self._config.max_request_bytes,
            )
            yield augmentation_pb2.AugmentResponse(header=_augment_header(order))
            maker = VariantMaker(order, self._inference, self._config.window_bytes)
            async with aclosing(maker.variants(requests, _request_context(context))) as variants:
                async for made in variants:
                    for response in rows_to_responses(made):
                        yield response
                    self._metrics.delivered_variants(len(made.images))

    def _pulled(self, pull: Pull, request_context: RequestContext) -> AsyncGenerator[MadeRows]:
        if pull.out_of_bag is None:
            return self._rows.rows(pull.plan, pull.start, pull.end, pull.level, request_context)
        return out_of_bag_rows(pull.plan, pull.out_of_bag, pull.start, pull.end, pull.level)

    def _delivered(self, made: MadeRows) -> None:
        counts = {_SOURCES[source]: count for source, count in made.counts.items()}
        self._metrics.delivered_rows(counts, rejected=len(made.rejected), refused=made.refused)

    def _name_what_retired(self, pull: Pull) -> None:
        """Raise Retired when workers are gone for good: another digest, or other numerics, is served in their place."""
        for pinned in _pins(pull):
            key, operation = pinned.target.model, min(pinned.model.operations)  # any it has: the pins are in question
            try:
                entry = self._catalog.find(key.name, key.version, key.digest)
            except InvalidRequest:  # nothing of that name is left, which may pass
                continue
            self._catalog.choose(entry, operation, digest=key.digest, numerics=pinned.target.numerics)


def _request_context(context: Context) -> RequestContext:
    remaining_s = context.time_remaining()
    return RequestContext(
        caller=current_caller(),
        deadline_unix_s=None if remaining_s is None else time.time() + remaining_s,
        request_id=current_request_id(),
        retry_overloaded=False,
    )


def _pins(pull: Pull) -> list[Pinned]:
    """The models rows of the stream depend on."""
    plan = pull.plan
    return [each for each in (plan.generator, plan.classifier, plan.transformer) if each]


def _pull_header(pull: Pull) -> augmentation_pb2.PullHeader:
    plan = pull.plan
    return augmentation_pb2.PullHeader(
        plan_id=plan.id,
        rows=pull.count,
        first_index=pull.shard.start,
        end_index=pull.shard.stop,
        sample_spec=image_spec(plan.split.shape),
        classes=plan.dataset.classes,
        groups=plan.dataset.groups,
        dataset=plan.dataset.name,
        dataset_digest=plan.dataset.digest,
        models=[_pinned_model(each) for each in _pins(pull)],
        transform_columns=COLUMNS if pull.level is Level.FULL else (),
    )


def _pinned_model(pinned: Pinned) -> augmentation_pb2.PinnedModel:
    key = pinned.target.model
    ref = model_pb2.ModelRef(name=key.name, version=key.version, digest=key.digest)
    return augmentation_pb2.PinnedModel(role=pinned.role, model=ref, numerics=pinned.target.numerics)


def _augment_header(order: VariantsOrder) -> augmentation_pb2.AugmentHeader:
    transformer = Pinned(role="transformer", target=order.target, model=order.model)
    return augmentation_pb2.AugmentHeader(
        seed=order.seed,
        variants=order.variants,
        policy=policy_to_proto(order.policy),
        model=_pinned_model(transformer),
        sample_spec=image_spec(order.shape),
        transform_columns=COLUMNS if order.level is Level.FULL else (),
    )
