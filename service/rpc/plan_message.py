"""Write plans and their specifications as messages.

A `PlanSpec` becomes a PlanDatasetRequest with everything filled in that the caller left open: what a plan shows, and
what a ticket holds. Reading it again gives the same specification, so a plan can be rebuilt from its ticket alone.
"""

from __future__ import annotations

from dataclasses import asdict

from fount.v1 import augmentation_pb2, sampling_pb2
from service.augmentation.plan_spec import PlanSpec, SynthesisSpec
from service.augmentation.planner import Plan
from service.augmentation.verification import LabelAgreement
from service.domain import Target
from service.rpc.fields import reference_to_message
from service.rpc.plan_target import target_to_message
from service.rpc.policy import policy_to_proto

__all__ = ["pin_to_message", "plan_to_message", "spec_to_message"]


def plan_to_message(plan: Plan) -> augmentation_pb2.Plan:
    """Write a plan as its caller gets it."""
    message = augmentation_pb2.Plan(
        id=plan.id,
        ticket=plan.ticket,
        request=spec_to_message(plan.spec),
        dataset_digest=plan.spec.dataset.digest,
        classes=plan.spec.dataset.classes,
        groups=plan.spec.dataset.groups,
        rows=plan.layout.count,
        slots=[
            augmentation_pb2.SlotCount(label=each.label, group=each.group, source=int(each.source), count=each.count)  # type: ignore[arg-type]  # enums by number
            for each in plan.layout.strata
        ],
        warnings=[augmentation_pb2.PlanWarning(reason=each.reason, message=each.message) for each in plan.warnings],
        class_weights=plan.class_weights,
        expected_rejected=plan.trial.expected_rejected if plan.trial else None,
        expected_attempts=plan.trial.expected_attempts if plan.trial else None,
        agreement=_agreement(plan.agreement) if plan.agreement else None,
        copy_threshold=plan.copy_threshold,
        models=[pin_to_message(role, target) for role, target in plan.models.items()],
    )
    message.estimated_time.FromNanoseconds(round(plan.estimated_time_s * 1e9))
    message.create_time.FromNanoseconds(plan.create_time_ns)
    message.expire_time.FromSeconds(plan.expire_unix_s)
    return message


def spec_to_message(spec: PlanSpec) -> augmentation_pb2.PlanDatasetRequest:
    """Write a specification as a request that leaves nothing open."""
    message = augmentation_pb2.PlanDatasetRequest(
        dataset=spec.dataset.name,
        split=spec.split.name,
        seed=spec.seed,
        target=target_to_message(spec.target, spec.dataset, subsample=spec.subsample),
        real=augmentation_pb2.RealRows(mode=int(spec.mode)),  # type: ignore[arg-type]  # enums by number
        mix=augmentation_pb2.Mix(**asdict(spec.mix)),
        shards=spec.shards,
        synthesis=_synthesis(spec.synthesis) if spec.synthesis else None,
    )
    message.time_to_live.FromNanoseconds(round(spec.time_to_live_s * 1e9))
    if spec.mix.transformed:
        message.policy.CopyFrom(policy_to_proto(spec.policy))
        message.verification.min_agreement = spec.verification.min_agreement
        message.verification.rows = spec.verification.rows
        if spec.verification.verifier:
            message.verification.classifier.CopyFrom(reference_to_message(spec.verification.verifier.model.key))
    return message


def pin_to_message(role: str, target: Target) -> augmentation_pb2.PinnedModel:
    """Write a pinned model."""
    return augmentation_pb2.PinnedModel(role=role, model=reference_to_message(target.model), numerics=target.numerics)


def _synthesis(spec: SynthesisSpec) -> augmentation_pb2.Synthesis:
    return augmentation_pb2.Synthesis(
        model=reference_to_message(spec.generator.model.key),
        parameters=sampling_pb2.Parameters(**asdict(spec.parameters)),  # None is unset
        classifier=reference_to_message(spec.classifier.model.key) if spec.classifier else None,
        min_confidence=spec.min_confidence,
        copy_quantile=spec.copy_quantile,
        attempts=spec.attempts,
    )


def _agreement(agreement: LabelAgreement) -> augmentation_pb2.LabelAgreement:
    message = augmentation_pb2.LabelAgreement(rows=agreement.rows, before=agreement.before, after=agreement.after)
    for kind, after in agreement.transforms:
        message.transforms.add(kind=int(kind), after=after)
    return message
