"""The profile: the batch sizes at which a row gets the same bits, wherever it is placed and whatever is in its batch.

Kernels choose their blocking by the batch size, so a row may be rounded in another order at another size, or at the
tail of a batch. Each candidate size runs the same rows several times, shuffled among other rows. A size that disagrees
with itself is dropped; sizes that agree with each other form groups; one group becomes `exec_batch_sizes`, the only
shapes the worker ever executes. The choice depends on these equalities alone, never on time, so every worker of the
same numerics chooses alike. Sampling parameters are at their defaults while measuring.

The time of a batch is measured as well, as the minimum of several: other load on the machine can only add to it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from handlers.execution.network import Network, Operation
from handlers.execution.numerics import Numerics
from handlers.execution.rows import Rows
from handlers.state import State
from handlers.verification.probes import make_probe_rows
from handlers.versions import PROFILE_VERSION

__all__ = [
    "CANDIDATES", "Profile", "ProfileError", "choose_sizes", "load_or_measure_profile", "measure_profile", "run_probe",
]  # fmt: skip

_LOG = logging.getLogger(__name__)

CANDIDATES = (1, 8, 16, 32, 64, 128, 256)
"""Batch sizes that may be executed, up to the card's limits.max_exec_batch."""

_KIND = "profiles"
_ROUNDS = 2
_TIMED_ROUNDS, _TIMED_S = 8, 1.0  # limits of the timing; slow batches are timed less often
_MIN_POOL = 16
_LARGEST_COMPILED = 64  # each size takes seconds to compile, and larger ones are rarely faster per row
_PROBE_SEED = 0x50524F42
_SHUFFLE_SEED = 0x53485546


class ProfileError(Exception):
    """No batch size gives a row the same bytes twice. Look for randomness or state in the family."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Measurements of one model on one numerics.

    Attributes:
        exec_batch_sizes: ascending, never empty; every row is equal at every one of them.
        seconds_per_batch: minimum time of one batch for each candidate size, all operations together; never more than
            that of a larger size.
    """

    exec_batch_sizes: tuple[int, ...]
    seconds_per_batch: Mapping[int, float]


def load_or_measure_profile(network: Network, model_digest: str, numerics: Numerics, state: State) -> Profile:
    """Read the profile from the worker's state, or measure and store it.

    A stored profile is used only if rows are still equal at its sizes: a wrong one would silently break the promise
    that an address determines its sample.

    Raises:
        ProfileError: no size is usable.
    """
    candidates = _candidates(network)
    document = state.read(_KIND, model_digest, numerics.id)
    if document is not None and (stored := _read_document(document, candidates)):
        if _rows_agree(network, stored.exec_batch_sizes):
            return stored
        _LOG.warning("rows are not equal at the stored sizes %s; measuring again", stored.exec_batch_sizes)
    profile = measure_profile(network)
    document = {
        "version": PROFILE_VERSION,
        "candidates": candidates,
        "exec_batch_sizes": profile.exec_batch_sizes,
        "seconds_per_batch": profile.seconds_per_batch,
    }
    state.write(_KIND, model_digest, numerics.id, document)
    return profile


def measure_profile(network: Network) -> Profile:
    """Run every candidate size and keep those at which rows are equal.

    Raises:
        ProfileError: no size agrees with itself.
    """
    candidates = _candidates(network)
    probes = {operation: _probe_rows(network, operation, candidates[-1]) for operation in network.card.operations}
    digests: dict[int, tuple[bytes, ...] | None] = {}
    seconds: dict[int, float] = {}
    for size in candidates:
        digests[size], seconds[size] = _measure_size(network, probes, size)
    sizes = choose_sizes(digests)
    if not sizes:
        raise ProfileError("no batch size gives a row the same bytes twice; look for randomness or state in the family")
    _time_again(network, probes, sizes, seconds)
    falling = accumulate((seconds[size] for size in reversed(candidates)), min)
    least = dict(zip(candidates, tuple(falling)[::-1], strict=True))
    return Profile(exec_batch_sizes=sizes, seconds_per_batch=least)


def run_probe(network: Network) -> None:
    """Run one row of each operation."""
    for operation in network.card.operations:
        network.run(operation, _probe_rows(network, operation, 1).take(slice(0, 1)))


def choose_sizes(digests: Mapping[int, tuple[bytes, ...] | None]) -> tuple[int, ...]:
    """Choose the group of equal sizes: the one with most sizes, then the one with the largest size.

    Args:
        digests: for each size the digest of every probe row, or None when the size disagrees with itself.

    Returns:
        Ascending sizes; empty when every size disagrees with itself.
    """
    groups: dict[tuple[bytes, ...], list[int]] = {}
    for size, rows in sorted(digests.items()):
        if rows is not None:
            groups.setdefault(rows, []).append(size)
    _, _, best = max(((len(sizes), sizes[-1], sizes) for sizes in groups.values()), default=(0, 0, []))
    return tuple(best)


def _time_again(
    network: Network, probes: Mapping[Operation, Rows], sizes: Sequence[int], seconds: dict[int, float]
) -> None:
    """Lower the seconds of chosen sizes to the minimum of several rounds; a busy moment hits all sizes alike."""
    started = time.perf_counter()
    for _ in range(_TIMED_ROUNDS):
        for size in sizes:
            start = time.perf_counter()
            if start - started > _TIMED_S:
                return
            for operation, rows in probes.items():
                network.run(operation, rows.take(slice(0, size)))
            seconds[size] = min(seconds[size], time.perf_counter() - start)


def _rows_agree(network: Network, sizes: Sequence[int]) -> bool:
    """Run the same rows at every size and compare; this also warms up kernel selection before the first call."""
    for operation in network.card.operations:
        rows = _probe_rows(network, operation, sizes[-1])
        digests = set()
        for size in sizes:  # the row count is a multiple of every size
            digest = hashlib.sha256()
            for start in range(0, len(rows), size):
                digest.update(network.run(operation, rows.take(slice(start, start + size))).tobytes())
            digests.add(digest.digest())
        if len(digests) > 1:
            return False
    return True


def _candidates(network: Network) -> tuple[int, ...]:
    largest = min(network.card.limits.max_exec_batch, _LARGEST_COMPILED if network.compiled else CANDIDATES[-1])
    return tuple(size for size in CANDIDATES if size <= largest)


def _measure_size(
    network: Network, probes: Mapping[Operation, Rows], size: int
) -> tuple[tuple[bytes, ...] | None, float]:
    """Run every probe row at one size, shuffled several times.

    Returns:
        The digest of each row, or None when a row had two; and the least seconds of a batch.
    """
    seen: dict[int, bytes] = {}
    seconds, consistent = [], True
    for places in _shuffles(len(next(iter(probes.values()))), size):
        start = time.perf_counter()
        results = [network.run(operation, rows.take(places)) for operation, rows in probes.items()]
        seconds.append(time.perf_counter() - start)
        for position, row in enumerate(places.tolist()):
            digest = hashlib.sha256(b"".join(result[position].tobytes() for result in results)).digest()
            consistent = consistent and seen.setdefault(row, digest) == digest
    return (tuple(seen[row] for row in sorted(seen)) if consistent else None), min(seconds)


def _shuffles(pool: int, size: int) -> Iterator[NDArray[np.intp]]:
    """Split several shuffles of the pool into batches: every row runs once a round, and every place is filled."""
    keys = Addresses.of_range(_SHUFFLE_SEED, size * _ROUNDS, _ROUNDS).words(Stream.LATENT, pool)  # (rounds, pool)
    for order in np.argsort(keys, axis=1, kind="stable"):
        yield from np.split(order, pool // size)


def _probe_rows(network: Network, operation: Operation, largest: int) -> Rows:
    """Make the probe rows: two batches of the largest size, so that its rows are shuffled among others, too."""
    addresses = Addresses.of_range(_PROBE_SEED, 0, max(2 * largest, _MIN_POOL))
    return make_probe_rows(network.card, operation, addresses)


def _read_document(document: Mapping[str, Any], candidates: Sequence[int]) -> Profile | None:
    """Read a stored profile; None when it is malformed, or was measured under other limits or by another version."""
    sizes, seconds = document.get("exec_batch_sizes"), document.get("seconds_per_batch")
    is_current = (document.get("version"), document.get("candidates")) == (PROFILE_VERSION, list(candidates))
    if not is_current or not isinstance(sizes, list) or not isinstance(seconds, dict):
        return None
    if not sizes or sizes != [size for size in candidates if size in sizes]:
        return None
    if not all(isinstance(value, float) and value >= 0 for value in seconds.values()):
        return None
    measured = {size: seconds[str(size)] for size in candidates if str(size) in seconds}
    if any(not measured.get(size) for size in sizes):  # batch planning needs a time for each of them
        return None
    return Profile(exec_batch_sizes=tuple(sizes), seconds_per_batch=measured)
