"""Exact nearest neighbours by Euclidean distance, tile by tile: the basis of copy, manifold and birthday statistics.

Rows enter, distances and row numbers leave. Images (uint8) have exact whole-number squared distances. Features are
centred and multiplied as one matrix product a tile; every pair that may be among the nearest is then computed again,
directly, in float64: from a product alone a row's distance to itself would not be 0, and duplicates would not be found.
Memory is that of the result and of one tile, never of all pairs.

A tile's squared distances are within `slack` of the direct ones: the rounding of a product of d terms is at most about
d · 2^-53 of the factors' lengths (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1); four
times that is allowed for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.evaluation.statistics.rows import Bools, Float64s, Int64s
from service.pixel_products import centred_pixels, exact_products, exact_squares

__all__ = ["Rows", "Tile", "nearest", "nearest_squares", "prepare", "tiles"]

_QUERIES = 512
_ROWS = 2048  # a tile of 512 x 2048 is 4 or 8 MiB
_MOST_CANDIDATES = 8  # times k a query; with more, the k-th of the tile is found first
_DIRECT_NUMBERS = 1 << 21  # numbers of the pairs that are computed directly at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Rows prepared for comparison by `prepare`.

    Attributes:
        values: (n, D) uint8, float32 or float64, unchanged.
        centre: (D,) float64, subtracted before products; None for uint8.
        squares: (n,) squared lengths after centring; integers for uint8.
    """

    values: NDArray[Any]
    centre: Float64s | None
    squares: NDArray[Any]

    def __len__(self) -> int:
        return len(self.values)

    def part(self, first: int, last: int) -> Rows:
        """Return rows first to last - 1."""
        return Rows(values=self.values[first:last], centre=self.centre, squares=self.squares[first:last])


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """Squared distances between some queries and some rows.

    Attributes:
        first_query: number of its first query.
        first_row: number of its first row.
        squares: (q, r) int32, int64 or float64.
        slack: (q, 1) float64, a bound of their rounding error; 0 for uint8.
    """

    first_query: int
    first_row: int
    squares: NDArray[Any]
    slack: Float64s
    _queries: Rows
    _rows: Rows

    def direct(self, queries: Int64s, rows: Int64s) -> Float64s:
        """Compute squared distances of pairs, given by position in the tile: (pairs,), exactly 0 for equal rows."""
        if self._queries.centre is None:
            return self.squares[queries, rows].astype(np.float64)
        a, b = self._queries.values, self._rows.values
        step = max(1, _DIRECT_NUMBERS // a.shape[1])
        result = np.empty(len(queries))
        for at in range(0, len(queries), step):
            pairs = slice(at, at + step)
            apart = a[self.first_query + queries[pairs]].astype(np.float64)  # (pairs, D)
            apart -= b[self.first_row + rows[pairs]]
            result[pairs] = np.einsum("ij,ij->i", apart, apart)
        return result


def prepare(rows: NDArray[Any], centre: Float64s | None = None) -> Rows:
    """Prepare rows, once for many calls of `nearest`. Images are not copied.

    Args:
        rows: (n, ...) uint8, float32 or float64; the axes after the first are flattened.
        centre: (D,) float64 to subtract; unset: the mean of the rows.
    """
    values = rows.reshape(len(rows), -1)  # (n, ...) -> (n, D)
    if values.dtype == np.uint8:
        parts = [exact_squares(centred_pixels(values[at : at + _ROWS])) for at in range(0, len(values), _ROWS)]
        return Rows(values=values, centre=None, squares=np.concatenate([np.empty(0, np.int32), *parts]))
    wrong = len(values) - int(np.count_nonzero(np.isfinite(values).all(axis=1)))
    if wrong:
        raise ValueError(f"{wrong} of {len(values)} rows are not finite: leave them out")
    if centre is None:
        centre = values.mean(axis=0, dtype=np.float64) if len(values) else np.zeros(values.shape[1])
    squares = np.empty(len(values))
    for at in range(0, len(values), _ROWS):
        block = values[at : at + _ROWS] - centre
        squares[at : at + _ROWS] = np.einsum("ij,ij->i", block, block)
    return Rows(values=values, centre=centre, squares=squares)


def tiles(queries: Rows, rows: Rows, *, lower: bool = False) -> Iterator[Tile]:
    """Yield all squared distances, a tile at a time: queries in the outer loop, rows in the inner, both ascending.

    Args:
        queries: with the centre of `rows`.
        rows: to compare with.
        lower: queries and rows are the same; only tiles with a row of a smaller number than a query's.
    """
    for first in range(0, len(queries), _QUERIES):
        part = queries.part(first, first + _QUERIES)
        left = _left_factor(part)
        for start in range(0, first + len(part) if lower else len(rows), _ROWS):
            block = rows.part(start, min(start + _ROWS, first + len(part)) if lower else start + _ROWS)
            squares, slack = _squares(part, left, block)
            yield Tile(first_query=first, first_row=start, squares=squares, slack=slack, _queries=queries, _rows=rows)


def nearest(
    queries: NDArray[Any], rows: NDArray[Any] | Rows, k: int, *, exclude_self: bool = False
) -> tuple[Float64s, Int64s]:
    """Find the k nearest rows of each query, ascending; of equal distances, the smaller row number first.

    Args:
        queries: (n, ...) of the rows' shape and kind.
        rows: (m, ...) uint8, float32 or float64; or the result of `prepare`.
        k: how many.
        exclude_self: the queries are the rows; none is compared with itself.

    Returns:
        Euclidean distances (n, k) and row numbers (n, k); infinity and -1 where there are fewer rows. Splitting the
        queries over several calls changes no bit.
    """
    squares, numbers = nearest_squares(queries, rows, k, exclude_self=exclude_self)
    return np.sqrt(squares), numbers


def nearest_squares(
    queries: NDArray[Any], rows: NDArray[Any] | Rows, k: int, *, exclude_self: bool = False
) -> tuple[Float64s, Int64s]:
    """Find the same as `nearest`, with squared distances."""
    ready = rows if isinstance(rows, Rows) else prepare(rows)
    _check_same_kind(queries, ready, exclude_self)
    prepared = prepare(queries, ready.centre)
    squares, numbers = np.full((len(prepared), k), np.inf), np.full((len(prepared), k), -1, np.int64)
    for tile in tiles(prepared, ready):
        part = slice(tile.first_query, tile.first_query + len(tile.squares))
        if exclude_self:
            _exclude_diagonal(tile)
        _update_nearest(squares[part], numbers[part], tile)
    return squares, numbers


def _check_same_kind(queries: NDArray[Any], rows: Rows, exclude_self: bool) -> None:
    width, pixels = int(np.prod(queries.shape[1:])), queries.dtype == np.uint8
    if pixels != (rows.centre is None) or width != rows.values.shape[1]:
        raise ValueError(
            f"queries of {width} {queries.dtype} are not of one kind with rows of "
            f"{rows.values.shape[1]} {rows.values.dtype}"
        )
    if exclude_self and len(queries) != len(rows):
        raise ValueError(f"{len(queries)} queries cannot be the {len(rows)} rows themselves")


def _left_factor(queries: Rows) -> NDArray[Any]:
    """Return the left factor of a tile's product: pixels (q, D), or features as (q, D + 2): -2x, 1, |x|²."""
    if queries.centre is None:
        return centred_pixels(queries.values)
    left = np.empty((len(queries), queries.values.shape[1] + 2))
    left[:, :-2] = (queries.values - queries.centre) * -2.0
    left[:, -2] = 1.0
    left[:, -1] = queries.squares
    return left


def _squares(queries: Rows, left: NDArray[Any], rows: Rows) -> tuple[NDArray[Any], Float64s]:
    """Compute squared distances (q, r) and their slack (q, 1): |y|² - 2xy + |x|²."""
    if rows.centre is None:
        products = exact_products(left, centred_pixels(rows.values))
        products *= -2
        products += rows.squares
        products += queries.squares[:, None]
        return products, np.zeros((len(left), 1))
    right = np.empty((len(rows), left.shape[1]))
    right[:, :-2] = rows.values - rows.centre
    right[:, -2] = rows.squares
    right[:, -1] = 1.0
    reach = np.sqrt(queries.squares[:, None]) + np.sqrt(rows.squares.max(initial=0.0))
    return left @ right.T, 4 * (left.shape[1] + 8) * 2.0**-53 * reach**2


def _exclude_diagonal(tile: Tile) -> None:
    """Set each row's distance to itself to more than any other."""
    own = np.arange(len(tile.squares)) + tile.first_query - tile.first_row
    inside = np.flatnonzero((own >= 0) & (own < tile.squares.shape[1]))
    kind = tile.squares.dtype
    tile.squares[inside, own[inside]] = np.inf if kind.kind == "f" else np.iinfo(kind).max


def _update_nearest(squares: Float64s, numbers: Int64s, tile: Tile) -> None:
    """Merge the rows of a tile into the nearest (q, k) so far, in place."""
    chosen = _candidates(squares[:, -1:], squares.shape[1], tile)
    queries, rows = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
    if not len(queries):
        return
    k, touched = squares.shape[1], np.unique(queries)
    of = np.concatenate([np.repeat(touched, k), queries])
    all_squares = np.concatenate([squares[touched].ravel(), tile.direct(queries, rows)])
    all_numbers = np.concatenate([numbers[touched].ravel(), rows + tile.first_row])
    order = np.lexsort((all_squares, of))  # stable: equal ones stay ascending by row number
    kept = order[np.searchsorted(of[order], touched)[:, None] + np.arange(k)]  # (touched, k)
    squares[touched], numbers[touched] = all_squares[kept], all_numbers[kept]


def _candidates(farthest: Float64s, k: int, tile: Tile) -> Bools:
    """Return which of a tile (q, r) may be nearer than the farthest kept (q, 1); nothing is nearer than 0."""
    limit = np.where(farthest > 0, farthest + tile.slack, -np.inf)
    chosen = _below(tile.squares, limit)
    if np.count_nonzero(chosen) > _MOST_CANDIDATES * k * len(chosen) and k < chosen.shape[1]:
        best = np.partition(tile.squares, k - 1, axis=1)[:, k - 1 : k].astype(np.float64)
        chosen &= _below(tile.squares, np.nextafter(best + 2 * tile.slack, np.inf))
    return chosen


def _below(squares: NDArray[Any], limit: Float64s) -> Bools:
    if squares.dtype.kind == "f":
        return np.asarray(squares < limit)
    most = np.iinfo(squares.dtype).max // 2  # beyond any squared distance, and whole as float64 once rounded down
    return np.asarray(squares < np.ceil(np.clip(limit, -1, most)).astype(squares.dtype))
