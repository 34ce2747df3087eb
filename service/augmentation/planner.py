"""Make plans from specifications, and open tickets to plans whose rows can be made.

A `PlanSpec` enters; slots are laid out, the policy is verified, the generator tried, and a signed `Plan` leaves. A
ticket enters, on this gateway or another with the key; an `OpenPlan` leaves. Laying out and comparing run in threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.augmentation.copy_filter import CopyFilters, calibrate
from service.augmentation.estimate import PlanWarning, Trial, class_weights, find_warnings, pull_seconds, try_generator
from service.augmentation.plan_spec import OpenPlan, PlanSpec, SpecCodec, held_out_split
from service.augmentation.slots import Layout, Source
from service.augmentation.tickets import MAX_TICKET_BYTES, TicketKeys, TicketPayload, open_ticket, sign
from service.augmentation.verification import LabelAgreement, Verification
from service.caller import Caller
from service.catalog import Catalog
from service.datasets import unreadable_errors
from service.domain import Target
from service.errors import InvalidRequest, Retired, Violation
from service.scheduler.inference import InferenceClient
from service.scheduler.work import RequestContext

__all__ = ["Plan", "Planner"]

_log = logging.getLogger(__name__)

_LAYOUTS_KEPT = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A plan as its caller gets it.

    Attributes:
        id: equal specifications with equal seeds and digests have equal ids.
        ticket: pulls the rows.
        create_time_ns, expire_unix_s: when it was made, and when the ticket ends, since 1970.
        spec: what it was made from.
        layout: its slots.
        models: what the ticket pins, by role.
        class_weights: one for each class, for a loss on the data set as it is.
        warnings: what to know before using it.
        trial: of the generator; None: nothing is synthesised.
        agreement: of labels before and after transforms; None: it was not measured.
        estimated_time_s: of pulling all of it on idle workers.
        copy_threshold: ratio below which a sample is a copy; None: no filter.
    """

    id: str
    ticket: bytes
    create_time_ns: int
    expire_unix_s: int
    spec: PlanSpec
    layout: Layout
    models: dict[str, Target]
    class_weights: tuple[float, ...]
    warnings: tuple[PlanWarning, ...]
    trial: Trial | None
    agreement: LabelAgreement | None
    estimated_time_s: float
    copy_threshold: float | None


class Planner:
    """Makes plans and opens tickets; all pulls share its copy filters."""

    def __init__(
        self, *, codec: SpecCodec, catalog: Catalog, inference: InferenceClient, copies: CopyFilters, keys: TicketKeys
    ) -> None:
        self._codec, self._catalog, self._inference = codec, catalog, inference
        self._copies, self._keys = copies, keys
        self._has_warned = False
        self._calibrating = ThreadPoolExecutor(1)  # one at a time: each takes all processors for seconds
        self._layouts: OrderedDict[str, Layout] = OrderedDict()  # of tickets opened last

    async def plan(self, spec: PlanSpec, context: RequestContext) -> Plan:
        """Make a plan for a caller.

        Raises:
            InvalidRequest: the ticket would be too large.
            PlanRefused: the policy changes labels.
            DatasetUnreadable: a row cannot be read. Also whatever `InferenceClient` raises.
        """
        threshold = await self._calibrate(spec)
        layout = await asyncio.to_thread(spec.lay_out)
        opened = OpenPlan(id="", spec=spec, layout=layout, copy_threshold=threshold)
        agreement, not_verified = await self._verify(opened, context)
        trial = await try_generator(opened, self._copies, self._inference, context)
        payload = TicketPayload(
            subject=context.caller.subject,
            expire_unix_s=int(time.time()) + max(1, round(spec.time_to_live_s)),
            spec=self._codec.encode(spec),
            dataset_digest=spec.dataset.digest,
            models={each.role: each.target for each in opened.models},
            copy_threshold=threshold,
        )
        return Plan(
            id=payload.plan_id,
            ticket=self._sign(payload),
            create_time_ns=time.time_ns(),
            expire_unix_s=payload.expire_unix_s,
            spec=spec,
            layout=layout,
            models=payload.models,
            class_weights=class_weights(spec.cells.sum(axis=1)),
            warnings=tuple(find_warnings(opened, trial, not_verified)),
            trial=trial,
            agreement=agreement,
            estimated_time_s=pull_seconds(opened, trial, self._catalog),
            copy_threshold=threshold,
        )

    async def open(self, ticket: bytes, caller: Caller) -> OpenPlan:
        """Open a ticket.

        Raises:
            TicketInvalid: it is not a ticket, was changed, has expired, or is of an unknown key.
            NotPermitted: it is another caller's, or a grant is gone.
            Retired: the data set, a digest or numerics is not served any more.
            NotReady: a model has no ready worker now.
            DatasetUnreadable: a file of the data set is damaged.
        """
        payload = open_ticket(ticket, self._keys, caller.subject)
        if generator := payload.models.get("generator"):
            caller.require(f"sample:{generator.model.name}")
        try:
            spec = await self._codec.decode(payload, caller)
        except InvalidRequest as error:
            raise Retired(f"what the ticket was made from is not served any more; plan again: {error}") from error
        plan_id = payload.plan_id
        layout = self._layouts.get(plan_id)
        if layout is None:
            layout = await asyncio.to_thread(spec.lay_out)
        self._layouts[plan_id] = layout
        self._layouts.move_to_end(plan_id)
        while len(self._layouts) > _LAYOUTS_KEPT:
            self._layouts.popitem(last=False)
        return OpenPlan(id=plan_id, spec=spec, layout=layout, copy_threshold=payload.copy_threshold)

    async def _calibrate(self, spec: PlanSpec) -> float | None:
        """Find the copy threshold; None when nothing is synthesised or filtered, or there is none."""
        synthesis, held_out = spec.synthesis, held_out_split(spec.dataset, spec.split)
        if not (synthesis and synthesis.copy_quantile and held_out and spec.allocation.labels_of(Source.SYNTHESISED)):
            return None
        loop = asyncio.get_running_loop()
        with unreadable_errors(spec.dataset.name):
            threshold = await loop.run_in_executor(
                self._calibrating, calibrate, spec.split, held_out, synthesis.copy_quantile, spec.seed
            )
        return threshold or None

    async def _verify(self, plan: OpenPlan, context: RequestContext) -> tuple[LabelAgreement | None, str | None]:
        """Measure the agreement of labels; None, with the reason when rows are transformed, if it cannot be."""
        if plan.transformer is None:
            return None, None
        verifier = plan.spec.verification.verifier
        if verifier is None:
            return None, f"no classifier of {plan.spec.dataset.name} is served to check what transforms do to labels"
        agreement = await Verification(plan, self._inference, context).agreement()
        reason = f"{verifier.model.key.name} reads no row of {plan.spec.dataset.name} as its label"
        return agreement, None if agreement else reason

    def _sign(self, payload: TicketPayload) -> bytes:
        if not (self._keys.are_lasting or self._has_warned):
            _log.warning("tickets end with this process, which has no --ticket-keys; no other gateway accepts them")
            self._has_warned = True
        ticket = sign(payload, self._keys)
        if len(ticket) > MAX_TICKET_BYTES:
            problem = f"makes a ticket of {len(ticket)} bytes, above {MAX_TICKET_BYTES}; name fewer counts"
            raise InvalidRequest((Violation(field="target", description=problem),))
        return ticket
