"""The checks `batch-size` and `speed`: which batches a worker will run, and how fast.

A worker measures at load which batch sizes leave every row alone, and runs no other. Here the same is measured, after a
guess at how long it takes: a worker that measures for an hour is never ready.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.checks.finding import Finding, failed, passed, warned
from handlers.checks.subject import Subject
from handlers.execution.network import Network, build_network
from handlers.execution.pixels import Float32s, find_finite_rows, floats_to_uint8
from handlers.execution.torch_errors import is_out_of_memory
from handlers.faults import tell_fault
from handlers.loading.build import build_module
from handlers.verification.golden import GOLDEN_COUNT, compare_outputs
from handlers.verification.profile import CANDIDATES, ProfileError, measure_profile

__all__ = ["check_batch_size", "check_precisions", "check_speed"]


_ROUNDS = 4  # rows measured at each size, as a multiple of the largest: two of the largest batch, in two shufflings
_SMALLEST_POOL = 16
_LONG_S = 60.0
_GAIN = 1.1  # what counts as faster


def check_batch_size(subject: Subject) -> Finding:
    """Measure the profile."""
    check, largest = "batch-size", subject.card.limits.max_exec_batch
    guess_s, fitting = _guess_seconds(subject)
    advice = f"set limits.max_exec_batch: {fitting} in model.yaml"
    if guess_s > subject.time_limit_s:
        seen = f"measuring batches of up to {largest} would take about {guess_s:.0f} s, at every worker's first start"
        return failed(check, seen, f"{advice}, or allow more time with --time-limit", blocks=True)
    try:
        subject.profile = measure_profile(subject.network)
    except ProfileError as error:
        change = "rows change with their company by less than the check `rows` sees; look for state or randomness"
        return failed(check, str(error), change, blocks=True)
    sizes = subject.profile.exec_batch_sizes
    per_second = {size: size / seconds for size, seconds in subject.profile.seconds_per_batch.items()}
    best = max(sizes, key=lambda size: per_second[size])
    told = ", ".join(f"{size} ({per_second[size]:.3g}/s)" for size in sizes)
    seen = f"rows are equal at sizes {told}; {best} is the fastest"
    numbers = {f"samples_per_s_at_{size}": per_second[size] for size in sizes} | {"best_batch": best}
    if guess_s > _LONG_S:
        return warned(
            check,
            f"{seen}\na worker takes about {guess_s:.0f} s to measure it at its first start",
            advice,
            numbers=numbers,
        )
    return passed(check, seen, change=_advise(subject, per_second, best), numbers=numbers)


def check_speed(subject: Subject) -> Finding:
    """Say what the profile measured, for one sample and for many."""
    seconds, sizes = subject.profile.seconds_per_batch, subject.profile.exec_batch_sizes
    best = max(sizes, key=lambda size: size / seconds[size])
    one_ms, per_second = 1000 * seconds[sizes[0]], best / seconds[best]
    threads = f"{subject.settings.threads} thread{'s' * (subject.settings.threads > 1)}"
    where = threads if subject.settings.device == "cpu" else subject.settings.device
    what = "samples" if subject.samples else "pictures"
    seen = f"{per_second:,.0f} {what}/s in batches of {best}, {one_ms:.3g} ms for one, on {where}"
    return passed("speed", seen, numbers={"samples_per_s": per_second, "one_sample_ms": one_ms})


def _guess_seconds(subject: Subject) -> tuple[float, int]:
    """Guess how long measuring takes; and the largest size for which it would be done within a minute."""
    limit = subject.card.limits.max_exec_batch
    several = subject.batch(8)
    alone_s, row_s = _time_batch(subject, 1), _time_batch(subject, several) / several
    fitting, whole = 1, 0.0
    for largest in (size for size in CANDIDATES if size <= limit):
        sizes = sum(size <= largest for size in CANDIDATES)
        rows = max(_ROUNDS * largest, 2 * _SMALLEST_POOL)
        whole = rows * (alone_s + (sizes - 1) * row_s)
        fitting = largest if whole <= _LONG_S else fitting
    return whole, fitting


def _time_batch(subject: Subject, count: int) -> float:
    """Time one batch, after another that warms up."""
    rows = subject.rows(count)
    subject.run(rows)
    start = time.perf_counter()
    subject.run(rows)
    return time.perf_counter() - start


def _advise(subject: Subject, per_second: dict[int, float], best: int) -> str:
    """Say whether another largest batch would serve better."""
    limit, sizes = subject.card.limits.max_exec_batch, subject.profile.exec_batch_sizes
    if best < sizes[-1] and per_second[best] > _GAIN * per_second[sizes[-1]]:
        return f"limits.max_exec_batch: {best} is faster here, in less memory (it makes another model digest)"
    larger = next((size for size in CANDIDATES if size > limit), None)
    smaller = max((size for size in per_second if size < best), default=None)
    if larger and smaller and best == sizes[-1] and per_second[best] > _GAIN * per_second[smaller]:
        return f"limits.max_exec_batch: {larger} may be faster still (it makes another model digest)"
    return ""


# FOLDED FROM handlers.checks.batch_size:
# The check `precisions`: whether bf16 gives what fp32 gives, within the tolerance of golden samples. A worker
# may be told to run in any precision the card lists, and then compares its golden samples, recorded in fp32. So
# a listed precision beyond the tolerance would never become ready.


CHECK = "precisions"
_LARGEST_BATCH = 32  # that is tried in bf16


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """What bf16 did: whether it may be used, a phrase, and how many times as fast it was."""

    is_good: bool
    told: str
    gain: float = 0.0


def check_precisions(subject: Subject) -> Finding:
    """Run known rows in bf16, and compare with fp32."""
    trial, listed = _try_bf16(subject), "bf16" in subject.card.precisions
    seen = f"fp32; bf16 {trial.told}"
    numbers = {"bf16_gain": trial.gain}
    if listed and not trial.is_good:
        return failed(CHECK, seen, "remove bf16 from precisions in model.yaml", numbers=numbers)
    if not listed and trial.is_good:
        return passed(CHECK, seen, change="precisions: [fp32, bf16] would be allowed", numbers=numbers)
    return passed(CHECK, seen, numbers=numbers)


def _try_bf16(subject: Subject) -> _Trial:
    settings = dataclasses.replace(subject.settings, precision="bf16")
    try:
        network = build_network(subject.card, build_module(subject.card, subject.folder), settings)
        rows = subject.rows(subject.held_rows(GOLDEN_COUNT))
        exact, rough = subject.run_in_batches(rows), subject.run_in_batches(rows, network)
        if not find_finite_rows(rough).all():
            return _Trial(is_good=False, told="gives NaN or infinite values")
        difference, is_close = compare_outputs(_outputs(subject, exact), _outputs(subject, rough))
        if not is_close:
            return _Trial(is_good=False, told=f"is too far off: {difference}")
        gain = _measure_gain(subject, network)
    except ProfileError:
        return _Trial(is_good=False, told="lets rows change with their company")
    except Exception as error:  # an author's code may not know bf16 and raise anything
        if is_out_of_memory(error):
            raise
        return _Trial(is_good=False, told=f"cannot be run: {tell_fault(error)}")
    return _Trial(is_good=True, told=f"is within tolerance ({difference}) and {gain:.2g} times as fast", gain=gain)


def _measure_gain(subject: Subject, network: Network) -> float:
    """Measure bf16's profile, which a worker needs, and compare its best rate with that of fp32."""
    limits = dataclasses.replace(network.card.limits, max_exec_batch=subject.batch(_LARGEST_BATCH))
    small = dataclasses.replace(network, card=dataclasses.replace(network.card, limits=limits))
    profile = measure_profile(small)
    rate = max(size / profile.seconds_per_batch[size] for size in profile.exec_batch_sizes)
    sizes = [size for size in subject.profile.exec_batch_sizes if size <= limits.max_exec_batch]
    return rate / max(size / subject.profile.seconds_per_batch[size] for size in sizes or [1])


def _outputs(subject: Subject, results: Float32s) -> Mapping[str, NDArray[Any]]:
    """Name results as golden files do."""
    card = subject.card
    if subject.samples:
        return {"images": floats_to_uint8(results, card.sample.value_range)}
    if subject.transforms:
        return {"images": floats_to_uint8(results, (0.0, 1.0))}
    classes = len(card.classes) if "CLASSIFY" in card.operations else 0
    outputs: dict[str, NDArray[Any]] = {}
    if classes:
        outputs = {"probabilities": results[:, :classes], "labels": np.argmax(results[:, :classes], axis=1)}
    return outputs | ({"embeddings": results[:, classes:]} if "EMBED" in card.operations else {})
