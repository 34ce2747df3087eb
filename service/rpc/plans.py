"""Issue plans: write them as messages with signed tickets, and open the tickets to plans whose rows can be made.

A plan and its ticket hold the PlanDatasetRequest with everything filled in that the caller left open. Reading it again
gives the same specification, so any gateway with the key can rebuild a plan from its ticket alone.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict

from fount.names import class_index, indices_of
from fount.readers import Dataset
from fount.ticket.v1 import ticket_pb2
from fount.v1 import augmentation_pb2
from service.augmentation.estimate import class_weights
from service.augmentation.plan_spec import SECTIONS, OpenPlan, PlanSpec
from service.augmentation.planner import Plan, Planner
from service.augmentation.slots import GENERATED
from service.augmentation.trial import expected_attempts
from service.augmentation.verification import LabelAgreement
from service.caller import Caller
from service.catalog import Catalog, PinnedModel
from service.datasets import Datasets
from service.errors import InvalidRequest, Retired, Violation
from service.rpc.fields import policy_to_proto, reference_to_message
from service.rpc.generation_request import GENERATING_ROLES, generation_to_message
from service.rpc.plan_request import read_plan_request
from service.rpc.tickets import LAYOUT_VERSION, MAX_TICKET_BYTES, TicketKeys, open_ticket, plan_id, sign
from service.scheduler.work import RequestContext

__all__ = ["PlanIssuer", "pin_to_message"]

_log = logging.getLogger(__name__)


class PlanIssuer:
    """Makes plans of requests, and opens their tickets, against the data sets and models of this gateway."""

    def __init__(self, *, datasets: Datasets, catalog: Catalog, planner: Planner, keys: TicketKeys) -> None:
        self._datasets, self._catalog, self._planner, self._keys = datasets, catalog, planner, keys
        self._has_warned = False

    async def plan(
        self, request: augmentation_pb2.PlanDatasetRequest, context: RequestContext
    ) -> augmentation_pb2.Plan:
        """Make a plan for a caller.

        Raises:
            InvalidRequest: fields are wrong, or the ticket would be too large.
            NotPermitted: the caller has no grant for the data set or a model that generates rows.
            DatasetUnreadable: a file of the data set is damaged.
            PlanRefused, Retired, NotReady: as `read_plan_request`. Also whatever `Planner.plan` raises.
        """
        dataset = await self._open_dataset(request.dataset, context.caller)
        for source in GENERATED:
            if getattr(request.mix, source.name.lower()) and (name := getattr(request, SECTIONS[source]).model.name):
                context.caller.require(f"sample:{name}")
        spec = await read_plan_request(request, dataset, self._datasets.settings(dataset.name), self._catalog)
        plan = await self._planner.plan(spec, context)
        message = _plan_to_message(plan)
        message.request.CopyFrom(_fill_in(request, plan.opened.spec))
        message.create_time.FromNanoseconds(time.time_ns())
        message.expire_time.FromSeconds(int(time.time()) + max(1, round(spec.time_to_live_s)))
        payload = ticket_pb2.TicketPayload(
            layout_version=LAYOUT_VERSION,
            subject=context.caller.subject,
            expire_unix_s=message.expire_time.seconds,
            request=message.request,
            dataset_digest=message.dataset_digest,
            models=message.models,
            copy_threshold=message.copy_threshold,
        )
        message.id = payload.plan_id = plan_id(payload)
        message.ticket = self._sign(payload)
        return message

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
        for pin in payload.models:
            if pin.role in GENERATING_ROLES.values():
                caller.require(f"sample:{pin.model.name}")
        try:
            dataset = await self._open_dataset(payload.request.dataset, caller)
            if dataset.digest != payload.dataset_digest:
                raise Retired(
                    f"data set {dataset.name} with digest {payload.dataset_digest} is not served; "
                    f"{dataset.digest} is; plan again"
                )
            settings = self._datasets.settings(dataset.name)
            spec = await read_plan_request(payload.request, dataset, settings, self._catalog, payload.models)
        except InvalidRequest as error:
            raise Retired(f"what the ticket was made from is not served any more; plan again: {error}") from error
        return await self._planner.open(payload.plan_id, spec, payload.copy_threshold or None)

    async def _open_dataset(self, name: str, caller: Caller) -> Dataset:
        if not name:
            problem = "name a data set; `fount datasets` (ListDatasets) lists them"
            raise InvalidRequest((Violation(field="dataset", description=problem),))
        caller.require(f"dataset:{name}")
        return await self._datasets.open(name)

    def _sign(self, payload: ticket_pb2.TicketPayload) -> bytes:
        if not (self._keys.are_lasting or self._has_warned):
            _log.warning("tickets end with this process, which has no --ticket-keys; no other gateway accepts them")
            self._has_warned = True
        ticket = sign(payload, self._keys)
        if len(ticket) > MAX_TICKET_BYTES:
            problem = f"makes a ticket of {len(ticket)} bytes, above {MAX_TICKET_BYTES}; name fewer counts"
            raise InvalidRequest((Violation(field="target", description=problem),))
        return ticket


def pin_to_message(pinned: PinnedModel) -> augmentation_pb2.PinnedModel:
    """Write a model in its role."""
    target = pinned.target
    model = reference_to_message(target.model)
    return augmentation_pb2.PinnedModel(role=pinned.role, model=model, numerics=target.numerics)


def _plan_to_message(plan: Plan) -> augmentation_pb2.Plan:
    """Write a plan as its caller gets it, all but its request, id, ticket and times."""
    opened, spec, trials = plan.opened, plan.opened.spec, plan.trials
    message = augmentation_pb2.Plan(
        dataset_digest=spec.dataset.digest,
        classes=spec.dataset.classes,
        groups=spec.dataset.groups,
        rows=opened.layout.count,
        slots=[
            augmentation_pb2.SlotCount(label=each.label, group=each.group, source=int(each.source), count=each.count)  # type: ignore[arg-type]  # enums by number
            for each in opened.layout.strata
        ],
        warnings=[augmentation_pb2.PlanWarning(reason=each.reason, message=each.message) for each in plan.warnings],
        class_weights=class_weights(spec.cells.sum(axis=1)),
        expected_rejected=sum(each.expected_rejected for each in trials) if trials else None,
        expected_attempts=expected_attempts(trials) if trials else None,
        agreement=_agreement(plan.agreement) if plan.agreement else None,
        copy_threshold=opened.copy_threshold,
        models=[pin_to_message(each) for each in opened.models],
    )
    message.estimated_time.FromNanoseconds(round(plan.estimated_time_s * 1e9))
    return message


def _fill_in(request: augmentation_pb2.PlanDatasetRequest, spec: PlanSpec) -> augmentation_pb2.PlanDatasetRequest:
    """Write a request again, with everything filled in that it left open."""
    message = augmentation_pb2.PlanDatasetRequest(
        dataset=spec.dataset.name,
        split=spec.split.name,
        seed=spec.seed,
        target=_target(request, spec.dataset),
        real=augmentation_pb2.RealRows(mode=int(spec.mode)),  # type: ignore[arg-type]  # enums by number
        mix=augmentation_pb2.Mix(**asdict(spec.mix)),
        shards=spec.shards,
    )
    for source, each in spec.generation.items():
        getattr(message, SECTIONS[source]).CopyFrom(generation_to_message(each))
    message.time_to_live.FromNanoseconds(round(spec.time_to_live_s * 1e9))
    if spec.mix.transformed:
        message.policy.CopyFrom(policy_to_proto(spec.policy))
        message.verification.min_agreement = spec.verification.min_agreement
        message.verification.rows = spec.verification.rows
        if spec.verification.verifier:
            message.verification.classifier.CopyFrom(reference_to_message(spec.verification.verifier.model.key))
    return message


def _target(request: augmentation_pb2.PlanDatasetRequest, dataset: Dataset) -> augmentation_pb2.Target:
    """Copy the target, with class ids in place of names, which are longer."""
    if not request.HasField("target"):
        return augmentation_pb2.Target(factor=1.0)
    target = augmentation_pb2.Target()
    target.CopyFrom(request.target)
    labels = [each.label for each in target.counts.counts] + [each.label for each in target.weights.weights]
    if target.WhichOneof("kind") == "balance_to_class":
        labels.append(target.balance_to_class)
    indices = indices_of(dataset.classes)
    for label in labels:
        if label.WhichOneof("kind") == "name":  # the specification was read from it already
            label.id = class_index(label.name, dataset.classes, indices) or 0
    return target


def _agreement(agreement: LabelAgreement) -> augmentation_pb2.LabelAgreement:
    message = augmentation_pb2.LabelAgreement(rows=agreement.rows, before=agreement.before, after=agreement.after)
    for kind, after in agreement.transforms:
        message.transforms.add(kind=int(kind), after=after)
    return message
