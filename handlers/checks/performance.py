"""The checks `batch-size`, `precisions` and `speed`: which batches and precisions a worker runs, and how fast.

A worker measures at load which batch sizes do not change a row's result, and runs no others. The same is measured here,
after an estimate of its duration: a worker that measures for an hour is never ready. A precision that the card lists
must reproduce golden samples, which are recorded in fp32; otherwise a worker of that precision never becomes ready.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses
from handlers.cards.card import Card
from handlers.checks.modes import compare_modes
from handlers.checks.report import Finding, failed, passed, warned
from handlers.checks.subject import CHECK_SEED, Subject
from handlers.execution.errors import describe_error, is_out_of_memory
from handlers.execution.network import Network, Operation, build_network
from handlers.execution.pixels import Float32s, find_finite_rows, floats_to_uint8
from handlers.execution.probes import make_probe_rows
from handlers.loading.build import build_module
from handlers.verification.golden import GOLDEN_COUNT, RESULTS, compare_outputs
from handlers.verification.profile import CANDIDATES, Profile, ProfileError, measure_profile, rows_measured

__all__ = ["check_batch_size", "check_precisions", "check_speed"]

_LONG_S = 60.0
_FASTER = 1.1  # ratio of rates that counts as faster
_MAX_BF16_BATCH = 32


def check_batch_size(subject: Subject) -> Finding:
    """Measure the batch-size profile."""
    check, largest = "batch-size", subject.card.limits.max_exec_batch
    estimate_s, fitting = _estimate_seconds(subject)
    advice = f"set limits.max_exec_batch: {fitting} in model.yaml"
    if estimate_s > subject.time_limit_s:
        seen = (
            f"measuring batches of up to {largest} would take about {estimate_s:.0f} s, at every worker's first start"
        )
        return failed(check, seen, f"{advice}, or allow more time with --time-limit", blocks=True)
    try:
        subject.profile = measure_profile(subject.network)
    except ProfileError as error:
        change = "rows depend on their batch by less than the check `rows` detects; look for state or randomness"
        return failed(check, str(error), change, blocks=True)
    rates = _rows_per_second(subject.profile)
    best = max(subject.profile.exec_batch_sizes, key=rates.__getitem__)
    sizes = ", ".join(f"{size} ({rates[size]:.3g}/s)" for size in subject.profile.exec_batch_sizes)
    seen = f"rows are equal at sizes {sizes}; {best} is the fastest"
    numbers = {f"samples_per_s_at_{size}": rate for size, rate in rates.items()} | {"best_batch": best}
    if estimate_s > _LONG_S:
        seen = f"{seen}\na worker takes about {estimate_s:.0f} s to measure it at its first start"
        return warned(check, seen, advice, numbers=numbers)
    return passed(check, seen, change=_advise_size(subject, rates, best), numbers=numbers)


def check_speed(subject: Subject) -> Finding:
    """Report the measured rate in the best batch size, and the time of one sample; compare modes if requested."""
    seconds, sizes = subject.profile.seconds_per_batch, subject.profile.exec_batch_sizes
    rates = _rows_per_second(subject.profile)
    best = max(sizes, key=rates.__getitem__)
    one_ms = 1000 * seconds[sizes[0]]
    threads = f"{subject.settings.threads} thread{'s' * (subject.settings.threads > 1)}"
    where = threads if subject.settings.device == "cpu" else subject.settings.device
    unit = "samples" if subject.samples else "pictures"
    seen = f"{rates[best]:,.0f} {unit}/s in batches of {best}, {one_ms:.3g} ms for one, on {where}"
    if subject.modes:
        seen = "\n".join([seen, *compare_modes(subject)])
    return passed("speed", seen, numbers={"samples_per_s": rates[best], "one_sample_ms": one_ms})


def check_precisions(subject: Subject) -> Finding:
    """Run the same rows in bf16 and fp32, and compare within the tolerance of golden samples."""
    check, (description, speedup), listed = "precisions", _try_bf16(subject), "bf16" in subject.card.precisions
    seen, numbers = f"fp32; bf16 {description}", {"bf16_gain": speedup or 0.0}
    if listed and speedup is None:
        return failed(check, seen, "remove bf16 from precisions in model.yaml", numbers=numbers)
    change = "precisions: [fp32, bf16] would be allowed" if speedup is not None and not listed else ""
    return passed(check, seen, change=change, numbers=numbers)


def _rows_per_second(profile: Profile) -> dict[int, float]:
    return {size: size / seconds for size, seconds in profile.seconds_per_batch.items()}


def _estimate_seconds(subject: Subject) -> tuple[float, int]:
    """Estimate how long measuring the profile takes, and the largest size for which it takes at most a minute."""
    limit = subject.card.limits.max_exec_batch
    several = subject.batch(8)
    single_s, row_s = _time_batch(subject, 1), _time_batch(subject, several) / several
    network, fitting, total_s = subject.network, 1, 0.0
    for largest in (size for size in CANDIDATES if size <= limit):
        sizes = [size for size in CANDIDATES if size <= largest]
        rows = {size: rows_measured(size, largest, is_many_step=network.is_many_step) for size in sizes}
        total_s = sum(count * (row_s if size >= several else single_s) for size, count in rows.items())
        total_s /= network.probe_share
        fitting = largest if total_s <= _LONG_S else fitting
    return total_s, fitting


def _time_batch(subject: Subject, count: int) -> float:
    """Time one batch in seconds, after a warm-up run."""
    rows = subject.rows(count)
    subject.run(rows)
    start = time.perf_counter()
    subject.run(rows)
    return time.perf_counter() - start


def _advise_size(subject: Subject, rates: dict[int, float], best: int) -> str:
    """Suggest another largest batch if it would be faster; "" otherwise."""
    limit, sizes = subject.card.limits.max_exec_batch, subject.profile.exec_batch_sizes
    if best < sizes[-1] and rates[best] > _FASTER * rates[sizes[-1]]:
        return f"limits.max_exec_batch: {best} is faster here and needs less memory (it changes the model digest)"
    larger = next((size for size in CANDIDATES if size > limit), None)
    smaller = max((size for size in rates if size < best), default=None)
    if larger and smaller and best == sizes[-1] and rates[best] > _FASTER * rates[smaller]:
        return f"limits.max_exec_batch: {larger} may be faster still (it changes the model digest)"
    return ""


def _try_bf16(subject: Subject) -> tuple[str, float | None]:
    """Describe the difference from fp32; the second value is the speedup, None when bf16 may not be used."""
    settings = dataclasses.replace(subject.settings, precision="bf16")
    try:
        network = build_network(subject.card, build_module(subject.card, subject.folder), settings)
        rows = subject.rows(subject.held_rows(GOLDEN_COUNT))
        fp32, bf16 = subject.run_in_batches(rows), subject.run_in_batches(rows, network)
        if not find_finite_rows(bf16).all():
            return "gives NaN or infinite values", None
        known = {**_named_outputs(subject, fp32), **_outputs_of_others(subject, subject.network)}
        found = {**_named_outputs(subject, bf16), **_outputs_of_others(subject, network)}
        difference, is_close = compare_outputs(known, found)
        if not is_close:
            return f"is too far off: {difference}", None
        speedup = _measure_speedup(subject, network)
    except ProfileError:
        return "makes rows depend on their batch", None
    except Exception as error:  # a user's code may raise anything in bf16
        if is_out_of_memory(error):
            raise
        return f"cannot be run: {describe_error(error)}", None
    return f"is within tolerance ({difference}) and {speedup:.2g} times as fast", speedup


def _measure_speedup(subject: Subject, network: Network) -> float:
    """Measure bf16's profile, which a worker needs, and compare its best rate with that of fp32."""
    limits = dataclasses.replace(network.card.limits, max_exec_batch=subject.batch(_MAX_BF16_BATCH))
    small = dataclasses.replace(network, card=dataclasses.replace(network.card, limits=limits))
    profile = measure_profile(small)
    bf16, fp32 = _rows_per_second(profile), _rows_per_second(subject.profile)
    sizes = [size for size in subject.profile.exec_batch_sizes if size <= limits.max_exec_batch]
    return max(bf16[size] for size in profile.exec_batch_sizes) / max(fp32[size] for size in sizes or [1])


def _named_outputs(subject: Subject, results: Float32s) -> Mapping[str, NDArray[Any]]:
    """Name results of `Subject.run` as golden files do."""
    card = subject.card
    if subject.transforms:
        return {"images": floats_to_uint8(results, (0.0, 1.0))}
    first = subject.operations[0]
    if first != "CLASSIFY":
        return _name(card, first, results)
    classes = len(card.classes)
    outputs = _name(card, first, results[:, :classes])
    labels = {"labels": np.argmax(results[:, :classes], axis=1)}
    return outputs | labels | (_name(card, "EMBED", results[:, classes:]) if "EMBED" in card.operations else {})


def _outputs_of_others(subject: Subject, network: Network) -> Mapping[str, NDArray[Any]]:
    """Run the operations that `Subject.run` does not, on probe rows, and name their results as golden files do."""
    card, outputs = subject.card, dict[str, NDArray[Any]]()
    addresses = Addresses.of_range(CHECK_SEED, 0, subject.batch(_MAX_BF16_BATCH))
    for operation in (each for each in card.operations if each not in subject.operations):
        rows = make_probe_rows(card, operation, addresses)
        outputs |= _name(card, operation, np.asarray(network.run(operation, rows, subject.draw), np.float32))
    return outputs


def _name(card: Card, operation: Operation, values: Float32s) -> dict[str, NDArray[Any]]:
    name = RESULTS[operation]
    if operation in ("SAMPLE", "DECODE", "TRANSLATE") and card.sample.modality == "image":
        return {name: floats_to_uint8(values, card.sample.value_range)}
    return {name: values}
