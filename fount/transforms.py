"""Policies of label-preserving transforms, and the random parameters drawn from them for each row.

A policy says how often each kind of transform is applied and within which range. The gateway draws a table of
parameters from it, one row an image, at the image's address; a worker applies to each image what its row says and draws
nothing but noise pixels. So any row can be reproduced alone, and provenance reports what was done to an image.

Every kind owns its own blocks of the stream `transform`: what is drawn for one kind does not depend on which others are
in the policy. Only exactly rounded float64 operations are used, rounded once to float32, so the table has the same bits
on every processor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator

from fount.address import Addresses, Stream
from fount.documents import DocumentError, Problem, nearest
from fount.transform_columns import COLUMNS, IDENTITY

__all__ = [
    "COLUMNS", "IDENTITY", "KIND_NAMES", "RANGES", "Kind", "Policy", "PolicyDocument", "Transform", "draw",
    "draw_provenance", "gentle_policy", "parse_policy", "safe_policy", "violations",
]  # fmt: skip

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


KIND_NAMES: Mapping[str, Kind] = MappingProxyType({kind.name.lower().replace("_", "-"): kind for kind in Kind if kind})
"""The kinds by the names they have in policy documents, as "flip-horizontal"."""

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
"""The least and the greatest value that `min` and `max` of a transform may have."""

_COLUMN = {name: place for place, name in enumerate(COLUMNS)}
_WORDS = 4 * (len(Kind) - 1) + 4  # a block of four words a kind, and a second one for the last, which draws five
_MAX_ASPECT = 2.0  # an erased rectangle is at most so many times as wide as high, or as high as wide
_EXAMPLE = "[{rotate: [0, 15], probability: 0.5}, {flip-horizontal: true}]"


@dataclass(frozen=True, kw_only=True)
class Transform:
    """One kind of transform.

    Attributes:
        kind: what is done.
        probability: the probability that it is applied to a row, 0 to 1.
        min: lower end of the parameter drawn, in the unit of the kind; of its magnitude where either sign is drawn.
        max: upper end.
    """

    kind: Kind
    probability: float = 1.0
    min: float = 0.0
    max: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Transforms, each kind at most once; applied in the order of `Kind`, whatever the order here."""

    transforms: tuple[Transform, ...]


def violations(policy: Policy) -> list[Problem]:
    """Find everything wrong with a policy; keys are fields within it, as "transforms[2].max". Empty: it is valid."""
    if not policy.transforms:
        return [Problem(key="transforms", wrong="is empty", remedy="name at least one transform")]
    found: list[Problem] = []
    seen: set[Kind] = set()
    for place, transform in enumerate(policy.transforms):
        key = f"transforms[{place}]"
        found += _violations_of(transform, key)
        if transform.kind in seen:
            wrong = f"names {transform.kind.name} a second time"
            found.append(Problem(key=f"{key}.kind", wrong=wrong, remedy="name each kind once"))
        seen.add(transform.kind)
    return found


def _violations_of(transform: Transform, key: str) -> Iterator[Problem]:
    if transform.kind is Kind.UNSPECIFIED:
        names = ", ".join(kind.name for kind in RANGES)
        yield Problem(key=f"{key}.kind", wrong="is not a kind of transform", remedy=f"give one of {names}")
    if not 0.0 <= transform.probability <= 1.0:  # NaN included
        yield Problem(key=f"{key}.probability", wrong=f"is {transform.probability:g}", remedy="give 0 to 1")
    low, high = RANGES.get(transform.kind, (-math.inf, math.inf))
    remedy = f"give {low:g} to {high:g}" if low < high else "leave it out, because this kind has no range"
    outside = {name: end for name in ("min", "max") if not low <= (end := getattr(transform, name)) <= high}
    for name, end in outside.items():
        wrong = f"is {end:g}, outside the range of {transform.kind.name}"
        yield Problem(key=f"{key}.{name}", wrong=wrong, remedy=remedy)
    if not outside and transform.max < transform.min:
        wrong = f"is {transform.max:g}, below min, {transform.min:g}"
        yield Problem(key=f"{key}.max", wrong=wrong, remedy="give min or more")


def parse_policy(value: object, path: str = "") -> Policy:
    """Read a policy from plain values, as plan files and data-set files hold it.

    Args:
        value: a list of mappings from the name of a kind to its range [min, max], or to `true` for a flip; with
            `probability` where it is not 1, as in [{rotate: [0, 15], probability: 0.5}, {flip-horizontal: true}].
        path: where the value stands in its document, as "policy"; begins the key of every problem.

    Raises:
        DocumentError: names every problem.
    """
    if not isinstance(value, list | tuple):
        raise DocumentError([Problem(key=path, wrong=f"is {value!r}", remedy=f"must be a list like {_EXAMPLE}")])
    problems: list[Problem] = []
    policy = Policy(
        transforms=tuple(_parse_transform(entry, f"{path}[{place}]", problems) for place, entry in enumerate(value))
    )
    if not problems:
        problems = [_in_document(problem, policy, path) for problem in violations(policy)]
    if problems:
        raise DocumentError(problems)
    return policy


PolicyDocument = Annotated[Policy, PlainValidator(lambda value: parse_policy(value))]
"""A policy as the type of a field of a `fount.documents` record."""


def _parse_transform(entry: object, key: str, problems: list[Problem]) -> Transform:
    """Read one entry of a policy, adding what is wrong with it to the problems."""
    keys = [*KIND_NAMES, "probability"]
    if not isinstance(entry, Mapping):
        problems.append(Problem(key=key, wrong=f"is {entry!r}", remedy=f"must be a mapping as in {_EXAMPLE}"))
        return Transform(kind=Kind.UNSPECIFIED)
    given = {name: value for name, value in entry.items() if value is not None}
    unknown = [name for name in given if name not in keys]
    for name in unknown:
        near = nearest(name, keys)
        remedy = f"did you mean {near!r}?" if near else f"known keys: {', '.join(keys)}"
        problems.append(Problem(key=f"{key}.{name}", wrong="unknown key", remedy=remedy))
    probability = _number(given.get("probability", 1.0), f"{key}.probability", problems)
    names = [name for name in KIND_NAMES if name in given]
    if len(names) != 1:
        if names or not unknown:
            wrong = f"names {' and '.join(names) or 'no transform'}"
            problems.append(Problem(key=key, wrong=wrong, remedy=f"name one of {', '.join(KIND_NAMES)}"))
        return Transform(kind=Kind.UNSPECIFIED)
    low, high = _parse_range(names[0], given[names[0]], f"{key}.{names[0]}", problems)
    return Transform(kind=KIND_NAMES[names[0]], probability=probability, min=low, max=high)


def _parse_range(name: str, value: object, key: str, problems: list[Problem]) -> tuple[float, float]:
    if RANGES[KIND_NAMES[name]] == (0.0, 0.0):
        if value is not True:
            problems.append(Problem(key=key, wrong=f"is {value!r}", remedy=f"has no range: write `{name}: true`"))
    elif isinstance(value, list | tuple) and len(value) == 2:
        return _number(value[0], f"{key}[0]", problems), _number(value[1], f"{key}[1]", problems)
    else:
        problems.append(Problem(key=key, wrong=f"is {value!r}", remedy="must be a range, [min, max]"))
    return 0.0, 0.0


def _number(value: object, key: str, problems: list[Problem]) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= np.finfo(np.float64).max:
        return float(value)
    problems.append(Problem(key=key, wrong=f"is {value!r}", remedy="must be a finite number"))
    return 0.0


def _in_document(problem: Problem, policy: Policy, path: str) -> Problem:
    """Change the key of a violation, as "transforms[2].max", to the one in a document, as "policy[2].rotate"."""
    place, _, field = problem.key.removeprefix("transforms").partition(".")
    key = f"{path}{place}"
    if field in ("min", "max"):
        kind = policy.transforms[int(place.strip("[]"))].kind
        key += f".{next(name for name, each in KIND_NAMES.items() if each is kind)}"
    elif field == "probability":
        key += ".probability"
    return Problem(key=key, wrong=problem.wrong, remedy=problem.remedy)


def safe_policy(dataset: str, shape: tuple[int, int, int]) -> Policy:
    """Choose transforms that keep labels: those for digits if a grey data set has "digits" or "mnist" in its name."""
    digits = any(word in dataset.lower() for word in ("digits", "mnist"))
    return _DIGITS_POLICY if digits and shape[2] == 1 else gentle_policy()


# No flips (2 and 5, 6 and 9), at most 15 degrees (1 and 7, 6 and 9), at most 2 pixels of 28.
_DIGITS_POLICY = Policy(
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
    """Return transforms small enough for any image; none mirrors, which would change text and left and right hands."""
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
    """Draw the table for a worker: (B, columns) float32, finite; the identity where a transform is not applied."""
    table = draw_provenance(policy, addresses)
    return np.where(np.isnan(table), IDENTITY, table)


def draw_provenance(policy: Policy, addresses: Addresses) -> Float32s:
    """Draw the table as provenance reports it: (B, columns) float32; NaN where a transform is not applied."""
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
            return {"rotate_degrees": _signed(transform, uniforms[:, 0])}
        case Kind.SHEAR:
            return {"shear_degrees": _signed(transform, uniforms[:, 0])}
        case Kind.SHIFT:
            columns = (_signed(transform, uniforms[:, 0]), _signed(transform, uniforms[:, 1]))
            return dict(zip(("shift_x", "shift_y"), columns, strict=True))
        case Kind.ERASE:
            return _rectangle(_between(transform, uniforms[:, 0]), uniforms)
    name = {Kind.ZOOM: "zoom_factor", Kind.CONTRAST: "contrast_factor", Kind.NOISE: "noise_std"}
    return {name.get(transform.kind, "brightness"): _between(transform, uniforms[:, 0])}


def _between(transform: Transform, uniform: Float64s) -> Float64s:
    return transform.min + (transform.max - transform.min) * uniform


def _signed(transform: Transform, uniform: Float64s) -> Float64s:
    """Draw a magnitude and its sign from one uniform: its lower half is negative, its upper half positive."""
    centred = 2.0 * uniform - 1.0  # exact
    return np.where(centred < 0.0, -1.0, 1.0) * _between(transform, np.abs(centred))


def _rectangle(area: Float64s, uniforms: Float64s) -> dict[str, Float64s]:
    """Place a rectangle of a share of the area, up to twice as wide as high or as high as wide, within the image."""
    aspect = 1.0 + (_MAX_ASPECT - 1.0) * np.abs(2.0 * uniforms[:, 3] - 1.0)
    aspect = np.where(uniforms[:, 3] < 0.5, aspect, 1.0 / aspect)
    width = np.maximum(area, np.minimum(1.0, np.sqrt(area * aspect)))  # area / width <= 1
    height = np.divide(area, width, out=np.zeros_like(area), where=width > 0.0)
    x, y = uniforms[:, 1] * (1.0 - width), uniforms[:, 2] * (1.0 - height)
    return {"erase_x": x, "erase_y": y, "erase_width": width, "erase_height": height}
