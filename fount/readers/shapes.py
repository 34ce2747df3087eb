"""Shapes on marble: colour pictures of 64×64 pixels that are drawn by address, with every factor of them known.

Six shapes, which are the classes, of six colours, of any size, place and rotation, lie on a marble ground. A picture is
a function of its index alone, so any row can be drawn again alone, on every processor with the same bytes, and there
are more rows than anyone can read. Training rows have the indices from 0 on, test rows those from 2^32 on. Every pixel
of the edge has the share of the shape's colour that the distance from the edge tells.

Source: Perlin, "An image synthesizer", SIGGRAPH 1985 (marble).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream, sin_cos_of_turn
from fount.cancellation import check_cancelled
from fount.gradient_noise import sine_of_turn, turbulence
from fount.readers.dataset import Dataset, DatasetSplit

__all__ = [
    "SHAPE_CLASSES", "SHAPE_COLOURS", "SHAPE_LICENCE", "SHAPE_SIDE", "SHAPE_SPLITS", "ShapeFactors", "draw_factors",
    "draw_shapes", "read_colours", "read_shapes", "shapes_digest",
]  # fmt: skip

SHAPE_SIDE = 64
SHAPE_COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta")
SHAPE_LICENCE = "none: the pictures are drawn from known factors by address"
SHAPE_SPLITS = MappingProxyType({"train": (0, 20_000), "test": (2**32, 4_000)})
"""First index and number of rows of each split."""

_VERSION = "shapes64-1"
_SEED = 20265
_BATCH = 64  # pictures drawn together
_HASHED = 32  # pictures of each split in the digest

_RADII = (14.0, 22.0)  # smallest and largest, in pixels
_MARGIN = 1.0  # pixels between a shape and the border
_PALETTE = ((204, 51, 46), (230, 190, 50), (64, 158, 62), (52, 178, 188), (48, 82, 190), (186, 60, 160))
_COLOURED, _FEWEST_COLOURED = 60, 100  # range of the channels of a coloured pixel, and pixels of a shape
_STONE, _VEIN = (226, 222, 214), (124, 126, 134)
_VEINS = (1.5, 3.0)  # fewest and most over the side of a picture
_MARBLE_CELL, _MARBLE_OCTAVES, _MARBLE_BEND = 32, 3, 0.8

Float32s = NDArray[np.float32]
Uint8s = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class ShapeFactors:
    """What rows show, each factor independent of the others but for the place, which keeps the shape in the picture.

    Attributes:
        shape: (n,) uint8, index in `SHAPE_CLASSES`.
        colour: (n,) uint8, index in `SHAPE_COLOURS`.
        radius: (n,) float32, of the circle around it, in pixels.
        x: (n,) float32, of its middle, in pixels from the left.
        y: (n,) float32, of its middle, in pixels from the top.
        turn: (n,) float32, its rotation in turns, in [0, 1).
        veins: (n,) float32, of the ground, over the side of the picture.
        grain: (n,) float32, direction of the veins in turns, in [0, 1).
    """

    shape: Uint8s
    colour: Uint8s
    radius: Float32s
    x: Float32s
    y: Float32s
    turn: Float32s
    veins: Float32s
    grain: Float32s


def draw_factors(indices: NDArray[np.uint64]) -> ShapeFactors:
    """Draw the factors of rows by their indices, without their pixels."""
    u = _addresses(indices).uniforms(Stream.LATENT, 8)  # (n, 8)
    radius = _between(u[:, 2], _RADII)
    first = radius + np.float32(_MARGIN)
    span = np.float32(SHAPE_SIDE) - 2 * first
    return ShapeFactors(
        shape=(u[:, 0] * len(SHAPE_CLASSES)).astype(np.uint8),
        colour=(u[:, 1] * len(SHAPE_COLOURS)).astype(np.uint8),
        radius=radius,
        x=first + u[:, 3].astype(np.float32) * span,
        y=first + u[:, 4].astype(np.float32) * span,
        turn=_between(u[:, 5], (0.0, 1.0)),
        veins=_between(u[:, 6], _VEINS),
        grain=_between(u[:, 7], (0.0, 1.0)),
    )


def draw_shapes(first: int, count: int) -> tuple[Uint8s, ShapeFactors]:
    """Draw rows by their indices.

    Returns:
        (count, 64, 64, 3) uint8 pixels, and the factors, of the rows first, first + 1, ...
    """
    indices = np.uint64(first) + np.arange(count, dtype=np.uint64)
    return _draw_pixels(indices), draw_factors(indices)


def read_colours(images: Uint8s) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the colour of the shape in pictures, by counting the coloured pixels that each colour is nearest to.

    Args:
        images: (n, 64, 64, 3) uint8, of any generator of such shapes.

    Returns:
        (n,) index in `SHAPE_COLOURS`, of the most frequent colour, and (n,) its share of the coloured pixels; the share
        is 0 for a picture with less coloured pixels than the smallest shape has.
    """
    counts = np.empty((len(images), len(_PALETTE)), np.int64)
    palette = np.array(_PALETTE, np.int32)
    for row, image in enumerate(images):
        coloured = image[np.ptp(image, axis=-1) >= _COLOURED].astype(np.int32)  # (k, 3)
        distances = ((coloured[:, None] - palette) ** 2).sum(axis=2)  # (k, colours)
        counts[row] = np.bincount(distances.argmin(axis=1), minlength=len(palette))
    total, best = counts.sum(axis=1), counts.max(axis=1)
    return counts.argmax(axis=1), np.where(total < _FEWEST_COLOURED, 0.0, best / np.maximum(total, 1))


def read_shapes() -> Dataset:
    """Describe the first 20 000 training rows and 4000 test rows; pixels are drawn when they are read."""
    splits = {}
    for name, (first, count) in SHAPE_SPLITS.items():
        labels = draw_factors(np.uint64(first) + np.arange(count, dtype=np.uint64)).shape.astype(np.uint32)
        shape = (SHAPE_SIDE, SHAPE_SIDE, 3)
        splits[name] = DatasetSplit(name=name, labels=labels, shape=shape, pixels=_DrawnPixels(first=first))
    return Dataset(
        name="shapes64",
        format="built-in",
        classes=SHAPE_CLASSES,
        shape=(SHAPE_SIDE, SHAPE_SIDE, 3),
        splits=MappingProxyType(splits),
        licence=SHAPE_LICENCE,
        own_digest=shapes_digest,
    )


def shapes_digest() -> str:
    """Compute SHA-256 of the version and, of each split, first index, number of rows and the first 32 pictures."""
    digest = hashlib.sha256(_VERSION.encode())
    for first, count in SHAPE_SPLITS.values():
        digest.update(f" {first} {count} ".encode())
        digest.update(draw_shapes(first, _HASHED)[0].tobytes())
    return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class _DrawnPixels:
    """The images of a split; row r has the index first + r."""

    first: int

    def read(self, rows: NDArray[np.int64]) -> Uint8s:
        """Draw rows; (k, 64, 64, 3) uint8."""
        return _draw_pixels(np.uint64(self.first) + rows.astype(np.uint64))


def _addresses(indices: NDArray[np.uint64]) -> Addresses:
    return Addresses(seeds=np.full(len(indices), _SEED, np.uint64), indices=indices)


def _between(uniforms: NDArray[np.float64], bounds: tuple[float, float]) -> Float32s:
    """Scale uniforms in [0, 1) to [low, high); float32 rounding may reach `high` for none of 24 bits."""
    low, high = bounds
    share = np.floor(uniforms * 2.0**24) * 2.0**-24  # exact in float32
    return (low + share * (high - low)).astype(np.float32)


def _draw_pixels(indices: NDArray[np.uint64]) -> Uint8s:
    images = np.empty((len(indices), SHAPE_SIDE, SHAPE_SIDE, 3), np.uint8)
    for start in range(0, len(indices), _BATCH):
        check_cancelled()
        images[start : start + _BATCH] = _draw_batch(indices[start : start + _BATCH])
    return images


def _draw_batch(indices: NDArray[np.uint64]) -> Uint8s:
    """Put each shape on its ground."""
    factors = draw_factors(indices)
    cover, vein = _cover(factors)[..., None], _marble(indices, factors)[..., None]  # (B, 64, 64, 1)
    stone, dark = np.array(_STONE, np.float32), np.array(_VEIN, np.float32)
    ground = stone + vein * (dark - stone)  # (B, 64, 64, 3)
    colour = np.array(_PALETTE, np.float32)[factors.colour][:, None, None]  # (B, 1, 1, 3)
    return np.rint(ground + cover * (colour - ground)).astype(np.uint8)


def _marble(indices: NDArray[np.uint64], factors: ShapeFactors) -> Float32s:
    """Compute how much of the vein's colour each pixel has: a wave along the grain, bent by turbulence; (B, 64, 64).

    Source: Perlin 1985, section "Marble".
    """
    across, _ = _turned(factors.grain)
    bend = turbulence(_addresses(indices), SHAPE_SIDE, cell=_MARBLE_CELL, octaves=_MARBLE_OCTAVES)
    turns = across * (factors.veins / np.float32(SHAPE_SIDE))[:, None, None] + np.float32(_MARBLE_BEND) * bend
    wave: Float32s = np.float32(0.5) + np.float32(0.5) * sine_of_turn(turns)
    return np.asarray(wave * wave * wave)


def _cover(factors: ShapeFactors) -> Float32s:
    """Compute the share of each pixel that the shape covers, (B, 64, 64), from its distance to the edge."""
    cover = np.empty((len(factors.shape), SHAPE_SIDE, SHAPE_SIDE), np.float32)
    u, v = _turned(factors.turn, factors.x, factors.y)
    radius = factors.radius[:, None, None]
    for shape, distance in enumerate(_DISTANCES.values()):
        rows = factors.shape == shape
        cover[rows] = np.clip(np.float32(0.5) - distance(u[rows], v[rows], radius[rows]), 0, 1)
    return cover


def _turned(turn: Float32s, x: Float32s | None = None, y: Float32s | None = None) -> tuple[Float32s, Float32s]:
    """Return the places of pixel middles along two axes that are turned around (x, y), each (B, 64, 64), in pixels."""
    words = (turn.astype(np.float64) * 2.0**32).astype(np.uint64).astype(np.uint32)
    sine, cosine = (part.astype(np.float32)[:, None, None] for part in sin_cos_of_turn(words))
    at = np.arange(SHAPE_SIDE, dtype=np.float32) + np.float32(0.5)
    right = at if x is None else at - x[:, None, None]  # (64,) or (B, 1, 64)
    down = at[:, None] if y is None else at[:, None] - y[:, None, None]  # (64, 1) or (B, 64, 1)
    return cosine * right + sine * down, cosine * down - sine * right


def _circle(u: Float32s, v: Float32s, radius: Float32s) -> Float32s:
    return np.asarray(np.sqrt(u * u + v * v) - np.float32(0.75) * radius)


def _ring(u: Float32s, v: Float32s, radius: Float32s) -> Float32s:
    middle = np.sqrt(u * u + v * v) - np.float32(0.66) * radius
    return np.asarray(np.abs(middle) - np.float32(0.2) * radius)


def _square(u: Float32s, v: Float32s, radius: Float32s) -> Float32s:
    return np.asarray(np.maximum(np.abs(u), np.abs(v)) - np.float32(0.66) * radius)


def _cross(u: Float32s, v: Float32s, radius: Float32s) -> Float32s:
    long, wide = np.float32(0.95) * radius, np.float32(0.29) * radius
    u, v = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(u - long, v - wide), np.maximum(u - wide, v - long))


def _triangle(u: Float32s, v: Float32s, radius: Float32s) -> Float32s:
    sides = [np.float32(a) * u + np.float32(b) * v for a, b in _NORMALS_OF_3]
    return np.asarray(np.maximum(np.maximum(sides[0], sides[1]), sides[2]) - np.float32(0.5) * radius)


def _star(u: Float32s, v: Float32s, radius: Float32s) -> Float32s:
    """Measure the distance to a pentagram: the points inside of all of its five lines but one."""
    largest = second = np.full_like(u, -np.inf)
    for a, b in _NORMALS_OF_5:
        side = np.float32(a) * u + np.float32(b) * v
        second = np.maximum(second, np.minimum(largest, side))
        largest = np.maximum(largest, side)
    return np.asarray(second - np.float32(0.309017) * radius)


_NORMALS_OF_3 = ((0.0, 1.0), (0.8660254, -0.5), (-0.8660254, -0.5))
_NORMALS_OF_5 = (
    (0.0, 1.0), (0.9510565, 0.309017), (0.5877853, -0.809017), (-0.5877853, -0.809017), (-0.9510565, 0.309017),
)  # fmt: skip

_DISTANCES: dict[str, Callable[[Float32s, Float32s, Float32s], Float32s]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}
SHAPE_CLASSES = tuple(_DISTANCES)
