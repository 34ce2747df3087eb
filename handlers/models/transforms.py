"""Image transforms: geometry, brightness, contrast, noise and erasing, each image by its own row of a table.

Nothing is learned, and only noise is drawn here: the table was drawn by the gateway. Geometry is one affine map for
each row, in the order flip, rotate, shear, zoom, shift, sampled bilinearly with black beyond the edges; then brightness
and contrast about the image's mean, noise, and the erased rectangle; values are rounded once, at the end.

A row's bytes never depend on the other rows of its batch: every step works on the rows that need it, by operations that
do not mix rows. The only sum over an image, its mean, is of whole numbers, so its order of summation does not matter.

Sources: Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial transformer networks", 2015, equations 1 and 5 (sampling
grid, bilinear reading); Zhong, Zheng, Kang, Li, Yang, "Random erasing data augmentation", 2020 (erase).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fount.address import Addresses, Stream
from fount.transform_columns import COLUMNS, IDENTITY, NOISE_FIRST_BLOCK

__all__ = ["Transforms"]

Float64s = NDArray[np.float64]
Table = Mapping[str, Float64s]

_WHITE = 255.0
_CHUNK_VALUES = 2**18  # values processed at once: they fit a core's cache
_FINE = 2.0**16  # means are summed in units of 1/2^16 of a level: whole numbers up to 2^24 are exact in float32
_NOISE_VALUES = 2**20  # noise values drawn at once
_LEVELS = 2**16  # distinct noise values, equally likely

_GEOMETRY = ("flip_horizontal", "flip_vertical", "rotate_degrees", "shear_degrees", "zoom_factor", "shift_x", "shift_y")


class Transforms(nn.Module):
    """A transformer of images of any shape; it has no weights."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module.

        Raises:
            ValueError: the configuration is not empty.
        """
        if config:
            raise ValueError(f"transforms take no configuration, got {sorted(config)}")
        return cls()

    def transform(self, images: Tensor, table: NDArray[np.float32], addresses: Addresses) -> Tensor:
        """Transform each image by its row of the table.

        Args:
            images: (B, H, W, C) uint8.
            table: (B, columns) float32, finite, zoom above 0; columns as in `fount.transform_columns`.
            addresses: B, at which noise is read.

        Returns:
            (B, H, W, C) uint8.
        """
        out = torch.empty_like(images)
        rows = max(1, _CHUNK_VALUES // max(1, images[0].numel()))
        for start in range(0, len(images), rows):
            part = slice(start, start + rows)
            if (table[part] == IDENTITY).all():
                out[part] = images[part]
                continue
            columns = dict(zip(COLUMNS, table[part].T.astype(np.float64), strict=True))
            x = images[part].permute(0, 3, 1, 2).contiguous().to(torch.float32)  # (b, H, W, C) -> (b, C, H, W)
            x = _add_noise(_shade(_move(x, columns), columns), columns, addresses.take(part))
            _round_into(out[part], _erase(x, columns))
        return out


def _round_into(out: Tensor, x: Tensor) -> None:
    """Round half to even, (b, C, H, W) to (b, H, W, C), by operations that torch has fast kernels for."""
    levels = x.round_().clamp_(0.0, _WHITE).to(torch.int16).to(torch.uint8)
    for channel in range(x.shape[1]):
        out[..., channel] = levels[:, channel]


def _move(x: Tensor, table: Table) -> Tensor:
    """Flip, rotate, shear, zoom and shift the rows that need it; (b, C, H, W)."""
    rows = _rows_with(table, _GEOMETRY)
    if not len(rows):
        return x
    chosen, height, width = torch.from_numpy(rows).to(x.device), x.shape[2], x.shape[3]
    whole = len(rows) == len(x)
    theta = torch.from_numpy(_inverse(table, rows, height, width)).to(x.device)  # (n, 2, 3)
    moved = functional.grid_sample(
        x if whole else x[chosen], _grid(theta, height, width), mode="bilinear", padding_mode="zeros",
        align_corners=False,
    )  # fmt: skip
    return moved if whole else x.index_copy_(0, chosen, moved)


def _inverse(table: Table, rows: NDArray[np.intp], height: int, width: int) -> NDArray[np.float32]:
    """Compute where each pixel is read: the inverse of shift · zoom · shear · rotation · flip about the centre.

    Returns:
        (n, 2, 3) float32: factors of x and y in pixels from the centre, and an offset, giving the position in the units
        of `grid_sample`, where an image spans -1 to 1.
    """
    angle, lean = np.deg2rad(table["rotate_degrees"][rows]), np.tan(np.deg2rad(table["shear_degrees"][rows]))
    cosine, sine, zoom = np.cos(angle), np.sin(angle), table["zoom_factor"][rows]
    unzoomed = np.array([[cosine, cosine * lean - sine], [sine, sine * lean + cosine]]) / zoom  # (2, 2, n)
    flips = np.array([table["flip_horizontal"][rows], table["flip_vertical"][rows]])
    unit = np.array([[2.0 / width], [2.0 / height]]) * np.where(flips > 0.5, -1.0, 1.0)  # (2, n)
    matrix = unzoomed * unit[:, None]
    shift_x, shift_y = table["shift_x"][rows] * width, table["shift_y"][rows] * height
    offset = -(matrix[:, 0] * shift_x + matrix[:, 1] * shift_y)  # (2, n)
    # (2, 3, n) -> (n, 2, 3)
    return np.concatenate([matrix, offset[:, None]], axis=1).transpose(2, 0, 1).astype(np.float32)


def _grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Compute where each pixel of each row is read, by sums only: `affine_grid` multiplies matrices and is slower.

    Args:
        theta: (n, 2, 3) float32.
        height: of the images.
        width: of the images.

    Returns:
        (n, H, W, 2) float32, x and y in [-1, 1] within the image.
    """
    x = torch.arange(width, dtype=torch.float32, device=theta.device) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float32, device=theta.device) - (height - 1) / 2
    of_x, of_y = theta[:, :, :1] * x, theta[:, :, 1:2] * y + theta[:, :, 2:]  # (n, 2, W), (n, 2, H)
    grid = torch.empty(len(theta), height, width, 2, device=theta.device)
    for axis in range(2):
        torch.add(of_x[:, axis, None, :], of_y[:, axis, :, None], out=grid[..., axis])
    return grid


def _shade(x: Tensor, table: Table) -> Tensor:
    """Scale contrast about the mean and add brightness: (v - m) f + m + b, with m the mean before either."""
    factor, brightness = table["contrast_factor"], table["brightness"] * _WHITE
    scaled = _rows_with(table, ("contrast_factor",))
    if not len(scaled) and not brightness.any():
        return x
    offset = brightness.copy()
    if len(scaled):
        offset[scaled] += _means(x[torch.from_numpy(scaled).to(x.device)]) * (1.0 - factor[scaled])
    return x.mul_(_spread(factor, x)).add_(_spread(offset, x))  # by 1 and 0 for rows that need neither


def _means(x: Tensor) -> Float64s:
    """Compute the mean of each image, (n, C, H, W) to (n,), independent of the order of summation."""
    fine = (x * _FINE).round_().sum(dim=(1, 2, 3), dtype=torch.float64)
    return np.asarray(fine.cpu().numpy() / (_FINE * x[0].numel()), np.float64)


def _add_noise(x: Tensor, table: Table, addresses: Addresses) -> Tensor:
    """Add normal noise to the rows that have any, each from its own address."""
    rows = _rows_with(table, ("noise_std",))
    if not len(rows):
        return x
    _, channels, height, width = x.shape
    z = torch.from_numpy(_normals(addresses.take(rows), height * width * channels)).to(x.device)
    z = z.reshape(len(rows), height, width, channels).permute(0, 3, 1, 2)  # (n, H·W·C) -> (n, C, H, W)
    noise = z * _spread(table["noise_std"][rows] * _WHITE, x)
    return x.index_add_(0, torch.from_numpy(rows).to(x.device), noise)


def _normals(addresses: Addresses, count: int) -> NDArray[np.float32]:
    """Draw noise: 2^16 quantiles of the normal distribution, each selected by half a word.

    Pixels have 256 levels, so finer noise would not be visible; Box-Muller takes six times as long.

    Returns:
        (n, count) float32, within ±4.33, of standard deviation 1.
    """
    z = np.empty((len(addresses), count), np.float32)
    part = max(8, _NOISE_VALUES // len(addresses) // 8 * 8)  # eight values a block
    for start in range(0, count, part):
        drawn = min(part, count - start)
        words = addresses.words(Stream.TRANSFORM, -(-drawn // 2), NOISE_FIRST_BLOCK + start // 8)
        halves = np.ascontiguousarray(words).astype("<u4", copy=False).view("<u2")
        z[:, start : start + drawn] = _quantiles()[halves[:, :drawn]]
    return z


@cache
def _quantiles() -> NDArray[np.float32]:
    middles = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS
    return np.asarray(torch.special.ndtri(middles).to(torch.float32).numpy())


def _erase(x: Tensor, table: Table) -> Tensor:
    """Set the rectangle of each row to black, its edges at the nearest pixels."""
    if not (table["erase_width"] * table["erase_height"]).any():
        return x
    columns = _between(table["erase_x"], table["erase_width"], x.shape[3], x)  # (b, W)
    lines = _between(table["erase_y"], table["erase_height"], x.shape[2], x)  # (b, H)
    return x.masked_fill_(lines[:, None, :, None] & columns[:, None, None, :], 0.0)


def _between(start: Float64s, length: Float64s, pixels: int, x: Tensor) -> Tensor:
    places = np.arange(pixels)
    first, stop = np.rint(start * pixels), np.rint((start + length) * pixels)
    return torch.from_numpy((places >= first[:, None]) & (places < stop[:, None])).to(x.device)


def _rows_with(table: Table, names: tuple[str, ...]) -> NDArray[np.intp]:
    """Find the rows that are not the identity in some columns."""
    return np.flatnonzero(np.any([table[name] != IDENTITY[COLUMNS.index(name)] for name in names], axis=0))


def _spread(values: Float64s, x: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(x.device)[:, None, None, None]  # (n,) -> (n, 1, 1, 1)
