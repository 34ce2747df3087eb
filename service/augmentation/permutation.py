"""A keyed permutation of 0 … size - 1: the order in which a plan's slots are sent, computed without a list of them.

A Feistel network over the next power of two, with cycle walking: a value that falls outside is encrypted again until it
falls inside. So every range of rows is a mix of all strata, in memory that does not grow with the plan.

Sources: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, sections 3 and 5 (cycle walking,
Feistel); Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 16 (the mix).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream

__all__ = ["KEY_BLOCKS", "MAX_ROWS", "Permutation"]

MAX_ROWS = 2**40
"""The most rows of a plan."""

_ROUNDS = 8  # even, so that the halves, which may differ by a bit, end in their places

KEY_BLOCKS = _ROUNDS // 2
"""Blocks of the stream `order` that the keys take at address (seed, 0)."""

_SHIFT_30, _SHIFT_27, _SHIFT_31 = np.uint64(30), np.uint64(27), np.uint64(31)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

Uint64s = NDArray[np.uint64]
_Step = Callable[[Uint64s], Uint64s]


class Permutation:
    """The permutation of one seed and size.

    Args:
        seed: of the plan; keys are read on the stream `order` at address (seed, 0).
        size: number of values, 0 to MAX_ROWS.
    """

    def __init__(self, seed: int, size: int) -> None:
        words = Addresses.of_range(seed, 0, 1).words(Stream.ORDER, 2 * _ROUNDS)[0].astype(np.uint64)  # (16,)
        self._keys: list[np.uint64] = list(words[0::2] | (words[1::2] << np.uint64(32)))
        bits = max(size - 1, 0).bit_length()
        self._size = np.uint64(size)
        self._low_bits = bits // 2
        self._high_bits = bits - self._low_bits

    def slots(self, rows: Uint64s) -> Uint64s:
        """Return π(rows): the slots of rows, which must be below `size`."""
        return self._walk(rows, self._encrypt)

    def rows(self, slots: Uint64s) -> Uint64s:
        """Return the rows of slots: the inverse of `slots`."""
        return self._walk(slots, self._decrypt)

    def _walk(self, values: Uint64s, step: _Step) -> Uint64s:
        """Step until inside: fewer than two steps a value on average, since the domain is less than twice the size."""
        values = step(values)
        outside = np.flatnonzero(values >= self._size)
        while len(outside):
            again = step(values[outside])
            values[outside] = again
            outside = outside[again >= self._size]
        return values

    def _encrypt(self, values: Uint64s) -> Uint64s:
        high_bits, low_bits = self._high_bits, self._low_bits
        high, low = values >> np.uint64(low_bits), values & _mask(low_bits)
        for key in self._keys:
            high, low = low, high ^ (_mix(low, key) & _mask(high_bits))
            high_bits, low_bits = low_bits, high_bits
        return (high << np.uint64(low_bits)) | low

    def _decrypt(self, values: Uint64s) -> Uint64s:
        high_bits, low_bits = self._high_bits, self._low_bits
        high, low = values >> np.uint64(low_bits), values & _mask(low_bits)
        for key in reversed(self._keys):
            high_bits, low_bits = low_bits, high_bits
            high, low = low ^ (_mix(high, key) & _mask(high_bits)), high
        return (high << np.uint64(low_bits)) | low


def _mask(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)


def _mix(values: Uint64s, key: np.uint64) -> Uint64s:
    """Spread every bit of (values + key) over all 64, modulo 2^64."""
    z = values + key
    z = (z ^ (z >> _SHIFT_30)) * _MIX_1
    z = (z ^ (z >> _SHIFT_27)) * _MIX_2
    return z ^ (z >> _SHIFT_31)
