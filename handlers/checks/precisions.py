"""The check `precisions`: whether bf16 gives what fp32 gives, within the tolerance of golden samples.

A worker may be told to run in any precision the card lists, and then compares its golden samples, recorded in fp32. So
a listed precision beyond the tolerance would never become ready.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.checks.finding import Finding, failed, passed
from handlers.checks.subject import Subject
from handlers.execution.network import Network, build_network
from handlers.execution.pixels import Float32s, find_finite_rows, floats_to_uint8
from handlers.execution.torch_errors import is_out_of_memory
from handlers.faults import tell_fault
from handlers.loading.build import build_module
from handlers.verification.golden import GOLDEN_COUNT, compare_outputs
from handlers.verification.profile import ProfileError, measure_profile

__all__ = ["check_precisions"]

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
