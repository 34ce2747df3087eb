"""The profile: the batch sizes at which a row gets the same bits, wherever it is placed and whatever is in its batch.

Kernels choose their blocking by the batch size, so a row may be rounded in another order at another size, or at the
tail of a batch. Each candidate size runs the same rows several times, shuffled among other rows. A size that disagrees
with itself is dropped; sizes that agree with each other form groups; one group becomes `exec_batch_sizes`, the only
shapes the worker ever executes. Where single layers cause a smaller size to disagree, those are padded
(`handlers.execution.padding`), and the size joins if it then agrees. The choice depends on these equalities alone,
never on time, so every worker of the same numerics chooses alike. Sampling parameters are at their defaults while
measuring; of a sampler of many steps a few are taken, on fewer rows, because steps whose shapes agree compose to draws
that agree.

The time of a batch is measured as well, as the minimum of several: other load on the machine can only add to it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from handlers.execution.network import Network, Operation
from handlers.execution.numerics import Numerics
from handlers.execution.padding import Padding, find_padding, pad_layers, read_padding, unpad_layers
from handlers.execution.pixels import Values
from handlers.execution.probes import make_probe_rows
from handlers.execution.rows import Rows
from handlers.state import State
from handlers.versions import PROFILE_VERSION

__all__ = [
    "CANDIDATES", "Profile", "ProfileError", "choose_sizes", "load_or_measure_profile", "measure_profile",
    "pad_before_compiling", "rows_measured", "run_probe",
]  # fmt: skip

_LOG = logging.getLogger(__name__)

CANDIDATES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Batch sizes that may be executed, up to the card's limits.max_exec_batch."""

_JOINING = frozenset({2, 4})  # these join a group and never decide between groups, which decides a sample's bytes

_KIND = "profiles"
_ROUNDS = 2
_TIMED_ROUNDS, _TIMED_S = 8, 1.0  # limits of the timing; slow batches are timed less often
_MIN_POOL = 16
_MIN_ROWS, _MIN_BATCHES = 128, 4  # probe rows run at each size, at least, unless the pool is smaller
_MAX_REFERENCE = 128  # sizes below are worth padding layers for
_PARTS = 2  # of the largest wanted size, in the batch that layers are examined in
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
        seconds_per_batch: minimum time of one batch for each candidate size, all operations together, or of a sampler
            of many steps as if each took as long as a whole draw; never more than that of a larger size.
        padding: of single layers, with which rows are equal at these sizes.
    """

    exec_batch_sizes: tuple[int, ...]
    seconds_per_batch: Mapping[int, float]
    padding: Padding = field(default_factory=dict)


def load_or_measure_profile(network: Network, model_digest: str, numerics: Numerics, state: State) -> Profile:
    """Read the profile from the worker's state, or measure and store it.

    A stored profile is used only if rows are still equal at its sizes: a wrong one would silently break the promise
    that an address determines its sample.

    Raises:
        ProfileError: no size is usable.
    """
    stored = _read_stored(network, model_digest, numerics, state)
    if stored is not None:
        if not network.compiled:  # else `pad_before_compiling` did
            pad_layers(network.module, stored.padding)
        if _rows_agree(network, stored.exec_batch_sizes):
            return stored
        _LOG.warning("rows are not equal at the stored sizes %s; measuring again", stored.exec_batch_sizes)
    profile = measure_profile(network)
    document = {
        "version": PROFILE_VERSION,
        "candidates": _candidates(network),
        "exec_batch_sizes": profile.exec_batch_sizes,
        "seconds_per_batch": profile.seconds_per_batch,
        "padding": profile.padding,
    }
    state.write(_KIND, model_digest, numerics.id, document)
    return profile


def pad_before_compiling(network: Network, model_digest: str, numerics: Numerics, state: State) -> None:
    """Pad the layers of a network that will be compiled: as its stored profile did, or as is right uncompiled.

    Raises:
        ProfileError: no size is usable.
    """
    if (stored := _read_stored(network, model_digest, numerics, state)) is not None:
        pad_layers(network.module, stored.padding)
    else:
        measure_profile(dataclasses.replace(network, compiled=False))


def measure_profile(network: Network) -> Profile:
    """Run every candidate size and keep those at which rows are equal, padding layers of the network where that helps.

    Raises:
        ProfileError: no size agrees with itself.
    """
    if not network.compiled:
        unpad_layers(network.module)
    candidates = _candidates(network)
    probes = {operation: _probe_rows(network, operation, candidates[-1]) for operation in network.card.operations}
    digests: dict[int, tuple[bytes, ...] | None] = {}
    seconds: dict[int, float] = {}
    for size in candidates:
        digests[size], seconds[size] = _measure_size(network, probes, size)
    sizes = choose_sizes(digests)
    if not sizes:
        raise ProfileError("no batch size gives a row the same bytes twice; look for randomness or state in the family")
    if not network.compiled:
        sizes = _pad_for_more_sizes(network, probes, sizes, digests, seconds)
    _time_again(network, probes, sizes, seconds)
    falling = accumulate((seconds[size] for size in reversed(candidates)), min)
    least = dict(zip(candidates, tuple(falling)[::-1], strict=True))
    return Profile(exec_batch_sizes=sizes, seconds_per_batch=least, padding=read_padding(network.module))


def rows_measured(size: int, largest: int, *, is_many_step: bool = False) -> int:
    """Return how many rows `measure_profile` runs at a size, when `largest` is the largest candidate."""
    return _ROUNDS * _pool(max(2 * largest, _MIN_POOL), size, is_many_step=is_many_step)


def run_probe(network: Network) -> None:
    """Run one row of each operation."""
    for operation in network.card.operations:
        network.probe(operation, _probe_rows(network, operation, 1).take(slice(0, 1)))


def choose_sizes(digests: Mapping[int, tuple[bytes, ...] | None]) -> tuple[int, ...]:
    """Choose the group of equal sizes: the one with most sizes, then the one with the largest size.

    Args:
        digests: for each size the digest of every probe row it ran, the first ones of all, or None when the size
            disagrees with itself.

    Returns:
        Ascending sizes; empty when every size disagrees with itself.
    """
    groups: list[list[int]] = []
    for size in sorted(digests.keys() - _JOINING, reverse=True):
        if digests[size] is not None:  # the first of a group ran the most rows
            group = next((group for group in groups if _agree(digests[group[0]], digests[size])), None)
            if group is None:
                groups.append([size])
            else:
                group.append(size)
    if not groups:
        return ()
    best = max(groups, key=lambda group: (len(group), group[0]))
    joining = [size for size in _JOINING & digests.keys() if _agree(digests[best[0]], digests[size])]
    return tuple(sorted(best + joining))


def _agree(rows: tuple[bytes, ...] | None, others: tuple[bytes, ...] | None) -> bool:
    """Return whether the rows that both sizes ran are equal; False when one of them disagrees with itself."""
    if rows is None or others is None:
        return False
    shared = min(len(rows), len(others))
    return rows[:shared] == others[:shared]


def _pad_for_more_sizes(
    network: Network,
    probes: Mapping[Operation, Rows],
    sizes: tuple[int, ...],
    digests: Mapping[int, tuple[bytes, ...] | None],
    seconds: dict[int, float],
) -> tuple[int, ...]:
    """Pad the layers that cause smaller sizes to disagree, and add the sizes that then agree.

    Args:
        network: whose layers are padded in place; they stay unpadded when that adds no size.
        probes: for each operation.
        sizes: the chosen group; no layer is padded at these.
        digests: of the rows at each size, unpadded.
        seconds: of a batch; those of added sizes are replaced.
    """
    wanted = [size for size in digests if size < min(sizes[-1], _MAX_REFERENCE) and size not in sizes]
    if not wanted:
        return sizes
    # The smallest right size with several parts of each wanted one in it.
    reference = next((size for size in sizes if size >= _PARTS * wanted[-1]), sizes[-1])
    padding: dict[str, Mapping[int, int]] = {}
    for operation, rows in probes.items():
        run = partial(network.probe, operation, rows.take(slice(0, reference)))
        found = find_padding(network.module, run, reference=reference, sizes=list(digests), wanted=wanted)
        for name, rows_to_run in found.items():
            padding[name] = {**padding.get(name, {}), **rows_to_run}
    pad_layers(network.module, padding)
    added = []
    for size in wanted if padding else ():
        rows_of_size, spent = _measure_size(network, probes, size)
        if _agree(rows_of_size, digests[sizes[-1]]):
            added.append(size)
            seconds[size] = spent
    if not added:
        unpad_layers(network.module)
        _LOG.info("batches of %s run padded: no single layer explains that rows differ", wanted)
    return tuple(sorted((*sizes, *added)))


def _time_again(
    network: Network, probes: Mapping[Operation, Rows], sizes: Sequence[int], seconds: dict[int, float]
) -> None:
    """Lower the seconds of chosen sizes to the minimum of several rounds; a busy moment hits all sizes alike."""
    started = time.perf_counter()
    for _ in range(_TIMED_ROUNDS):
        for size in sizes:
            if time.perf_counter() - started > _TIMED_S:
                return
            _, spent = _run_all(network, probes, slice(0, size))
            seconds[size] = min(seconds[size], spent)


def _rows_agree(network: Network, sizes: Sequence[int]) -> bool:
    """Run the same rows at every size and compare; this also warms up kernel selection before the first call."""
    for operation in network.card.operations:
        rows = _probe_rows(network, operation, sizes[-1])
        known: list[bytes] = []
        for size in reversed(sizes):  # from the one that runs the most rows
            found = []
            for start in range(0, _pool(len(rows), size, is_many_step=network.is_many_step), size):
                values = network.probe(operation, rows.take(slice(start, start + size)))
                found += [hashlib.sha256(row.tobytes()).digest() for row in values]
            known = known or found
            if found != known[: len(found)]:
                return False
    return True


def _candidates(network: Network) -> tuple[int, ...]:
    largest = min(network.card.limits.max_exec_batch, _LARGEST_COMPILED if network.compiled else CANDIDATES[-1])
    return tuple(size for size in CANDIDATES if size <= largest and not (network.compiled and size in _JOINING))


def _measure_size(
    network: Network, probes: Mapping[Operation, Rows], size: int
) -> tuple[tuple[bytes, ...] | None, float]:
    """Run the first probe rows at one size, shuffled several times.

    Returns:
        The digest of each row, or None when a row had two; and the least seconds of a batch.
    """
    seen: dict[int, bytes] = {}
    seconds, consistent = [], True
    pool = _pool(len(next(iter(probes.values()))), size, is_many_step=network.is_many_step)
    for places in _shuffles(pool, size):
        results, spent = _run_all(network, probes, places)
        seconds.append(spent)
        for position, row in enumerate(places.tolist()):
            digest = hashlib.sha256(b"".join(result[position].tobytes() for result in results)).digest()
            consistent = consistent and seen.setdefault(row, digest) == digest
    return (tuple(seen[row] for row in sorted(seen)) if consistent else None), min(seconds)


def _run_all(
    network: Network, probes: Mapping[Operation, Rows], places: slice | NDArray[np.intp]
) -> tuple[list[Values], float]:
    """Run one batch of every operation; return the results and the seconds that `Profile` defines."""
    results, seconds = [], dict[Operation, float]()
    for operation, rows in probes.items():
        start = time.perf_counter()
        results.append(network.probe(operation, rows.take(places)))
        seconds[operation] = time.perf_counter() - start
    if network.is_many_step:
        drawn: Operation = "SAMPLE" if "SAMPLE" in seconds else "TRANSLATE"
        return results, seconds[drawn] * network.probe_share * len(probes)
    return results, sum(seconds.values())


def _pool(rows: int, size: int, *, is_many_step: bool) -> int:
    """Return how many of the probe rows run at a size: several batches, and no more than show a difference."""
    if is_many_step:
        return min(rows, max(_MIN_POOL, size))
    return min(rows, max(_MIN_ROWS, _MIN_BATCHES * size))


def _shuffles(pool: int, size: int) -> Iterator[NDArray[np.intp]]:
    """Split several shuffles of the pool into batches: every row runs once a round, and every place is filled."""
    keys = Addresses.of_range(_SHUFFLE_SEED, size * _ROUNDS, _ROUNDS).words(Stream.LATENT, pool)  # (rounds, pool)
    for order in np.argsort(keys, axis=1, kind="stable"):
        yield from np.split(order, pool // size)


def _probe_rows(network: Network, operation: Operation, largest: int) -> Rows:
    """Make the probe rows: two batches of the largest size, so that its rows are shuffled among others, too."""
    addresses = Addresses.of_range(_PROBE_SEED, 0, max(2 * largest, _MIN_POOL))
    return make_probe_rows(network.card, operation, addresses)


def _read_stored(network: Network, model_digest: str, numerics: Numerics, state: State) -> Profile | None:
    """Read the stored profile; None when there is none that fits the card's limits and this version."""
    document = state.read(_KIND, model_digest, numerics.id)
    return None if document is None else _read_document(document, _candidates(network))


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
    padding = _read_padding(document.get("padding"))
    if padding is None:
        return None
    return Profile(exec_batch_sizes=tuple(sizes), seconds_per_batch=measured, padding=padding)


def _read_padding(document: object) -> Padding | None:
    """Read the stored padding of layers; None when it is malformed."""
    if not isinstance(document, dict):
        return None
    padding: dict[str, dict[int, int]] = {}
    for name, sizes in document.items():
        if not isinstance(sizes, dict):
            return None
        for rows, size in sizes.items():
            if not rows.isdecimal() or type(size) is not int or not int(rows) < size:
                return None
        padding[name] = {int(rows): size for rows, size in sizes.items()}
    return padding
