"""Wishes as a request again, with everything left open filled in: what a plan shows, and what a ticket holds.

Reading a resolved request gives the same wishes again, so a plan can be rebuilt from its ticket alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields

from fount.v1 import augmentation_pb2, model_pb2, sampling_pb2
from service.augmentation.open_plan import Pinned
from service.augmentation.targets import MixRule
from service.domain import Parameters
from service.rpc.plan_request import SynthesisWish, Wishes
from service.rpc.policy import policy_to_proto

__all__ = ["plan_id", "resolve", "to_pinned_model"]

_ID_DIGITS = 24


def resolve(request: augmentation_pb2.PlanDatasetRequest, wishes: Wishes) -> augmentation_pb2.PlanDatasetRequest:
    """Fill a request in.

    Args:
        request: as it was asked.
        wishes: as it was read.
    """
    resolved = augmentation_pb2.PlanDatasetRequest(
        dataset=wishes.dataset.name,
        split=wishes.split.name,
        seed=wishes.seed,
        target=_target(request, wishes),
        real=augmentation_pb2.RealRows(mode=int(wishes.mode)),  # type: ignore[arg-type]  # enums by number
        mix=_mix(wishes.mix),
        shards=wishes.shards,
    )
    resolved.time_to_live.FromNanoseconds(round(wishes.time_to_live_s * 1e9))
    if wishes.mix.transformed:
        resolved.policy.CopyFrom(policy_to_proto(wishes.policy))
        verification = wishes.verification
        resolved.verification.min_agreement = verification.min_agreement
        resolved.verification.rows = verification.rows
        if verification.verifier:
            resolved.verification.classifier.CopyFrom(_ref(verification.verifier))
    if wishes.synthesis:
        resolved.synthesis.CopyFrom(_synthesis(wishes.synthesis))
    return resolved


def plan_id(
    resolved: augmentation_pb2.PlanDatasetRequest, dataset_digest: str, models: list[augmentation_pb2.PinnedModel]
) -> str:
    """Name a plan by what its rows are made from: equal wishes with equal seed and digests have equal ids."""
    wishes = augmentation_pb2.PlanDatasetRequest()
    wishes.CopyFrom(resolved)
    wishes.ClearField("time_to_live")
    digest = hashlib.sha256(dataset_digest.encode())
    for message in (wishes, *models):
        content = message.SerializeToString(deterministic=True)
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:_ID_DIGITS]


def to_pinned_model(pinned: Pinned) -> augmentation_pb2.PinnedModel:
    """A model in its role, as a message."""
    return augmentation_pb2.PinnedModel(role=pinned.role, model=_ref(pinned), numerics=pinned.target.numerics)


def _ref(pinned: Pinned) -> model_pb2.ModelRef:
    key = pinned.model.key
    return model_pb2.ModelRef(name=key.name, version=key.version, digest=key.digest)


def _target(request: augmentation_pb2.PlanDatasetRequest, wishes: Wishes) -> augmentation_pb2.Target:
    """The target with class ids in place of names, which are longer."""
    if not request.HasField("target"):
        return augmentation_pb2.Target(factor=1.0)
    target = augmentation_pb2.Target()
    target.CopyFrom(request.target)
    labels = [each.label for each in target.counts.counts] + [each.label for each in target.weights.weights]
    if target.WhichOneof("kind") == "balance_to_class":
        labels.append(target.balance_to_class)
    for label in labels:
        _number(label, wishes.dataset.classes)
    return target


def _number(label: sampling_pb2.LabelRef, classes: tuple[str, ...]) -> None:
    if label.WhichOneof("kind") == "name":
        label.id = classes.index(label.name)


def _mix(mix: MixRule) -> augmentation_pb2.Mix:
    return augmentation_pb2.Mix(
        resampled=mix.resampled,
        transformed=mix.transformed,
        synthesised=mix.synthesised,
        max_synthetic_ratio=mix.max_synthetic_ratio,
    )


def _synthesis(wish: SynthesisWish) -> augmentation_pb2.Synthesis:
    synthesis = augmentation_pb2.Synthesis(
        model=_ref(wish.generator),
        parameters=_parameters(wish.parameters),
        min_confidence=wish.min_confidence,
        copy_quantile=wish.copy_quantile,
        attempts=wish.attempts,
    )
    if wish.classifier:
        synthesis.classifier.CopyFrom(_ref(wish.classifier))
    return synthesis


def _parameters(parameters: Parameters) -> sampling_pb2.Parameters:
    message = sampling_pb2.Parameters()
    for each in fields(Parameters):
        if (value := getattr(parameters, each.name)) is not None:
            setattr(message, each.name, value)
    return message
