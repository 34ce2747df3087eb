"""Gradient noise by address, and the marble made of it: textures of any size with the same bytes on every processor.

A random direction belongs to each point of a square lattice; the noise of a pixel is interpolated between the slopes
along the directions of the four points around it. Directions are read from Philox, so a texture is a function of its
address, and everything after them is built from additions, multiplications and comparisons of single numbers, which
IEEE 754 rounds exactly.

Sources: Perlin, "An image synthesizer", SIGGRAPH 1985 (noise, turbulence, marble); Perlin, "Improving noise", SIGGRAPH
2002, section 3 (the interpolating polynomial).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream, sin_cos_of_turn

__all__ = ["gradient_noise", "sine_of_turn", "turbulence"]

Float32s = NDArray[np.float32]

_WORD = 2.0**32


def turbulence(addresses: Addresses, side: int, *, cell: int, octaves: int, tiled: bool = False) -> Float32s:
    """Add the absolute values of octaves of gradient noise, each with half the cells and half the height of the former.

    Args:
        addresses: B of them, one a texture.
        side: pixels of the square textures, divisible by `cell`.
        cell: pixels between two lattice points of the first octave, divisible by 2^(octaves - 1).
        octaves: 1 or more.
        tiled: whether the right edge continues at the left one, and the lower at the upper.

    Returns:
        (B, side, side) float32, from 0 to about 1.

    Source: Perlin 1985, function `turbulence`.
    """
    total = np.zeros((len(addresses), side, side), np.float32)
    for octave in range(octaves):
        noise = gradient_noise(addresses, side, cell=cell >> octave, octave=octave, tiled=tiled)
        total += np.abs(noise) * np.float32(0.5**octave)
    return total


def gradient_noise(addresses: Addresses, side: int, *, cell: int, octave: int = 0, tiled: bool = False) -> Float32s:
    """Compute gradient noise at the middle of each pixel.

    Args:
        addresses: B of them, one a texture.
        side: pixels of the square textures, divisible by `cell`.
        cell: pixels between two lattice points.
        octave: each has its own directions.
        tiled: whether the last lattice points have the directions of the first ones, so that the edges continue.

    Returns:
        (B, side, side) float32 in [-1, 1], 0 at lattice points.
    """
    cells = side // cell
    points = cells + 1
    turns = addresses.uniforms(Stream.STEP, points * points, step=octave)
    words = (turns * _WORD).astype(np.uint32).reshape(-1, points, points)
    if tiled:
        words[:, -1], words[:, :, -1] = words[:, 0], words[:, :, 0]
    down, right = (part.astype(np.float32)[:, :, None, :, None] for part in sin_cos_of_turn(words))
    at = (np.arange(cell, dtype=np.float32) + np.float32(0.5)) / np.float32(cell)  # of a pixel in its cell
    fade = at * at * at * (at * (at * 6 - 15) + 10)
    noise = np.zeros((len(addresses), cells, cell, cells, cell), np.float32)
    for below in (0, 1):
        for beyond in (0, 1):
            corner = np.s_[:, below : below + cells, :, beyond : beyond + cells, :]
            slope = down[corner] * (at - below)[:, None, None] + right[corner] * (at - beyond)
            share = (fade if below else 1 - fade)[:, None, None] * (fade if beyond else 1 - fade)
            noise += slope * share
    return noise.reshape(-1, side, side)  # (B, cells, cell, cells, cell) -> (B, side, side)


def sine_of_turn(turns: Float32s) -> Float32s:
    """Compute the sine of angles of any number of turns by exactly rounded operations alone, in [-1, 1]."""
    fraction = turns - np.floor(turns)
    words = (fraction.astype(np.float64) * _WORD).astype(np.uint64).astype(np.uint32)  # a whole turn is none
    return sin_cos_of_turn(words)[0].astype(np.float32)
