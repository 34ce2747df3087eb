"""Make plans from specifications: lay out slots, verify the policy, try the models, and warn of problems.

A `PlanSpec` enters, read from a request; a `Plan` leaves. To pull its rows, the specification is read from a ticket and
enters again; an `OpenPlan` leaves, from which `RowMaker` makes rows. Laying out and comparing run in threads.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.augmentation.copy_filter import Calibration, PixelCache, calibrate
from service.augmentation.estimate import PlanWarning, find_warnings, pull_seconds
from service.augmentation.plan_spec import OpenPlan, PlanSpec, held_out_split
from service.augmentation.slots import Layout, Source
from service.augmentation.trial import Trial, try_models
from service.augmentation.verification import LabelAgreement, Verification
from service.catalog import Catalog
from service.datasets import unreadable_errors
from service.scheduler.inference import InferenceClient
from service.scheduler.work import RequestContext
from service.threads import run_in_thread

__all__ = ["Plan", "Planner"]

_LAYOUTS_KEPT = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A plan with what was found out about it.

    Attributes:
        opened: what its rows are made from.
        warnings: what to know before using it.
        trials: of the models that generate rows.
        agreement: of labels before and after transforms; None: it was not measured.
        estimated_time_s: of pulling all of it on idle workers.
    """

    opened: OpenPlan
    warnings: tuple[PlanWarning, ...]
    trials: tuple[Trial, ...]
    agreement: LabelAgreement | None
    estimated_time_s: float


class Planner:
    """Makes plans, and opens them again; its copy filters share a cache with those of pulls."""

    def __init__(self, *, catalog: Catalog, inference: InferenceClient, cache: PixelCache) -> None:
        self._catalog, self._inference, self._cache = catalog, inference, cache
        self._calibrating = ThreadPoolExecutor(1)  # one at a time: each takes all processors for seconds
        self._layouts: OrderedDict[str, Layout] = OrderedDict()  # of plans opened last

    async def plan(self, spec: PlanSpec, context: RequestContext) -> Plan:
        """Make a plan.

        Raises:
            PlanRefused: the policy changes labels.
            DatasetUnreadable: a row cannot be read. Also whatever `InferenceClient` raises.
        """
        calibration = await self._calibrate(spec)
        threshold = calibration.threshold if calibration else 0.0
        layout = await run_in_thread(spec.lay_out)
        opened = OpenPlan(spec=spec, layout=layout, copy_threshold=threshold or None)
        agreement, not_verified = await self._verify(opened, context)
        trials = await try_models(opened, self._cache, self._inference, context)
        opened = opened.with_generation({each.spec.source: each.spec for each in trials})
        return Plan(
            opened=opened,
            warnings=tuple(find_warnings(opened, trials, calibration, not_verified)),
            trials=trials,
            agreement=agreement,
            estimated_time_s=pull_seconds(opened, trials, self._catalog),
        )

    async def open(self, plan_id: str, spec: PlanSpec, copy_threshold: float | None) -> OpenPlan:
        """Lay out a plan that was made before, here or on another gateway; the layouts used last are kept."""
        layout = self._layouts.get(plan_id)
        if layout is None:
            layout = await run_in_thread(spec.lay_out)
        self._layouts[plan_id] = layout
        self._layouts.move_to_end(plan_id)
        while len(self._layouts) > _LAYOUTS_KEPT:
            self._layouts.popitem(last=False)
        return OpenPlan(id=plan_id, spec=spec, layout=layout, copy_threshold=copy_threshold)

    async def _calibrate(self, spec: PlanSpec) -> Calibration | None:
        """Find the copy threshold; None when nothing is synthesised or filtered."""
        synthesis, held_out = spec.generation.get(Source.SYNTHESISED), held_out_split(spec.dataset, spec.split)
        if not (synthesis and synthesis.copy_quantile and held_out and spec.allocation.labels_of(Source.SYNTHESISED)):
            return None
        with unreadable_errors(spec.dataset.name, spec.dataset.path):
            return await run_in_thread(
                calibrate, spec.split, held_out, synthesis.copy_quantile, spec.seed, executor=self._calibrating
            )

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
