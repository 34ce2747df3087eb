"""A plan as a client sees it: frozen values made of `fount.v1.Plan`, with the ticket its rows are pulled by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.protobuf import timestamp_pb2

from fount.augmentation.plan_file import TRANSFORM_KINDS, load_wishes, plan_request, policy_message
from fount.errors import InvalidRequest
from fount.sampling.types import ModelId
from fount.v1 import augmentation_pb2

__all__ = [
    "SOURCES",
    "AgreementInfo",
    "AnyPlan",
    "PinnedModelInfo",
    "PlanInfo",
    "PlanWarning",
    "SlotInfo",
    "Wishes",
    "load_wishes",
    "plan_info",
    "plan_message",
    "plan_request",
    "policy_message",
    "ticket_of",
]

SOURCES = {
    augmentation_pb2.SOURCE_REAL: "real",
    augmentation_pb2.SOURCE_RESAMPLED: "resampled",
    augmentation_pb2.SOURCE_TRANSFORMED: "transformed",
    augmentation_pb2.SOURCE_SYNTHESISED: "synthesised",
}
"""Where a row can come from, by the number that `RowBatch.sources` holds."""

_KIND_NAMES = {number: name for name, number in TRANSFORM_KINDS.items()}


@dataclass(frozen=True, kw_only=True)
class SlotInfo:
    """How many rows of one class, group and source.

    Attributes:
        label: the class's name.
        label_id: its id.
        group: the group's name; empty for rows without one.
        source: "real", "resampled", "transformed" or "synthesised".
        count: how many.
    """

    label: str
    label_id: int
    group: str
    source: str
    count: int


@dataclass(frozen=True, kw_only=True)
class PlanWarning:
    """One thing to know before the plan is used.

    Attributes:
        reason: a word for programs, as "CLASS_EMPTY".
        message: one sentence.
    """

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class AgreementInfo:
    """How a classifier read rows before and after they were transformed.

    Attributes:
        rows: how many were tried.
        before: the share read as their label as they are.
        after: the share of those that are still read so when transformed.
        transforms: the same for each transform alone, by its name.
    """

    rows: int
    before: float
    after: float
    transforms: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class PinnedModelInfo:
    """A model that rows depend on.

    Attributes:
        role: "generator", "classifier", "transformer" or "verifier".
        model: the resolved model.
        numerics: the numerics id rows are made on.
    """

    role: str
    model: ModelId
    numerics: str


@dataclass(frozen=True, kw_only=True)
class PlanInfo:
    """Exact slots, and the ticket they are pulled by.

    Attributes:
        id: the plan's id; equal wishes with equal seed and digests have equal ids.
        ticket: what `Client.pull` takes.
        dataset: the data set's name.
        dataset_digest: the digest of the rows it was planned on.
        split: the split it augments.
        seed: what keys everything drawn.
        shards: into how many parts it is cut unless a pull says otherwise.
        classes: class names by id.
        groups: group names by id; empty without a group column.
        rows: how many rows it has, rejected slots included.
        slots: the counts by class, group and source.
        warnings: what somebody should know before using it.
        class_weights: weights for a loss on the data set as it is, by class id: the alternative to oversampling.
        expected_rejected: about how many slots will hold no sample; None when nothing is synthesised.
        expected_attempts: about how many samples are drawn for one synthesised row; None when nothing is.
        estimated_time_s: about how many seconds pulling all of it takes on idle workers.
        agreement: what verification measured; None when nothing was verified.
        copy_threshold: the ratio below which a sample is a copy; None without the filter.
        models: the models the ticket pins.
        created: when it was planned, UTC.
        expires: when the ticket ends, UTC.
        request: the wishes with everything left open filled in; planning it again gives the same plan.
        message: the message itself.
    """

    id: str
    ticket: bytes = field(repr=False)
    dataset: str
    dataset_digest: str
    split: str
    seed: int
    shards: int
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    rows: int
    slots: tuple[SlotInfo, ...]
    warnings: tuple[PlanWarning, ...]
    class_weights: tuple[float, ...]
    expected_rejected: float | None
    expected_attempts: float | None
    estimated_time_s: float
    agreement: AgreementInfo | None
    copy_threshold: float | None
    models: tuple[PinnedModelInfo, ...]
    created: datetime
    expires: datetime
    request: augmentation_pb2.PlanDatasetRequest = field(repr=False, compare=False)
    message: augmentation_pb2.Plan = field(repr=False, compare=False)


AnyPlan = bytes | PlanInfo | augmentation_pb2.Plan
"""What rows can be pulled by: a plan, or its ticket."""

Wishes = Mapping[str, Any] | augmentation_pb2.PlanDatasetRequest
"""What can be planned: a mapping as in a plan file, or the request itself."""


def plan_message(
    wishes: Mapping[str, Any] | augmentation_pb2.PlanDatasetRequest,
) -> augmentation_pb2.PlanDatasetRequest:
    """The request for wishes in either form.

    Raises:
        InvalidRequest: keys or values of a mapping are wrong.
        TypeError: it is neither a mapping nor a request.
    """
    if isinstance(wishes, augmentation_pb2.PlanDatasetRequest):
        return wishes
    if not isinstance(wishes, Mapping):
        raise TypeError(f"wishes must be a mapping or a PlanDatasetRequest, got {type(wishes).__name__}")
    return plan_request(wishes)


def ticket_of(plan: AnyPlan) -> bytes:
    """The ticket of a plan in any form.

    Raises:
        InvalidRequest: it is empty.
        TypeError: it is no plan and no ticket.
    """
    ticket = plan.ticket if isinstance(plan, PlanInfo | augmentation_pb2.Plan) else plan
    if not isinstance(ticket, bytes | bytearray):
        raise TypeError(f"plan must be a plan or the bytes of its ticket, got {type(plan).__name__}")
    if not ticket:
        raise InvalidRequest("The rows cannot be pulled:", fields=[("ticket", "is empty; give a plan, or its ticket")])
    return bytes(ticket)


def plan_info(plan: augmentation_pb2.Plan) -> PlanInfo:
    """Read a plan from its message; enum values a newer server may have are given by number."""
    classes, groups = tuple(plan.classes), tuple(plan.groups)
    return PlanInfo(
        id=plan.id,
        ticket=plan.ticket,
        dataset=plan.request.dataset,
        dataset_digest=plan.dataset_digest,
        split=plan.request.split,
        seed=plan.request.seed,
        shards=plan.request.shards or 1,
        classes=classes,
        groups=groups,
        rows=plan.rows,
        slots=tuple(_slot(slot, classes, groups) for slot in plan.slots),
        warnings=tuple(PlanWarning(reason=each.reason, message=each.message) for each in plan.warnings),
        class_weights=tuple(plan.class_weights),
        expected_rejected=plan.expected_rejected if plan.HasField("expected_rejected") else None,
        expected_attempts=plan.expected_attempts if plan.HasField("expected_attempts") else None,
        estimated_time_s=plan.estimated_time.ToTimedelta().total_seconds(),
        agreement=_agreement(plan.agreement) if plan.HasField("agreement") else None,
        copy_threshold=plan.copy_threshold if plan.HasField("copy_threshold") else None,
        models=pinned_models(plan.models),
        created=_moment(plan.create_time),
        expires=_moment(plan.expire_time),
        request=plan.request,
        message=plan,
    )


def pinned_models(models: Any) -> tuple[PinnedModelInfo, ...]:
    """Read the models of a plan, or of a stream's header."""
    return tuple(
        PinnedModelInfo(
            role=each.role,
            model=ModelId(name=each.model.name, version=each.model.version, digest=each.model.digest),
            numerics=each.numerics,
        )
        for each in models
    )


def _slot(slot: augmentation_pb2.SlotCount, classes: tuple[str, ...], groups: tuple[str, ...]) -> SlotInfo:
    return SlotInfo(
        label=classes[slot.label] if slot.label < len(classes) else str(slot.label),
        label_id=slot.label,
        group=groups[slot.group] if slot.group < len(groups) else "",
        source=SOURCES.get(slot.source, str(slot.source)),
        count=slot.count,
    )


def _agreement(agreement: augmentation_pb2.LabelAgreement) -> AgreementInfo:
    return AgreementInfo(
        rows=agreement.rows,
        before=agreement.before,
        after=agreement.after,
        transforms={_KIND_NAMES.get(each.kind, str(each.kind)): each.after for each in agreement.transforms},
    )


def _moment(stamp: timestamp_pb2.Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
