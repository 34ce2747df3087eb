"""AugmentationService: plans, the rows of plans, and variants of a client's own rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc

from fount.transforms import COLUMNS
from fount.v1 import augmentation_pb2, augmentation_pb2_grpc
from service.augmentation.copy_filter import PixelCache
from service.augmentation.rows import MadeRows, ProvenanceLevel, RowMaker, out_of_bag_rows
from service.augmentation.variants import VariantMaker, VariantSpec
from service.caller import current_caller
from service.catalog import Catalog
from service.config import GatewayConfig
from service.datasets import Datasets
from service.errors import InvalidRequest, NotReady, UnknownName, Violation
from service.rpc.augment_request import AugmentRequests
from service.rpc.chunks import image_spec, rows_to_responses
from service.rpc.fields import Violations, policy_to_proto, raise_violations
from service.rpc.interceptor import request_context
from service.rpc.loading import read_when_loaded
from service.rpc.paging import read_page_size
from service.rpc.plan_store import PlanStore, page_of_plans
from service.rpc.plans import PlanIssuer, pin_to_message
from service.rpc.pull_request import Pull, open_pull
from service.scheduler.inference import InferenceClient
from service.telemetry.metrics import Metrics

__all__ = ["AugmentationServicer"]

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[object, object]


class AugmentationServicer(augmentation_pb2_grpc.AugmentationServiceServicer):
    """Answers the five RPCs; shares its cache with the planner of `issuer`."""

    def __init__(
        self,
        *,
        issuer: PlanIssuer,
        plans: PlanStore,
        catalog: Catalog,
        datasets: Datasets,
        inference: InferenceClient,
        cache: PixelCache,
        metrics: Metrics,
        config: GatewayConfig,
    ) -> None:
        self._issuer, self._plans = issuer, plans
        self._catalog = catalog
        self._inference = inference
        self._metrics = metrics
        self._window_bytes = config.window_bytes
        self._augment_requests = AugmentRequests(datasets, catalog, config.max_request_bytes)
        self._rows = RowMaker(inference, cache)

    async def PlanDataset(  # noqa: N802  # gRPC's name
        self, request: augmentation_pb2.PlanDatasetRequest, context: Context
    ) -> augmentation_pb2.PlanDatasetResponse:
        """Make a plan and keep it for its caller."""
        on_behalf = request_context(context)
        plan = await read_when_loaded(lambda: self._issuer.plan(request, on_behalf), self._catalog, context)
        await asyncio.to_thread(self._plans.put, current_caller().subject, plan)
        return augmentation_pb2.PlanDatasetResponse(plan=plan)

    async def GetPlan(  # noqa: N802  # gRPC's name
        self, request: augmentation_pb2.GetPlanRequest, context: Context
    ) -> augmentation_pb2.GetPlanResponse:
        """Return a plan of the caller."""
        if not request.id:
            raise InvalidRequest(
                (Violation(field="id", description="name a plan; `fount plan --list` (ListPlans) lists them"),)
            )
        plan = await asyncio.to_thread(self._plans.get, current_caller().subject, request.id)
        if plan is None:
            problem = (
                f"you have no plan {request.id[:80]!r}, or it has expired; `fount plan --list` (ListPlans) lists yours"
            )
            raise UnknownName((Violation(field="id", description=problem, unknown=True),))
        return augmentation_pb2.GetPlanResponse(plan=plan)

    async def ListPlans(  # noqa: N802  # gRPC's name
        self, request: augmentation_pb2.ListPlansRequest, context: Context
    ) -> augmentation_pb2.ListPlansResponse:
        """Return one page of the caller's plans, newest first."""
        wrong = Violations()
        size = read_page_size(request.page_size, wrong)
        plans = await asyncio.to_thread(self._plans.plans_of, current_caller().subject)
        try:
            page, token = page_of_plans(plans, size, request.page_token)
        except ValueError as error:
            wrong.add("page_token", str(error))
        raise_violations(wrong)
        return augmentation_pb2.ListPlansResponse(plans=page, next_page_token=token)

    async def PullDataset(  # type: ignore[override]  # noqa: N802  # gRPC's name; chunks are framed messages
        self, request: augmentation_pb2.PullDatasetRequest, context: Context
    ) -> AsyncGenerator[augmentation_pb2.PullDatasetResponse | bytes, None]:
        """Stream a header, then the rows of a shard in order."""
        with self._metrics.open_pull("PullDataset"):
            caller = current_caller()
            pull = await read_when_loaded(lambda: open_pull(request, self._issuer, caller), self._catalog, context)
            header = augmentation_pb2.PullDatasetResponse(header=_pull_header(pull))
            header_sent = False
            try:
                if pull.out_of_bag is None:
                    pulled = self._rows.rows(pull.plan, pull.start, pull.end, pull.level, request_context(context))
                else:
                    pulled = out_of_bag_rows(pull.plan, pull.out_of_bag, pull.start, pull.end, pull.level)
                async with aclosing(pulled) as rows:
                    async for made in rows:
                        if not header_sent:  # only now: whatever refuses the stream refuses it before its header
                            yield header
                            header_sent = True
                        for response in rows_to_responses(made):
                            yield response
                        self._count(made)
            except NotReady:
                self._raise_retired(pull)
                raise
            if not header_sent:
                yield header

    async def Augment(  # type: ignore[override]  # noqa: N802  # gRPC's name; chunks are framed messages
        self, request_iterator: AsyncIterator[augmentation_pb2.AugmentRequest], context: Context
    ) -> AsyncGenerator[augmentation_pb2.AugmentResponse | bytes, None]:
        """Stream a header, then the variants of every row that arrives."""
        with self._metrics.open_pull("Augment"):
            requests, caller = aiter(request_iterator), current_caller()
            first = await anext(requests, None)
            spec = await read_when_loaded(
                lambda: self._augment_requests.read_config(first, caller), self._catalog, context
            )
            yield augmentation_pb2.AugmentResponse(header=_augment_header(spec))
            received = self._augment_requests.read_rows(requests, spec)
            maker = VariantMaker(spec, self._inference, self._window_bytes)
            async with aclosing(maker.variants(received, request_context(context))) as variants:
                async for made in variants:
                    for response in rows_to_responses(made):
                        yield response
                    self._metrics.delivered_variants(len(made.images))

    def _count(self, made: MadeRows) -> None:
        counts = {source.name.lower(): count for source, count in made.source_counts.items()}
        self._metrics.delivered_rows(counts, rejected=len(made.rejected), refused=made.rejected_samples)

    def _raise_retired(self, pull: Pull) -> None:
        """Raise Retired when workers are gone for good: another digest, or other numerics, is served instead."""
        for pinned in pull.plan.models:
            key, operation = pinned.target.model, min(pinned.model.operations)  # any it has: only pins are in question
            try:
                entry = self._catalog.find(key.name, key.version, key.digest)
            except InvalidRequest:  # no model of that name is served, which may be temporary
                continue
            self._catalog.choose(entry, operation, digest=key.digest, numerics=pinned.target.numerics)


def _pull_header(pull: Pull) -> augmentation_pb2.PullHeader:
    plan = pull.plan
    return augmentation_pb2.PullHeader(
        plan_id=plan.id,
        rows=pull.count,
        first_index=pull.shard.start,
        end_index=pull.shard.stop,
        sample_spec=image_spec(plan.spec.split.shape),
        classes=plan.spec.dataset.classes,
        groups=plan.spec.dataset.groups,
        dataset=plan.spec.dataset.name,
        dataset_digest=plan.spec.dataset.digest,
        models=[pin_to_message(each) for each in plan.models],
        transform_columns=COLUMNS if pull.level is ProvenanceLevel.FULL else (),
    )


def _augment_header(spec: VariantSpec) -> augmentation_pb2.AugmentHeader:
    return augmentation_pb2.AugmentHeader(
        seed=spec.seed,
        variants=spec.variants,
        policy=policy_to_proto(spec.policy),
        model=pin_to_message(spec.transformer),
        sample_spec=image_spec(spec.shape),
        transform_columns=COLUMNS if spec.level is ProvenanceLevel.FULL else (),
    )
