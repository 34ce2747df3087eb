"""Textures without training: marble and wood, computed from gradient noise by address.

Marble is a wave along a direction, bent by turbulence; wood is rings, bent by noise, with fine grain. The label chooses
between textures that end at their edges and tileable ones, whose edges continue on the other side. All is computed in
float32 by additions, multiplications, roots and comparisons, which IEEE 754 rounds exactly, so an address has the same
bytes on every processor, and no row depends on another.

Source: Perlin, "An image synthesizer", SIGGRAPH 1985 (marble; rings of wood).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fount.address import Addresses, Stream, sin_cos_of_turn
from fount.gradient_noise import gradient_noise, sine_of_turn, turbulence
from handlers.family import Deadline, Draw, Noise

__all__ = ["ProceduralTexture", "TextureConfig"]

_TILEABLE = 1  # the label of tileable textures; 0 is of others
_CHANNELS, _CELL = 3, 32
_STONE, _VEIN = (0.92, 0.90, 0.87), (0.30, 0.32, 0.36)
_PALE, _DARK = (0.82, 0.62, 0.40), (0.48, 0.29, 0.14)
_VEINS, _MARBLE_BEND = (2.0, 5.0), 1.1  # fewest and most waves over the side of a picture; in turns
_RINGS, _GRAIN = (4.0, 9.0), 0.25
_BEND_ACROSS, _BEND_ALONG = 0.35, 1.6  # in rings
_TWO_32 = 2.0**32

Float32s = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class TextureConfig:
    """Which texture.

    Attributes:
        kind: "marble" or "wood".
        side: height and width of the pictures, a multiple of 32.
    """

    kind: str
    side: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = [field.name for field in fields(cls)]
        if wrong := sorted(set(config).symmetric_difference(known)):
            raise ValueError(f"procedural-texture configuration has unknown or missing keys {wrong}; it takes {known}")
        kind, side = config["kind"], config["side"]
        if kind not in _KINDS:
            raise ValueError(f"procedural-texture configuration: kind is {kind!r}, must be one of {list(_KINDS)}")
        if type(side) is not int or side < _CELL or side % _CELL:
            raise ValueError(f"procedural-texture configuration: side is {side!r}, must be a multiple of {_CELL}")
        return cls(**config)


class ProceduralTexture(nn.Module):
    """A generator of one kind of texture; it has no weights."""

    def __init__(self, config: TextureConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(TextureConfig.read(config))

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Compute one texture for each row.

        Args:
            noise: B addresses.
            labels: (B,) int64, 0 plain, 1 tileable; None is plain.
            draw: without parameters.
            deadline: checked once, before the pictures are computed.

        Returns:
            (B, 3, side, side) in [0, 1].

        Raises:
            DeadlinePassed: the deadline passed.
        """
        deadline.check()
        addresses, side = noise.addresses, self.config.side
        compute, low, high = _KINDS[self.config.kind]
        share = np.empty((len(addresses), side, side), np.float32)
        kinds = np.zeros(len(addresses), np.int64) if labels is None else labels.cpu().numpy()
        for label in np.unique(kinds):
            rows = np.flatnonzero(kinds == label)
            share[rows] = compute(addresses.take(rows), side, label == _TILEABLE)
        colours = np.array([low, high], np.float32)
        images = colours[0] + share[..., None] * (colours[1] - colours[0])  # (B, side, side, 3)
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(noise.device, noise.dtype)


def _marble(addresses: Addresses, side: int, tiled: bool) -> Float32s:  # a label
    """Compute the share of the vein's colour, (B, side, side); tileable are whole numbers of waves along both axes."""
    u = addresses.uniforms(Stream.LATENT, 2)
    low, high = _VEINS
    waves = (low + (high - low) * u[:, 0]).astype(np.float32)
    sine, cosine = (part.astype(np.float32) for part in sin_cos_of_turn((u[:, 1] * _TWO_32).astype(np.uint32)))
    across, down = waves * cosine, waves * sine
    if tiled:
        across, down = np.rint(across), np.rint(down)
    at = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    turns = across[:, None, None] * at + down[:, None, None] * at[:, None]
    bend = turbulence(addresses, side, cell=_CELL, octaves=3, tiled=tiled)
    wave = np.float32(0.5) + np.float32(0.5) * sine_of_turn(turns + np.float32(_MARBLE_BEND) * bend)
    return np.asarray(wave * wave * wave)


def _wood(addresses: Addresses, side: int, tiled: bool) -> Float32s:  # a label
    """Compute the share of the dark colour, (B, side, side), which rises from ring to ring.

    Plain wood is cut across the trunk, around an axis; tileable along it, through a whole number of rings.
    """
    u = addresses.uniforms(Stream.LATENT, 3).astype(np.float32)
    rings = np.float32(_RINGS[0]) + np.float32(_RINGS[1] - _RINGS[0]) * u[:, 0]
    at = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    right, down = at - u[:, 1:2], at - u[:, 2:3]  # (B, side)
    if tiled:
        place = np.rint(rings)[:, None, None] * right[:, None]
    else:
        place = rings[:, None, None] * np.sqrt(right[:, None] * right[:, None] + down[:, :, None] * down[:, :, None])
    bend = _BEND_ALONG if tiled else _BEND_ACROSS
    place = place + np.float32(bend) * gradient_noise(addresses, side, cell=_CELL, tiled=tiled)
    ring = place - np.floor(place)
    grain = gradient_noise(addresses, side, cell=4, octave=1, tiled=tiled)
    return np.asarray(np.clip(ring * ring + np.float32(_GRAIN) * grain, 0, 1))


_Compute = Callable[[Addresses, int, bool], Float32s]
_Colour = tuple[float, float, float]
_KINDS: Mapping[str, tuple[_Compute, _Colour, _Colour]] = MappingProxyType(
    {"marble": (_marble, _STONE, _VEIN), "wood": (_wood, _PALE, _DARK)}
)
