"""Near-exact matches between images by hash, without comparing all pairs; for equal ones see `exact_keys`.

Images enter, hashes and matches leave. An image that was only brightened,
compressed or resized keeps most of its difference hash. Simple images share theirs by chance, so a share of near
matches is meaningful only in comparison with that of held-out rows.

Sources: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010; Krawetz, "Kind of like
that", 2013 (the difference hash).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.evaluation.statistics.rows import Bools, Float64s, Int64s

__all__ = ["difference_hashes", "near_matches"]

_CELL_ROWS, _CELL_COLUMNS = 8, 9
_IMAGES_AT_ONCE = 1024
_PAIRS_AT_ONCE = 1 << 20

UInt64s = NDArray[np.uint64]


def difference_hashes(images: NDArray[np.uint8]) -> UInt64s:
    """Compute the 64-bit difference hash: whether each cell of an 8 x 9 grey image is darker than the one to its right.

    Channels are added, cells are means over their area, in whole numbers: the same bits on every processor. In images
    of fewer than 9 pixels across, or 8 down, several cells lie within one pixel and are equal: their bits are 0, and
    the hash distinguishes that much less.

    Args:
        images: (n, H, W, C) or (n, H, W) uint8.

    Returns:
        (n,) uint64, the upper left cell in the highest bit.
    """
    hashes = np.empty(len(images), np.uint64)
    weights = np.uint64(1) << np.arange(63, -1, -1, dtype=np.uint64)
    for at in range(0, len(images), _IMAGES_AT_ONCE):
        part = images[at : at + _IMAGES_AT_ONCE]
        grey = part.astype(np.float64).reshape(*part.shape[:3], -1).sum(axis=3)  # (n, H, W[, C]) -> (n, H, W)
        # Whole numbers below 2^53 as long as C * H * W * 72 * 255 is: exact, in whatever order they are added.
        cells = _overlaps(_CELL_ROWS, grey.shape[1]) @ grey @ _overlaps(_CELL_COLUMNS, grey.shape[2]).T  # (n, 8, 9)
        darker = (cells[:, :, :-1] < cells[:, :, 1:]).reshape(len(part), 64)  # (n, 8, 8) -> (n, 64)
        hashes[at : at + _IMAGES_AT_ONCE] = (darker * weights).sum(axis=1, dtype=np.uint64)
    return hashes


def near_matches(hashes: UInt64s, rows_hashes: UInt64s, most_bits: int = 2) -> Bools:
    """Return which hashes differ from one of the rows' hashes in few bits.

    Bits are divided into most_bits + 1 bands, so two hashes that differ in no more are equal in at least one band: rows
    are sorted by band, and only those with an equal one are compared. The bits of a band are spread over the image: a
    dark margin that many images share does not fill one.

    Args:
        hashes: (n,) uint64.
        rows_hashes: (m,) uint64.
        most_bits: 0 to 63.

    Returns:
        (n,) bool.
    """
    if not 0 <= most_bits <= 63:
        raise ValueError(f"most_bits is 0 to 63, got {most_bits}")
    queries, place = np.unique(hashes, return_inverse=True)
    rows = np.unique(rows_hashes)
    found = np.isin(queries, rows)
    for band in range(most_bits + 1):
        bits = np.arange(band, 64, most_bits + 1, dtype=np.uint64)
        mask = np.bitwise_or.reduce(np.uint64(1) << bits)
        left = np.flatnonzero(~found)
        found[left] = _band_matches(queries[left], rows, mask, most_bits)
    return np.asarray(found[place])


def _overlaps(cells: int, pixels: int) -> Float64s:
    """Compute how much of each pixel lies in each cell, in 1/cells of a pixel: (cells, pixels), whole numbers."""
    starts, ends = np.arange(cells)[:, None] * pixels, np.arange(1, cells + 1)[:, None] * pixels
    firsts = np.arange(pixels) * cells
    lengths = np.minimum(ends, firsts + cells) - np.maximum(starts, firsts)
    return np.asarray(np.clip(lengths, 0, None), np.float64)


def _band_matches(queries: UInt64s, rows: UInt64s, mask: np.uint64, most_bits: int) -> Bools:
    """Return which queries have a row that is equal under the mask and near as a whole."""
    ordered = rows[np.argsort(rows & mask, kind="stable")]
    keys = ordered & mask
    firsts = np.searchsorted(keys, queries & mask, side="left")
    counts = np.searchsorted(keys, queries & mask, side="right") - firsts
    found = np.zeros(len(queries), np.bool_)
    ends = np.cumsum(counts)
    at = 0
    while at < len(queries):
        before = int(ends[at - 1]) if at else 0
        stop = max(at + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, side="right")))
        of, row = _expand(firsts[at:stop], counts[at:stop])
        near = np.bitwise_count(queries[at + of] ^ ordered[row]) <= most_bits
        found[at + of[near]] = True
        at = stop
    return found


def _expand(firsts: Int64s, counts: Int64s) -> tuple[Int64s, Int64s]:
    """Expand ranges (first, count) to pairs: which range, which position."""
    of = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    return of, firsts[of] + within
