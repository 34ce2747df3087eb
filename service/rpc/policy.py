"""Policies of transforms between `fount.v1.TransformPolicy` and `fount.transforms.Policy`."""

from __future__ import annotations

from dataclasses import asdict

from fount.transforms import RANGES, Kind, Policy, Transform
from fount.v1 import augmentation_pb2

__all__ = ["policy_from_proto", "policy_to_proto"]


def policy_from_proto(message: augmentation_pb2.TransformPolicy) -> Policy:
    """Read a policy; a kind this version does not know becomes UNSPECIFIED, which `violations` reports."""
    return Policy(transforms=tuple(_transform_from_proto(transform) for transform in message.transforms))


def _transform_from_proto(message: augmentation_pb2.Transform) -> Transform:
    kind = int(message.kind)
    return Transform(
        kind=Kind(kind) if kind in RANGES else Kind.UNSPECIFIED,
        probability=message.probability if message.HasField("probability") else 1.0,
        min=message.min,
        max=message.max,
    )


def policy_to_proto(policy: Policy) -> augmentation_pb2.TransformPolicy:
    """Write a policy with every field set."""
    transforms = [augmentation_pb2.Transform(**asdict(transform)) for transform in policy.transforms]
    return augmentation_pb2.TransformPolicy(transforms=transforms)
