"""Attributes of pictures that a latent space can be walked along: how thick and how slanted strokes are.

Training rows with their codes enter; directions of a card leave, and quality entries that say what a step along them
changes. Rows are compared within their class, so that a direction is not the way from one class to another.

Sources: Hu, "Visual pattern recognition by moment invariants", 1962 (central moments); Larsen et al., "Autoencoding
beyond pixels using a learned similarity metric", 2016, section 4.1 (attributes as differences of mean codes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from handlers.cards.card import Direction, Quality
from handlers.family import Decoder, Encoder
from handlers.recipes.data.load import Split
from handlers.recipes.latents import encode_rows
from handlers.recipes.quality.measures import mean_entry

__all__ = ["find_directions", "ink", "measure_directions", "slant"]

_CHUNK = 100
_LEAST_INK = 1e-6
_QUARTER = 0.25


def ink(images: Tensor) -> Tensor:
    """Sum the grey levels of each picture of (N, 1, H, W) in [0, 1]: black pixels, (N,) float64."""
    return images.flatten(1).double().sum(dim=1)


def slant(images: Tensor) -> Tensor:
    """Compute how far each picture of (N, 1, H, W) in [0, 1] leans to the right, (N,) float64.

    It is the slope of the line x(y) fitted to the ink, in pixels to the right for each pixel upwards: 1 is 45 degrees.
    """
    weights = images[:, 0].double()  # (N, 1, H, W) -> (N, H, W)
    total = weights.sum(dim=(1, 2)).clamp(min=_LEAST_INK)
    y, x = (torch.arange(size, dtype=torch.float64) for size in weights.shape[1:])
    down = y - (weights.sum(dim=2) @ y / total)[:, None]  # (N, H)
    right = x - (weights.sum(dim=1) @ x / total)[:, None]  # (N, W)
    mixed = torch.einsum("nhw,nh,nw->n", weights, down, right)
    vertical = (weights.sum(dim=2) * down**2).sum(dim=1).clamp(min=_LEAST_INK)
    return -mixed / vertical


@dataclass(frozen=True, kw_only=True)
class _Attribute:
    """A number of each picture.

    Attributes:
        compute: from pictures, (N, 1, H, W) in [0, 1], to (N,) float64.
        title: for the card.
        unit: of the number, for the card.
    """

    compute: Callable[[Tensor], Tensor]
    title: str
    unit: str


_ATTRIBUTES: Mapping[str, _Attribute] = MappingProxyType(
    {
        "thickness": _Attribute(compute=ink, title="Thickness of strokes", unit="pixels of ink"),
        "slant": _Attribute(compute=slant, title="Slant to the right", unit="pixels to the right for each upwards"),
    }
)


def find_directions(module: Encoder, rows: Split) -> tuple[Direction, ...]:
    """Compute the directions of thickness and slant in the latent space of an unconditional model.

    Args:
        module: of pictures of one channel, whose floats are in [0, 1].
        rows: training rows.
    """
    latents = encode_rows(module, rows.images).double()
    found = []
    for name, attribute in _ATTRIBUTES.items():
        low, high = _extreme_quarters(attribute.compute(rows.images), rows.labels)
        vector = latents[high].mean(dim=0) - latents[low].mean(dim=0)
        description = (
            f"{attribute.title}. One unit leads from the mean code of the quarter of each class's training rows with "
            f"the least to that of the quarter with the most, measured in {attribute.unit}."
        )
        numbers = tuple(round(number, 5) for number in vector.tolist())
        found.append(Direction(name=name, description=description, vector=numbers))
    return tuple(found)


@torch.inference_mode()
def measure_directions(module: nn.Module, test: Split, directions: tuple[Direction, ...]) -> Iterator[Quality]:
    """Measure what one unit of each direction changes in decoded test rows; directions of other names are left out."""
    assert isinstance(module, Encoder)
    assert isinstance(module, Decoder)
    latents = encode_rows(module, test.images)
    for direction in directions:
        if direction.name not in _ATTRIBUTES:
            continue
        attribute = _ATTRIBUTES[direction.name]
        half = 0.5 * torch.tensor(direction.vector)
        before, after = (
            torch.cat([module.decode(rows, None) for rows in torch.split(latents + step, _CHUNK)])
            for step in (-half, half)
        )
        others = ", ".join(
            f"{name} {float((other.compute(after) - other.compute(before)).mean()):+.3g} {other.unit}"
            for name, other in _ATTRIBUTES.items()
            if name != direction.name
        )
        values = attribute.compute(test.images)
        low, high = _extreme_quarters(values, test.labels)
        method = (
            f"change in {attribute.unit} by one unit of the direction, half a unit on both sides of the codes of "
            f"{len(latents)} test rows; it also changes {others}; the real value is between the quarters of each "
            "class's test rows with the most and the least"
        )
        change = attribute.compute(after) - attribute.compute(before)
        yield mean_entry(
            f"{direction.name}-change", change, method, real=float(values[high].mean() - values[low].mean())
        )


def _extreme_quarters(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Select the rows with the least and the most of a value within their class.

    Args:
        values: (N,).
        labels: (N,) int64.

    Returns:
        The numbers of the rows, (M,) int64 each, as many of a class in both.
    """
    low, high = [], []
    for label in range(int(labels.max()) + 1):
        rows = (labels == label).nonzero()[:, 0]
        ordered = rows[values[rows].argsort(stable=True)]
        count = int(_QUARTER * len(rows))
        low.append(ordered[:count])
        high.append(ordered[len(rows) - count :])
    return torch.cat(low), torch.cat(high)
