"""Plans: made from wishes, kept for their callers, and opened from their tickets.

A request enters; exact slots are counted, the policy is verified, the generator tried, and a `Plan` leaves with a
ticket. A ticket enters, on this gateway or another with the key; an `OpenPlan` leaves that rows are made from. Reading
data, counting and comparing happen in threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from fount.readers import Dataset
from fount.ticket.v1 import ticket_pb2
from fount.v1 import augmentation_pb2
from service.augmentation.build import calibrate_copies, count, lay_out, open_wishes
from service.augmentation.copy_filter import CopyFilters
from service.augmentation.estimate import Trial, class_weights, pull_seconds, try_generator, warnings_of
from service.augmentation.open_plan import OpenPlan, Pinned
from service.augmentation.plan_store import Plans, page
from service.augmentation.slots import Layout
from service.augmentation.targets import Filling
from service.augmentation.tickets import LAYOUT_VERSION, MAX_TICKET_BYTES, TicketKeys, open_ticket, sign
from service.augmentation.verification import Verification
from service.caller import Caller
from service.catalog import Catalog
from service.datasets import Datasets
from service.errors import InvalidRequest, Retired, UnknownName, Violation
from service.rpc.plan_message import plan_id, resolve, to_pinned_model
from service.rpc.plan_request import Wishes, WishReader, choose_split
from service.scheduler.inference import InferenceClient, RequestContext

__all__ = ["OpenPlan", "Pinned", "Planner"]

_log = logging.getLogger(__name__)

_LAYOUTS_KEPT = 16
_CALIBRATIONS = 1  # at once: each takes all processors for seconds where the data set is large
_PAGE_SIZE, _PAGE_SIZE_MAX = 100, 1000

Plan = augmentation_pb2.Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measured:
    """What workers told about a plan before it was granted."""

    agreement: augmentation_pb2.LabelAgreement | None
    not_verified: str
    trial: Trial | None


class Planner:
    """Makes plans and opens tickets.

    Args:
        datasets: the catalogue of data sets.
        catalog: the models served.
        inference: classifies, embeds, transforms and samples on workers.
        copies: the copy filters, shared by all pulls.
        keys: sign tickets and verify them.
        plans: where plans are kept.
    """

    def __init__(
        self,
        *,
        datasets: Datasets,
        catalog: Catalog,
        inference: InferenceClient,
        copies: CopyFilters,
        keys: TicketKeys,
        plans: Plans,
    ) -> None:
        self._datasets, self._catalog, self._inference = datasets, catalog, inference
        self._copies, self._keys, self._plans = copies, keys, plans
        self._has_warned = False
        self._heavy = asyncio.Semaphore(_CALIBRATIONS)
        self._layouts: OrderedDict[str, Layout] = OrderedDict()  # of tickets opened last

    async def plan(self, request: augmentation_pb2.PlanDatasetRequest, context: RequestContext) -> Plan:
        """Make a plan for a caller.

        Raises:
            InvalidRequest: fields are wrong; names every one. UnknownName when names alone are.
            NotPermitted: no grant for the data set or the generator.
            DatasetUnreadable: a file of the data set is broken.
            PlanRefused: the policy changes labels, or a model does not fit the images.
            Retired: a digest or operation is not served. Also whatever `InferenceClient` raises.
        """
        dataset = await self._open_dataset(request.dataset, context.caller)
        if request.mix.synthesised and request.synthesis.model.name:
            context.caller.require(f"sample:{request.synthesis.model.name}")
        reader, wishes, filling = await self._read(request, dataset, None)
        reader.check(wishes, filling)
        if wishes is None:  # `check` has raised: without wishes something is wrong
            raise InvalidRequest((Violation(field="", description="cannot be planned"),))
        threshold = await self._calibrate(wishes, filling)
        resolved = resolve(request, wishes)
        plan = open_wishes(wishes, filling, await asyncio.to_thread(lay_out, wishes, filling), threshold, identity="")
        models = [to_pinned_model(each) for each in (plan.generator, plan.classifier, plan.transformer) if each]
        identity = plan_id(resolved, dataset.digest, models)
        measured = await self._measure(plan, wishes, context)
        told = _tell(plan, wishes, filling, measured)
        told.id, told.dataset_digest = identity, dataset.digest
        told.request.CopyFrom(resolved)
        told.models.extend(models)
        told.estimated_time.FromNanoseconds(round(pull_seconds(plan, measured.trial, self._catalog) * 1e9))
        self._sign(told, context.caller, wishes.time_to_live_s)
        await asyncio.to_thread(self._plans.put, context.caller.subject, told)
        return told

    def get(self, plan_id: str, caller: Caller) -> Plan:
        """A caller's own plan.

        Raises:
            InvalidRequest: no id.
            UnknownName: there is none of the id, it has expired, or it is someone else's.
        """
        if not plan_id:
            raise InvalidRequest((Violation(field="id", description="name a plan; ListPlans lists them"),))
        plan = self._plans.get(caller.subject, plan_id)
        if plan is None:
            told = f"you have no plan {plan_id[:80]!r}, or it has expired; ListPlans lists yours"
            raise UnknownName((Violation(field="id", description=told, unknown=True),))
        return plan

    def list(self, caller: Caller, page_size: int, page_token: str) -> tuple[list[Plan], str]:
        """One page of a caller's plans, newest first, and the token of the next; empty at the end.

        Raises:
            InvalidRequest: the size is negative, or the token is not one of these.
        """
        wrong = []
        if page_size < 0:
            wrong.append(Violation(field="page_size", description=f"must not be negative, got {page_size}"))
        plans: list[Plan] = []
        token = ""
        try:
            size = min(max(page_size, 0) or _PAGE_SIZE, _PAGE_SIZE_MAX)
            plans, token = page(self._plans.list(caller.subject), size, page_token)
        except ValueError as error:
            wrong.append(Violation(field="page_token", description=str(error)))
        if wrong:
            raise InvalidRequest(tuple(wrong))
        return plans, token

    async def open(self, ticket: bytes, caller: Caller) -> OpenPlan:
        """Open a ticket.

        Raises:
            TicketInvalid: it is none, was changed, has expired, or is of an unknown key.
            NotPermitted: it is another caller's, or a grant is gone.
            Retired: the data set, a digest or numerics is not served any more.
            NotReady: a model has no ready worker now.
            DatasetUnreadable: a file of the data set is broken.
        """
        payload = open_ticket(ticket, self._keys, caller.subject)
        pinned = {each.role: each for each in payload.models}
        if "generator" in pinned:
            caller.require(f"sample:{pinned['generator'].model.name}")
        try:
            dataset = await self._open_dataset(payload.request.dataset, caller)
            if dataset.digest != payload.dataset_digest:
                raise Retired(
                    f"data set {dataset.name} with digest {payload.dataset_digest} is not served; "
                    f"{dataset.digest} is; plan again"
                )
            return await self._rebuild(payload, dataset, pinned)
        except InvalidRequest as error:
            raise Retired(f"what the ticket was made from is not served any more; plan again: {error}") from error

    async def _rebuild(
        self,
        payload: ticket_pb2.TicketPayload,
        dataset: Dataset,
        pinned: dict[str, augmentation_pb2.PinnedModel],
    ) -> OpenPlan:
        reader, wishes, filling = await self._read(payload.request, dataset, pinned)
        reader.check(wishes, filling)
        if wishes is None:
            raise Retired("the ticket was made by another release; plan again")
        layout = self._layouts.get(payload.plan_id)
        if layout is None:
            layout = await asyncio.to_thread(lay_out, wishes, filling)
        self._layouts[payload.plan_id] = layout
        self._layouts.move_to_end(payload.plan_id)
        while len(self._layouts) > _LAYOUTS_KEPT:
            self._layouts.popitem(last=False)
        return open_wishes(wishes, filling, layout, payload.copy_threshold, identity=payload.plan_id)

    async def _open_dataset(self, name: str, caller: Caller) -> Dataset:
        if not name:
            problem = "name a data set; ListDatasets lists them"
            raise InvalidRequest((Violation(field="dataset", description=problem),))
        caller.require(f"dataset:{name}")
        return await self._datasets.open(name)

    async def _read(
        self,
        request: augmentation_pb2.PlanDatasetRequest,
        dataset: Dataset,
        pinned: dict[str, augmentation_pb2.PinnedModel] | None,
    ) -> tuple[WishReader, Wishes | None, Filling]:
        split = choose_split(request, dataset)
        settings = self._datasets.settings(dataset.name)
        reader = WishReader(
            request,
            dataset=dataset,
            split=split,
            cells=await asyncio.to_thread(count, dataset, split),
            default_classifier=settings.classifier,
            default_policy=settings.policy,
            catalog=self._catalog,
            pinned=pinned,
        )
        wishes = reader.read()
        filling = await asyncio.to_thread(wishes.fill) if wishes else Filling()
        return reader, wishes, filling

    async def _calibrate(self, wishes: Wishes, filling: Filling) -> float:
        """Calibrate the copy filter; its thread cannot be stopped, so the turn lasts as long, whoever leaves."""
        if not (wishes.synthesis and wishes.synthesis.copy_quantile):
            return 0.0  # nothing heavy, and nothing to wait for
        await self._heavy.acquire()
        work = asyncio.ensure_future(calibrate_copies(wishes, filling))
        work.add_done_callback(self._calibrated)
        return await asyncio.shield(work)

    def _calibrated(self, work: asyncio.Future[float]) -> None:
        self._heavy.release()
        if not work.cancelled():
            work.exception()  # whoever waited may have left

    async def _measure(self, plan: OpenPlan, wishes: Wishes, context: RequestContext) -> _Measured:
        agreement, not_verified, trial = None, "", None
        if plan.transformer:
            if wishes.verification.verifier:
                agreement = await Verification(plan, wishes.verification, self._inference, context).agreement()
                name = wishes.verification.verifier.model.key.name
                not_verified = "" if agreement else f"{name} reads no row of {plan.dataset.name} as its label"
            else:
                not_verified = f"no classifier of {plan.dataset.name} is served to check what transforms do to labels"
        if plan.generator:
            trial = await try_generator(plan, self._copies, self._inference, context)
        return _Measured(agreement=agreement, not_verified=not_verified, trial=trial)

    def _sign(self, told: Plan, caller: Caller, time_to_live_s: float) -> None:
        if not (self._keys.are_lasting or self._has_warned):
            _log.warning("tickets end with this process, for it has no --ticket-keys; no other gateway serves them")
            self._has_warned = True
        now_s = int(time.time())
        told.create_time.FromNanoseconds(time.time_ns())
        told.expire_time.FromSeconds(now_s + max(1, round(time_to_live_s)))
        payload = ticket_pb2.TicketPayload(
            layout_version=LAYOUT_VERSION,
            plan_id=told.id,
            subject=caller.subject,
            expire_unix_s=told.expire_time.seconds,
            request=told.request,
            dataset_digest=told.dataset_digest,
            models=told.models,
            copy_threshold=told.copy_threshold,
        )
        told.ticket = sign(payload, self._keys)
        if len(told.ticket) > MAX_TICKET_BYTES:
            problem = f"makes a ticket of {len(told.ticket)} bytes, above {MAX_TICKET_BYTES}; name fewer counts"
            raise InvalidRequest((Violation(field="target", description=problem),))


def _tell(plan: OpenPlan, wishes: Wishes, filling: Filling, measured: _Measured) -> Plan:
    """The plan as its caller sees it, but for what names and signs it."""
    told = Plan(
        classes=plan.dataset.classes,
        groups=plan.dataset.groups,
        rows=plan.layout.count,
        class_weights=class_weights(wishes.cells.sum(axis=1)),
        warnings=warnings_of(
            plan,
            cells=wishes.cells,
            filling=filling,
            trial=measured.trial,
            copy_quantile=wishes.synthesis.copy_quantile if wishes.synthesis else 0.0,
            not_verified=measured.not_verified,
        ),
        agreement=measured.agreement,
    )
    for each in plan.layout.strata:
        told.slots.add(label=each.label, group=each.group, source=int(each.source), count=each.count)
    if measured.trial:
        told.expected_attempts = measured.trial.expected_attempts
        told.expected_rejected = measured.trial.expected_rejected
    if plan.copy_threshold:
        told.copy_threshold = plan.copy_threshold
    return told
