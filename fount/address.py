"""Sample addresses: noise is a function of (seed, index), independent of request, batch and worker.

Every random number in Fount is read from Philox4x32-10 at a 128-bit counter, so any one can be reproduced alone:

    key     = seed                                   (64 bit)
    counter = index (64 bit) · block (48 bit) · stream (16 bit)

The condition is not part of the counter: the same noise can be used under every label. Normals are Box-Muller in
float64, built from additions, multiplications, divisions and square roots alone. IEEE 754 rounds those exactly, so the
noise has the same bits on every processor; `log`, `sin` and `cos` of a maths library would not.

Sources: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox); Box and Muller
1958; Brock, Donahue, Simonyan, "Large scale GAN training", 2019, section 3.1 (truncation); FreeBSD msun, `e_log.c`,
`k_sin.c`, `k_cos.c` (polynomials).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_INDEX", "NOISE_VERSION", "Addresses", "Stream", "first_uniform", "philox4x32_10", "sin_cos_of_turn"]

NOISE_VERSION = "philox4x32-10/box-muller-1"
"""Version of the noise; part of every model digest."""

MAX_INDEX = 2**64 - 1
"""The largest sample index."""

Uint32s = NDArray[np.uint32]
Uint64s = NDArray[np.uint64]
Float64s = NDArray[np.float64]
Float32s = NDArray[np.float32]

_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_LOW_32, _SHIFT_32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDS = 10

_STEP_SHIFT = 24  # a step of a many-step sampler owns 2^24 blocks of the stream `step`
_REDRAW_SHIFT = 32  # a redraw of truncated normals owns 2^32 blocks of its stream
_MAX_REDRAWS = 2**16 - 1
_BLOCK_LIMIT = 2**48


class Stream(IntEnum):
    """The purpose of a random number; streams of one address never share numbers."""

    LATENT = 0
    LABEL = 1
    STEP = 2
    TRANSFORM = 3
    ATTEMPT = 4
    RESAMPLE = 5
    ORDER = 6


def philox4x32_10(counter: Uint32s, key: Uint32s) -> Uint32s:
    """Encrypt counters, (..., 4) uint32, with keys, (..., 2) uint32 broadcast against them: ten rounds of Philox4x32.

    Returns:
        (..., 4) uint32, uniform.

    Source: Salmon et al. 2011, figure 4; known answers in Random123's `kat_vectors`.
    """
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key[..., 0].astype(np.uint64), key[..., 1].astype(np.uint64)
    for _ in range(_ROUNDS):
        product_0, product_1 = np.uint64(_MULTIPLIER_0) * c0, np.uint64(_MULTIPLIER_1) * c2
        c0, c1, c2, c3 = (
            (product_1 >> _SHIFT_32) ^ c1 ^ k0,
            product_1 & _LOW_32,
            (product_0 >> _SHIFT_32) ^ c3 ^ k1,
            product_0 & _LOW_32,
        )
        k0 = (k0 + np.uint64(_WEYL_0)) & _LOW_32
        k1 = (k1 + np.uint64(_WEYL_1)) & _LOW_32
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def first_uniform(seed: int, index: int, stream: Stream) -> float:
    """Read the first uniform of one address: that of `Addresses.uniforms`, in Python's integers.

    For one address, this takes a tenth of the time of array operations.
    """
    multiplier_0, multiplier_1, low = _MULTIPLIER_0, _MULTIPLIER_1, 0xFFFFFFFF
    c0, c1, c2, c3 = index & low, index >> 32, 0, int(stream) << 16
    k0, k1 = seed & low, seed >> 32
    for _ in range(_ROUNDS):
        product_0, product_1 = multiplier_0 * c0, multiplier_1 * c2
        c0, c1, c2, c3 = (product_1 >> 32) ^ c1 ^ k0, product_1 & low, (product_0 >> 32) ^ c3 ^ k1, product_0 & low
        k0, k1 = (k0 + _WEYL_0) & low, (k1 + _WEYL_1) & low
    return ((c0 >> 5) << 26 | c1 >> 6) * 2.0**-53


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """A batch of sample addresses, one a row, of any mix of seeds.

    Attributes:
        seeds: (B,) uint64, the Philox keys.
        indices: (B,) uint64, the sample indices.
    """

    seeds: Uint64s
    indices: Uint64s

    @classmethod
    def of_range(cls, seed: int, start_index: int, count: int) -> Addresses:
        """Address `count` consecutive samples of one seed; start_index + count may be 2^64 at most."""
        indices = np.uint64(start_index) + np.arange(count, dtype=np.uint64)
        return cls(seeds=np.full(count, seed, np.uint64), indices=indices)

    @classmethod
    def concatenate(cls, parts: list[Addresses]) -> Addresses:
        """Join batches in order."""
        return cls(
            seeds=np.concatenate([part.seeds for part in parts]),
            indices=np.concatenate([part.indices for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, rows: slice | NDArray[np.intp]) -> Addresses:
        """Choose rows."""
        return Addresses(seeds=self.seeds[rows], indices=self.indices[rows])

    def words(self, stream: Stream, count: int, first_block: int = 0) -> Uint32s:
        """Read uniform 32-bit words.

        Args:
            stream: their purpose.
            count: words a row.
            first_block: first block of four words, 0 to 2^48 - 1.

        Returns:
            (B, count) uint32.

        Raises:
            ValueError: the blocks exceed their 48 bits.
        """
        blocks = -(-count // 4)
        if not 0 <= first_block <= _BLOCK_LIMIT - blocks:
            raise ValueError(f"blocks {first_block} to {first_block + blocks} are outside 0 to 2^48")
        block = np.arange(first_block, first_block + blocks, dtype=np.uint64)
        counter = np.empty((len(self), blocks, 4), np.uint32)  # (B, blocks, 4)
        counter[..., 0] = (self.indices & _LOW_32)[:, None]
        counter[..., 1] = (self.indices >> _SHIFT_32)[:, None]
        counter[..., 2] = block & _LOW_32
        counter[..., 3] = (block >> _SHIFT_32) | np.uint64(int(stream) << 16)
        key = np.stack([self.seeds & _LOW_32, self.seeds >> _SHIFT_32], axis=-1).astype(np.uint32)
        words = philox4x32_10(counter, key[:, None, :])
        return words.reshape(len(self), blocks * 4)[:, :count]  # (B, blocks, 4) -> (B, count)

    def uniforms(self, stream: Stream, count: int, first_block: int = 0, *, step: int = 0) -> Float64s:
        """Read uniforms in [0, 1) with 53 random bits; (B, count) float64. Each step of a sampler has its own."""
        words = self.words(stream, 2 * count, first_block + (step << _STEP_SHIFT)).astype(np.uint64)
        high, low = words[:, 0::2] >> np.uint64(5), words[:, 1::2] >> np.uint64(6)  # 27 and 26 bits
        return ((high << np.uint64(26)) | low).astype(np.float64) * 2.0**-53

    def normals(self, stream: Stream, count: int, *, step: int = 0, truncation: float | None = None) -> Float32s:
        """Read standard normals.

        Args:
            stream: their purpose.
            count: normals a row.
            step: step of a many-step sampler; each has its own numbers.
            truncation: components beyond this many standard deviations are redrawn from further blocks of the
                row. None: no bound.

        Returns:
            (B, count) float32, N(0, 1), or its truncation to [-truncation, truncation].

        Raises:
            ValueError: the truncation is not above 0, is requested beyond step 255 (whose blocks overlap those of
                redraws), or is so small that 65 535 redraws were not enough.
        """
        first = step << _STEP_SHIFT
        z = _box_muller(self.words(stream, 2 * (-(-count // 2)), first))[:, :count]
        if truncation is None:
            return z
        if not truncation > 0 or step >> (_REDRAW_SHIFT - _STEP_SHIFT):
            raise ValueError(f"truncation must be above 0 and of steps 0 to 255, got {truncation} of step {step}")
        return self._redraw(z, stream, first, np.float32(truncation))

    def _redraw(self, z: Float32s, stream: Stream, first: int, bound: np.float32) -> Float32s:
        z, count = z.copy(), z.shape[1]
        for redraw in range(1, _MAX_REDRAWS + 1):
            beyond = np.abs(z) > bound  # (B, count)
            rows = np.flatnonzero(beyond.any(axis=1))
            if not len(rows):
                return z
            block = (redraw << _REDRAW_SHIFT) | first
            again = _box_muller(self.take(rows).words(stream, 2 * (-(-count // 2)), block))[:, :count]
            z[rows] = np.where(beyond[rows], again, z[rows])
        raise ValueError(f"truncation {bound} was not reached in {_MAX_REDRAWS} redraws")


def _box_muller(words: Uint32s) -> Float32s:
    """Turn pairs of words, (B, 2k) uint32, into N(0, 1) of one shape: float64 rounded once to float32, at most 6.77.

    Source: Box and Muller 1958, equation 1, with u1 at the middle of its cell so that it is never 0.
    """
    u1 = (words[:, 0::2].astype(np.float64) + 0.5) * 2.0**-32
    radius = np.sqrt(-2.0 * _log(u1))
    sine, cosine = sin_cos_of_turn(words[:, 1::2])
    z = np.empty(words.shape, np.float64)
    z[:, 0::2], z[:, 1::2] = radius * cosine, radius * sine
    return z.astype(np.float32)


_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG_COEFFICIENTS = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
    1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01,
)  # fmt: skip


def _log(x: Float64s) -> Float64s:
    """Compute the natural logarithm of 0 < x < 1 by exactly rounded operations alone, within 1 unit in the last place.

    Source: FreeBSD msun `e_log.c`: x = 2^k (1 + f), log(1 + f) = f - (f²/2 - s (f²/2 + R)), s = f / (2 + f).
    """
    mantissa, exponent = np.frexp(x)  # exact: 0.5 <= mantissa < 1
    below = mantissa < math.sqrt(0.5)
    mantissa = np.where(below, 2.0 * mantissa, mantissa)
    k = exponent - below
    f = mantissa - 1.0  # exact; sqrt(1/2) - 1 <= f < sqrt(2) - 1
    s = f / (2.0 + f)
    remainder = s * s * _horner(s * s, _LOG_COEFFICIENTS)
    half_square = 0.5 * f * f
    return np.asarray(k * _LN2_HIGH - ((half_square - (s * (half_square + remainder) + k * _LN2_LOW)) - f))


_SIN_COEFFICIENTS = (
    -1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
    2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10,
)  # fmt: skip
_COS_COEFFICIENTS = (
    4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
    -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11,
)  # fmt: skip


def sin_cos_of_turn(words: Uint32s) -> tuple[Float64s, Float64s]:
    """Compute sine and cosine of words / 2^32 turns by exactly rounded operations alone.

    Source: FreeBSD msun `k_sin.c`, `k_cos.c` on the nearest eighth of a turn, then the quadrant's signs.
    """
    # The nearest quarter turn is subtracted in integers, which is exact: the rest is within an eighth of a turn.
    quarter = ((words.astype(np.uint64) + np.uint64(1 << 29)) >> np.uint64(30)).astype(np.int64)
    rest = words.astype(np.int64) - (quarter << 30)
    angle = rest.astype(np.float64) * (2.0 * math.pi * 2.0**-32)  # [-π/4, π/4]
    square = angle * angle
    sine = angle + angle * (square * _horner(square, _SIN_COEFFICIENTS))
    cosine = 1.0 - (0.5 * square - square * (square * _horner(square, _COS_COEFFICIENTS)))
    swap, negative_sine, negative_cosine = quarter % 2 == 1, quarter % 4 >= 2, (quarter + 1) % 4 >= 2
    sine, cosine = np.where(swap, cosine, sine), np.where(swap, sine, cosine)
    return np.where(negative_sine, -sine, sine), np.where(negative_cosine, -cosine, cosine)


def _horner(x: Float64s, coefficients: tuple[float, ...]) -> Float64s:
    value = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
