"""The copy filter: compare how near a sample is to one training row with how near it is to others.

Images and their labels enter; for each leaves d1 / mean(d2 ... d10) of its distances to the training rows of its class:
about 1 where many are equally near, towards 0 where one was copied. Training rows that equal each other count once: a
row that is there ten times would be its own neighbours. `calibrate` finds the ratio that held-out real rows are hardly
ever below; those that equal a training row are not held out, and do not count.

Every ratio has the same bits on every processor. Squared distances are exact whole numbers
(`service/pixel_products.py`), roots and quotients are rounded exactly by IEEE 754, and the mean is added in a fixed
order.

Source: Carlini et al., "Extracting training data from diffusion models", USENIX Security 2023, section 5 (a distance
relative to those of the neighbours); the threshold from held-out rows is this project's own.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from fount.cancellation import check_cancelled
from fount.readers.dataset import DatasetSplit
from service.pixel_products import Integers, centred_pixels, exact_keys, exact_products, exact_squares

__all__ = ["Calibration", "CopyFilter", "PixelCache", "calibrate"]

NEIGHBOURS = 10
FEWEST_ROWS = 3
"""A class of fewer training rows has no filter: a mean needs two distances besides the nearest."""

_BLOCK_BYTES = 8 << 20  # of training rows as float32
_MOST_ROWS = 4096  # of a block, so that rows of few pixels do not make tall distance tables
_IMAGES_AT_ONCE = 256  # a table of 256 x 4096 distances is 4 or 8 MiB
_IMAGES_BYTES = 128 << 20  # of them as float32; large, since all training rows may have to be read for each
_DRAWN_AT_ONCE = 1 << 16  # random words, to choose rows
_CACHE_BYTES = 512 << 20
_CALIBRATION_ROWS = 2000

Images = NDArray[np.uint8]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """Training rows of one class that equal no earlier ones: pixels (n, D) less 128, squared lengths and keys (n,)."""

    pixels: Float32s
    squares: Integers
    keys: NDArray[np.void]


class PixelCache:
    """The training rows used last, prepared for distances, over all data sets; at most `most_bytes`. Thread-safe."""

    def __init__(self, most_bytes: int = _CACHE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._held = 0
        self._blocks: OrderedDict[tuple[object, ...], _Block] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> _Block | None:
        """Return a block, or None when it is not in the cache."""
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def put(self, key: tuple[object, ...], block: _Block) -> None:
        """Add a block and drop those used longest ago."""
        with self._lock:
            if key in self._blocks or block.pixels.nbytes > self._most_bytes:
                return
            self._blocks[key] = block
            self._held += block.pixels.nbytes
            while self._held > self._most_bytes:
                _, oldest = self._blocks.popitem(last=False)
                self._held -= oldest.pixels.nbytes


class CopyFilter:
    """Compares images with the training rows of their class.

    Args:
        train: the rows a generator may have been trained on.
        cache: where rows are kept between calls; None: a cache of its own.
        dataset_digest: with the name of the split, names these rows in a shared cache.
    """

    def __init__(self, train: DatasetSplit, cache: PixelCache | None = None, dataset_digest: str = "") -> None:
        self._train = train
        self._cache = cache or PixelCache()
        self._name = (dataset_digest, train.name)
        self._rows: dict[int, NDArray[np.int64]] = {}

    def ratios(self, images: Images, labels: NDArray[np.uint32]) -> Float64s:
        """Compare images with the training rows of their labels. Slow: not for an event loop.

        Args:
            images: (n, H, W, C) uint8.
            labels: (n,) class ids.

        Returns:
            (n,) d1 / mean(d2 ... d10), over fewer rows where there are fewer; NaN where fewer than 3. Of a class whose
            rows are fewer than 3 pictures many times, a copy has 0 and others NaN.

        Raises:
            DataError: a training row cannot be read.
        """
        ratios = np.full(len(images), np.nan)
        for label in np.unique(labels).tolist():
            if len(self._class_rows(label)) < FEWEST_ROWS:
                continue
            of_class = np.flatnonzero(labels == label)
            step = _images_at_once(images.shape[1:])
            for first in range(0, len(of_class), step):
                chosen = of_class[first : first + step]
                ratios[chosen] = self._nearest_to_ratios(self._nearest(images[chosen], label))
        return ratios

    def _class_rows(self, label: int) -> NDArray[np.int64]:
        if label not in self._rows:
            self._rows[label] = np.flatnonzero(self._train.labels == label).astype(np.int64)
        return self._rows[label]

    def _nearest(self, images: Images, label: int) -> Integers:
        """Return the squared distances to the nearest training rows of a class, ascending: (n, at most 10)."""
        pixels = centred_pixels(images)
        squares = exact_squares(pixels)
        nearest = np.empty((len(images), 0), squares.dtype)
        for block in self._blocks(label, pixels.shape[1]):
            distances = exact_products(pixels, block.pixels)  # (n, block)
            distances *= -2
            distances += block.squares
            if distances.shape[1] > NEIGHBOURS:
                distances = np.partition(distances, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
            nearest = np.sort(np.concatenate([nearest, distances], axis=1), axis=1)[:, :NEIGHBOURS]
        return np.asarray(nearest + squares[:, None])

    @staticmethod
    def _nearest_to_ratios(nearest: Integers) -> Float64s:
        """Turn (n, k) squared distances, ascending, into (n,) ratios."""
        if nearest.shape[1] < FEWEST_ROWS:
            return np.where(nearest[:, 0] == 0, 0.0, np.nan)
        distances = np.sqrt(nearest.astype(np.float64))  # exact below 2^53
        total = np.zeros(len(distances))
        for column in range(1, distances.shape[1]):  # a fixed order: np.sum's depends on the processor
            total += distances[:, column]
        mean = total / (distances.shape[1] - 1)
        return np.asarray(distances[:, 0] / mean)  # rows differ, so at most one distance is 0

    def _blocks(self, label: int, pixels: int) -> Iterator[_Block]:
        rows = self._class_rows(label)
        size = max(1, min(_MOST_ROWS, _BLOCK_BYTES // (4 * pixels)))
        earlier = [np.empty(0, "V16")]
        for first in range(0, len(rows), size):
            check_cancelled()
            key = (*self._name, label, first)
            block = self._cache.get(key)
            if block is None:
                block = _distinct_block(self._train.images(rows[first : first + size]), np.concatenate(earlier))
                self._cache.put(key, block)
            earlier.append(block.keys)
            yield block


def _distinct_block(images: Images, earlier: NDArray[np.void]) -> _Block:
    keys = exact_keys(images)
    first = np.sort(np.unique(keys, return_index=True)[1])
    new = first[~np.isin(keys[first], earlier)]
    pixels = centred_pixels(images[new])
    return _Block(pixels=pixels, squares=exact_squares(pixels), keys=keys[new])


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """A threshold, and the held-out rows it could not be found from.

    Attributes:
        threshold: a sample below it counts as a copy; 0.0: there was no row to find it from, and no sample does.
        tried: how many held-out rows were compared.
        leaked: numbers of those that equal a training row of their class, ascending.
    """

    threshold: float
    tried: int
    leaked: NDArray[np.int64]


def calibrate(
    train: DatasetSplit, held_out: DatasetSplit, quantile: float, seed: int, most: int = _CALIBRATION_ROWS
) -> Calibration:
    """Find the ratio that a share of real rows outside the training set are below. Slow: not for an event loop.

    Args:
        train: the rows compared with.
        held_out: real rows of the same classes.
        quantile: the share, 0 to 0.5.
        seed: chooses the rows.
        most: number of rows of `held_out` to try.

    Raises:
        DataError: a row cannot be read.
    """
    rows = _choose(len(held_out), most, seed)
    labels, compare, step = held_out.labels[rows], CopyFilter(train), _images_at_once(held_out.shape)
    parts = [
        compare.ratios(held_out.images(rows[first : first + step]), labels[first : first + step])
        for first in range(0, len(rows), step)
    ]
    ratios = np.concatenate([np.empty(0), *parts])
    held_out_ratios = np.sort(ratios[ratios > 0])  # not those that equal a training row, and not NaN
    threshold = float(held_out_ratios[int(quantile * len(held_out_ratios))]) if len(held_out_ratios) else 0.0
    return Calibration(threshold=threshold, tried=len(rows), leaked=rows[ratios == 0])


def _choose(count: int, most: int, seed: int) -> NDArray[np.int64]:
    """Choose at most `most` of `count` rows, those with the smallest words on the stream ORDER, ascending."""
    if count <= most:
        return np.arange(count, dtype=np.int64)
    words = np.empty(count, np.uint32)
    for at in range(0, count, _DRAWN_AT_ONCE):
        check_cancelled()
        addresses = Addresses.of_range(seed, at, min(_DRAWN_AT_ONCE, count - at))
        words[at : at + len(addresses)] = addresses.words(Stream.ORDER, 1)[:, 0]  # (n, 1) -> (n,)
    return np.sort(np.argsort(words, kind="stable")[:most]).astype(np.int64)


def _images_at_once(shape: tuple[int, ...]) -> int:
    return max(1, min(_IMAGES_AT_ONCE, _IMAGES_BYTES // (4 * math.prod(shape))))
