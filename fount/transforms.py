"""Policies of label-keeping transforms, and what is drawn from them for each row.

A policy says how often each kind of transform is applied and how far it goes. The gateway draws a table of parameters
from it, one row an image, at the image's address; a worker does with each image what its row says and draws nothing but
noise pixels. So a row can be had again, alone, anywhere, and provenance can tell what was done to an image.

Every kind owns blocks of its own on the stream `transform`: what is drawn for one does not depend on which others are
in the policy. Only exactly rounded float64 operations are used, rounded once to float32, so the table has the same bits
on every processor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from fount.transform_columns import COLUMNS, IDENTITY
from fount.v1 import augmentation_pb2

__all__ = [
    "COLUMNS",
    "IDENTITY",
    "RANGES",
    "Kind",
    "Policy",
    "Transform",
    "draw",
    "gentle_policy",
    "policy_from_proto",
    "policy_to_proto",
    "safe_policy",
    "told",
    "violations",
]

Float64s = NDArray[np.float64]
Float32s = NDArray[np.float32]


class Kind(IntEnum):
    """What is done to an image; numbered as `fount.v1.Transform.Kind`, applied in this order."""

    UNSPECIFIED = 0
    FLIP_HORIZONTAL = 1
    FLIP_VERTICAL = 2
    ROTATE = 3
    SHEAR = 4
    ZOOM = 5
    SHIFT = 6
    BRIGHTNESS = 7
    CONTRAST = 8
    NOISE = 9
    ERASE = 10


@dataclass(frozen=True, kw_only=True)
class Transform:
    """One kind of manipulation.

    Attributes:
        kind: what is done.
        probability: the chance that a row gets it, 0 to 1.
        min: the lower end of what is drawn, in the unit of the kind; of a kind with two ways, of its size.
        max: the upper end.
    """

    kind: Kind
    probability: float = 1.0
    min: float = 0.0
    max: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Transforms, each kind at most once; applied in the order of `Kind`, whatever the order here."""

    transforms: tuple[Transform, ...]


RANGES: Mapping[Kind, tuple[float, float]] = MappingProxyType(
    {
        Kind.FLIP_HORIZONTAL: (0.0, 0.0),
        Kind.FLIP_VERTICAL: (0.0, 0.0),
        Kind.ROTATE: (0.0, 180.0),  # degrees
        Kind.SHEAR: (0.0, 60.0),  # degrees
        Kind.ZOOM: (0.25, 4.0),  # factor; above 1 is larger
        Kind.SHIFT: (0.0, 1.0),  # share of the side
        Kind.BRIGHTNESS: (-1.0, 1.0),  # share of the full range
        Kind.CONTRAST: (0.0, 4.0),  # factor
        Kind.NOISE: (0.0, 1.0),  # standard deviation, share of the full range
        Kind.ERASE: (0.0, 1.0),  # share of the area
    }
)
"""The least and the most that `min` and `max` of a transform may be."""

_COLUMN = {name: place for place, name in enumerate(COLUMNS)}
_WORDS = 4 * (len(Kind) - 1) + 4  # a block of four words a kind, and a second one for the last, which draws five
_MOST_STRETCHED = 2.0  # an erased rectangle is up to so many times as wide as high, or as high as wide


def violations(policy: Policy) -> list[tuple[str, str]]:
    """Find everything wrong with a policy.

    Returns:
        (field within the policy, what is wrong and what is right), as ("transforms[2].max", "…"). Empty: it is sound.
    """
    if not policy.transforms:
        return [("transforms", "is empty; name at least one transform")]
    found: list[tuple[str, str]] = []
    seen: set[Kind] = set()
    for place, transform in enumerate(policy.transforms):
        found += [(f"transforms[{place}].{field}", wrong) for field, wrong in _violations_of(transform)]
        if transform.kind in seen:
            found.append((f"transforms[{place}].kind", f"{transform.kind.name} is named twice; name each kind once"))
        seen.add(transform.kind)
    return found


def _violations_of(transform: Transform) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if transform.kind is Kind.UNSPECIFIED:
        found.append(("kind", f"is no kind of transform; give one of {', '.join(kind.name for kind in RANGES)}"))
    if not 0.0 <= transform.probability <= 1.0:  # NaN included
        found.append(("probability", f"{transform.probability:g} is no chance; give 0 to 1"))
    low, high = RANGES.get(transform.kind, (-math.inf, math.inf))
    wanted = f"give {low:g} to {high:g}" if low < high else "leave it out, this kind has no range"
    ends = {"min": transform.min, "max": transform.max}
    beyond = {name: end for name, end in ends.items() if not low <= end <= high}
    found += [(name, f"{end:g} is beyond what {transform.kind.name} can be; {wanted}") for name, end in beyond.items()]
    if not beyond and transform.max < transform.min:
        found.append(("max", f"{transform.max:g} is below min, {transform.min:g}; give min or more"))
    return found


def safe_policy(dataset: str, shape: tuple[int, int, int]) -> Policy:
    """Choose transforms that keep the labels of a data set: those for digits where it is one, else gentle ones.

    Args:
        dataset: the data set's name; of digits when it holds "digits" or "mnist".
        shape: (height, width, channels) of its images.
    """
    digits = any(word in dataset.lower() for word in ("digits", "mnist"))
    return _digits_policy() if digits and shape[2] == 1 else gentle_policy()


def _digits_policy() -> Policy:
    """No flips (2 and 5, 6 and 9), at most 15 degrees (1 and 7, 6 and 9), at most 2 pixels of 28."""
    return Policy(
        transforms=(
            Transform(kind=Kind.ROTATE, max=15.0),
            Transform(kind=Kind.SHEAR, probability=0.5, max=10.0),
            Transform(kind=Kind.ZOOM, min=0.9, max=1.1),
            Transform(kind=Kind.SHIFT, max=2 / 28),
            Transform(kind=Kind.BRIGHTNESS, probability=0.5, min=-0.1, max=0.1),
            Transform(kind=Kind.CONTRAST, probability=0.5, min=0.8, max=1.2),
            Transform(kind=Kind.NOISE, probability=0.25, max=0.05),
        )
    )


def gentle_policy() -> Policy:
    """Transforms small enough for any picture; none mirrors, for writing and left or right hands would not bear it."""
    return Policy(
        transforms=(
            Transform(kind=Kind.ROTATE, max=5.0),
            Transform(kind=Kind.ZOOM, min=0.95, max=1.05),
            Transform(kind=Kind.SHIFT, max=0.05),
            Transform(kind=Kind.BRIGHTNESS, probability=0.5, min=-0.05, max=0.05),
            Transform(kind=Kind.CONTRAST, probability=0.5, min=0.9, max=1.1),
        )
    )


def draw(policy: Policy, addresses: Addresses) -> Float32s:
    """Draw the table a worker takes.

    Args:
        policy: a sound one.
        addresses: of the rows; B of them.

    Returns:
        (B, columns) float32, finite; the identity where a transform is not applied.
    """
    table = told(policy, addresses)
    return np.where(np.isnan(table), IDENTITY, table)


def told(policy: Policy, addresses: Addresses) -> Float32s:
    """Draw the table as it is told in provenance.

    Returns:
        (B, columns) float32; NaN where a transform is not applied.
    """
    table = np.full((len(addresses), len(COLUMNS)), np.nan, np.float32)
    uniforms = addresses.words(Stream.TRANSFORM, _WORDS).astype(np.float64) * 2.0**-32  # (B, words) in [0, 1)
    for transform in policy.transforms:
        first = 4 * (transform.kind - 1)
        applied = uniforms[:, first] < transform.probability  # (B,)
        for name, values in _drawn(transform, uniforms[:, first + 1 :]).items():
            table[applied, _COLUMN[name]] = values[applied]
    return table


def _drawn(transform: Transform, uniforms: Float64s) -> dict[str, Float64s]:
    """Turn uniforms, (B, 3 or more), into the columns of one transform, (B,) each."""
    match transform.kind:
        case Kind.FLIP_HORIZONTAL | Kind.FLIP_VERTICAL:
            return {transform.kind.name.lower(): np.ones(len(uniforms))}
        case Kind.ROTATE:
            return {"rotate_degrees": _either_way(transform, uniforms[:, 0])}
        case Kind.SHEAR:
            return {"shear_degrees": _either_way(transform, uniforms[:, 0])}
        case Kind.SHIFT:
            columns = (_either_way(transform, uniforms[:, 0]), _either_way(transform, uniforms[:, 1]))
            return dict(zip(("shift_x", "shift_y"), columns, strict=True))
        case Kind.ERASE:
            return _rectangle(_between(transform, uniforms[:, 0]), uniforms)
    name = {Kind.ZOOM: "zoom_factor", Kind.CONTRAST: "contrast_factor", Kind.NOISE: "noise_std"}
    return {name.get(transform.kind, "brightness"): _between(transform, uniforms[:, 0])}


def _between(transform: Transform, uniform: Float64s) -> Float64s:
    return transform.min + (transform.max - transform.min) * uniform


def _either_way(transform: Transform, uniform: Float64s) -> Float64s:
    """Draw a size and its sign from one uniform: its halves are the two ways."""
    way = 2.0 * uniform - 1.0  # exact
    return np.where(way < 0.0, -1.0, 1.0) * _between(transform, np.abs(way))


def _rectangle(area: Float64s, uniforms: Float64s) -> dict[str, Float64s]:
    """Place a rectangle of a share of the area, up to twice as wide as high or as high as wide, within the picture."""
    stretch = 1.0 + (_MOST_STRETCHED - 1.0) * np.abs(2.0 * uniforms[:, 3] - 1.0)
    stretch = np.where(uniforms[:, 3] < 0.5, stretch, 1.0 / stretch)
    width = np.maximum(area, np.minimum(1.0, np.sqrt(area * stretch)))  # area / width <= 1
    height = np.divide(area, width, out=np.zeros_like(area), where=width > 0.0)
    x, y = uniforms[:, 1] * (1.0 - width), uniforms[:, 2] * (1.0 - height)
    return {"erase_x": x, "erase_y": y, "erase_width": width, "erase_height": height}


def policy_from_proto(message: augmentation_pb2.TransformPolicy) -> Policy:
    """Read a policy; a kind this version does not know becomes UNSPECIFIED, which `violations` refuses."""
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
    """Write a policy, every field set."""
    return augmentation_pb2.TransformPolicy(
        transforms=[
            augmentation_pb2.Transform(
                kind=augmentation_pb2.Transform.Kind.ValueType(transform.kind),
                probability=transform.probability,
                min=transform.min,
                max=transform.max,
            )
            for transform in policy.transforms
        ]
    )
