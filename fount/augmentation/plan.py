"""Plans as the client returns them: frozen values decoded from `fount.v1.Plan`, with the ticket for pulling rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fount.errors import InvalidRequest
from fount.sampling.decode import decode, enum_name
from fount.sampling.types import ModelId
from fount.v1 import augmentation_pb2

__all__ = [
    "SOURCES", "AgreementInfo", "AnyPlan", "PinnedModelInfo", "PlanInfo", "PlanWarning", "SlotInfo",
    "plan_info", "ticket_of",
]  # fmt: skip

SOURCES = {
    augmentation_pb2.SOURCE_REAL: "real",
    augmentation_pb2.SOURCE_RESAMPLED: "resampled",
    augmentation_pb2.SOURCE_TRANSFORMED: "transformed",
    augmentation_pb2.SOURCE_SYNTHESISED: "synthesised",
    augmentation_pb2.SOURCE_TRANSLATED: "translated",
    augmentation_pb2.SOURCE_RECONSTRUCTED: "reconstructed",
}
"""The sources of rows, by the numbers in `RowBatch.sources`."""


@dataclass(frozen=True, kw_only=True)
class SlotInfo:
    """The number of rows of one class, group and source.

    Attributes:
        group: the group's name; empty for rows without one.
        source: one of the values of `SOURCES`.
    """

    label: str
    label_id: int
    group: str
    source: str
    count: int


@dataclass(frozen=True, kw_only=True)
class PlanWarning:
    """A warning about a plan, with its code, as "CLASS_EMPTY"."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class AgreementInfo:
    """How often a classifier agrees with the labels of rows before and after they are transformed.

    Attributes:
        before: the share of rows classified as their label without transforms.
        after: the share of those still classified so after the transforms.
        transforms: the same after each transform alone, by its name.
    """

    rows: int
    before: float
    after: float
    transforms: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class PinnedModelInfo:
    """A model that rows depend on.

    Attributes:
        role: "generator", "translator", "autoencoder", "classifier" or "transformer".
        numerics: the numerics id rows are computed on.
    """

    role: str
    model: ModelId
    numerics: str


@dataclass(frozen=True, kw_only=True)
class PlanInfo:
    """A plan: the exact number of rows of each kind, and the ticket for pulling them.

    Attributes:
        id: the plan's id; equal specifications with equal seed and digests have equal ids.
        ticket: the argument of `Client.pull`.
        dataset_digest: the digest of the rows it was planned on.
        shards: the number of shards unless a pull gives another.
        classes: class names by id.
        groups: group names by id; empty without a group column.
        rows: number of rows, rejected slots included.
        class_weights: weights for a loss on the data set as it is, by class id: the alternative to oversampling.
        expected_rejected: expected number of slots without a sample; None when models generate no row.
        expected_attempts: expected number of samples drawn for one row that a model generates; None when none does.
        estimated_time_s: estimated seconds for pulling all rows from idle workers.
        agreement: the result of verification; None when nothing was verified.
        copy_threshold: the ratio below which a sample is a copy; None without the filter.
        models: the models the ticket pins.
        expires: when the ticket ends, UTC.
        request: the specification with every default filled in; planning it again gives the same plan.
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
"""A plan, or its ticket."""


def ticket_of(plan: AnyPlan) -> bytes:
    """Return the ticket of a plan in any form; an InvalidRequest is raised for an empty one."""
    ticket = plan.ticket if isinstance(plan, PlanInfo | augmentation_pb2.Plan) else plan
    if not isinstance(ticket, bytes | bytearray):
        raise TypeError(f"plan must be a plan or the bytes of its ticket, got {type(plan).__name__}")
    if not ticket:
        raise InvalidRequest("The rows cannot be pulled:", fields=[("ticket", "is empty; give a plan, or its ticket")])
    return bytes(ticket)


def plan_info(plan: augmentation_pb2.Plan) -> PlanInfo:
    """Decode a plan; enum values that only a newer server knows become numbers."""
    request = plan.request
    return decode(
        PlanInfo,
        plan,
        dataset=request.dataset,
        split=request.split,
        seed=request.seed,
        shards=request.shards or 1,
        slots=tuple(_slot(slot, plan.classes, plan.groups) for slot in plan.slots),
        warnings=tuple(decode(PlanWarning, each) for each in plan.warnings),
        estimated_time_s=plan.estimated_time.ToTimedelta().total_seconds(),
        agreement=_agreement(plan.agreement) if plan.HasField("agreement") else None,
        models=tuple(decode(PinnedModelInfo, each) for each in plan.models),
        created=plan.create_time.ToDatetime(tzinfo=UTC),
        expires=plan.expire_time.ToDatetime(tzinfo=UTC),
        request=request,
        message=plan,
    )


def _slot(slot: augmentation_pb2.SlotCount, classes: Sequence[str], groups: Sequence[str]) -> SlotInfo:
    return SlotInfo(
        label=classes[slot.label] if slot.label < len(classes) else str(slot.label),
        label_id=slot.label,
        group=groups[slot.group] if slot.group < len(groups) else "",
        source=SOURCES.get(slot.source, str(slot.source)),
        count=slot.count,
    )


def _agreement(agreement: augmentation_pb2.LabelAgreement) -> AgreementInfo:
    kinds = {
        enum_name(augmentation_pb2.Transform.Kind, "KIND_", each.kind): each.after for each in agreement.transforms
    }
    return decode(AgreementInfo, agreement, transforms=kinds)
