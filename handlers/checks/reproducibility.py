"""The checks `rows` and `deterministic`: the result of a row depends on its address alone.

A worker puts rows of many requests into one batch, so a layer that mixes rows, as BatchNorm does in training mode,
would let one client's request change another's pictures. A sample has an address and must be the same tomorrow, so
nothing may come from a global random generator, and a call must not leave state behind that the next one reads.
Differences of rounding are left to the profile; many steps of a sampler of floats would amplify them, so `rows` takes a
few.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from handlers.checks.layers import (
    TRAINING_MODE_ADVICE,
    Call,
    find_divergence,
    remedy_for_mixing,
    remedy_for_randomness,
    remedy_for_state,
    trace,
)  # fmt: skip
from handlers.checks.report import Finding, failed, join_first, passed, skipped, warned
from handlers.checks.subject import SEVERAL, Subject, largest_difference, seed_globals
from handlers.execution.pixels import Float32s
from handlers.execution.rows import Rows, concatenate_rows

__all__ = ["check_deterministic", "check_rows"]

_TOLERANCE = 1e-4  # of the value range
_STEPPED_TOLERANCE = 0.02  # for a sampler of many steps, whose first ones divide by little signal
_LAYER_TOLERANCE = 1e-5  # of the largest value in a tensor
_SEED = 1
_OTHER_SEED = 2
_OTHER_START = 1000  # index of rows that are not in the first batch
_MAX_LAYERS, _MAX_NAMED = 3, 5  # in a message: layers in training mode, and changed values


@dataclass(frozen=True, kw_only=True)
class _Arrangement:
    """One batch, how it differs from the first, and the index of the examined row in it."""

    description: str
    rows: Rows
    index: int


def check_rows(subject: Subject) -> Finding:
    """Run one row among other rows, at another index and alone, and compare the results."""
    check, size = "rows", subject.batch(SEVERAL)
    bound = (_STEPPED_TOLERANCE if _takes_few_steps(subject) else _TOLERANCE) * subject.scale
    base = _Arrangement(description="", rows=subject.rows(size), index=size // 2)
    known = _run_row(subject, base, _SEED)
    if largest_difference(known, _run_row(subject, base, _SEED)) > bound:
        return skipped(check, "the same batch gave two results, see deterministic", blocks=True)
    arrangements = _arrangements(subject, base, size)
    if largest_difference(known, _run_row(subject, base, _OTHER_SEED)) > bound:
        arrangements = arrangements[:1]  # at another index it gets other random numbers, which `deterministic` reports
    largest = 0.0
    for arrangement in arrangements:
        difference = _compare(subject, known, arrangement)
        if not difference <= bound:
            return _fail_mixing(subject, base, arrangement, difference)
        largest = max(largest, difference)
    layers = subject.network.module.named_modules()
    if training := [f"{name or 'the module'} ({type(part).__name__})" for name, part in layers if part.training]:
        seen = f"rows are independent, but {join_first(training, _MAX_LAYERS)} stayed in training mode after eval()"
        return warned(check, seen, "do not call train() or override it")
    difference_text = subject.describe_difference(largest)
    return passed(check, f"the same among other rows, at another index, and alone ({difference_text})")


def check_deterministic(subject: Subject) -> Finding:
    """Run the same rows again and with other global seeds, and compare results and the module's state."""
    check, module = "deterministic", subject.module
    rows = subject.rows(subject.batch(SEVERAL))
    tensors, attributes = _read_tensors(module), _read_attributes(module)
    first, again, other_seed = (_run(subject, rows, seed) for seed in (_SEED, _SEED, _OTHER_SEED))
    changed = _changed(tensors, _read_tensors(module))
    difference = largest_difference(first, again)
    if changed:
        seen = f"sampling changed {join_first(changed, _MAX_NAMED)} of the module"
        if difference:
            seen += f"; the same rows then differ by up to {subject.describe_difference(difference)}"
        return failed(check, seen, remedy_for_state(changed) + subject.export_advice, blocks=True)
    if difference:
        return _fail_changing(subject, rows, difference, (_SEED, _SEED))
    if difference := largest_difference(first, other_seed):
        return _fail_changing(subject, rows, difference, (_SEED, _OTHER_SEED))
    if changed := _changed(attributes, _read_attributes(module)):
        seen = f"the same bytes again, but sampling changed {join_first(changed, _MAX_NAMED)}"
        return warned(check, seen, remedy_for_state([]))
    return passed(check, "the same bytes again, and with other global seeds; no state is left behind")


def _arrangements(subject: Subject, base: _Arrangement, size: int) -> list[_Arrangement]:
    row = base.rows.take(slice(base.index, base.index + 1))
    others = subject.rows(size, start=_OTHER_START)
    before, after = others.take(slice(0, base.index)), others.take(slice(base.index + 1, size))
    mixed = concatenate_rows([part for part in (before, row, after) if len(part)])
    moved = base.rows.take(np.roll(np.arange(size), 1))
    return [
        _Arrangement(description=f"among other rows, in a batch of {size},", rows=mixed, index=base.index),
        _Arrangement(description=f"at another index in a batch of {size}", rows=moved, index=(base.index + 1) % size),
        _Arrangement(description=f"alone instead of in a batch of {size}", rows=row, index=0),
    ]


def _compare(subject: Subject, known: Float32s, arrangement: _Arrangement) -> float:
    """Run a batch and compare its row; a single row that cannot be run is reported by the check `output`."""
    try:
        return largest_difference(known, _run_row(subject, arrangement, _SEED))
    except Exception:
        if len(arrangement.rows) > 1:
            raise
        return 0.0


def _run(subject: Subject, rows: Rows, seed: int) -> Float32s:
    seed_globals(seed)
    return subject.run(rows)


def _run_row(subject: Subject, arrangement: _Arrangement, seed: int) -> Float32s:
    seed_globals(seed)
    run = subject.probe if _takes_few_steps(subject) else subject.run
    result: Float32s = run(arrangement.rows)[arrangement.index]
    return result


def _takes_few_steps(subject: Subject) -> bool:
    return subject.samples and subject.network.is_many_step and not subject.network.is_discrete


def _trace_row(subject: Subject, arrangement: _Arrangement) -> list[Call]:
    rows = arrangement.rows
    return trace(subject.module, lambda: _run_row(subject, arrangement, _SEED), arrangement.index, len(rows))


def _trace(subject: Subject, rows: Rows, seed: int) -> list[Call]:
    return trace(subject.module, lambda: _run(subject, rows, seed), None, len(rows))


def _fail_mixing(subject: Subject, base: _Arrangement, other: _Arrangement, difference: float) -> Finding:
    first, second = (_trace_row(subject, batch) for batch in (base, other))
    divergence = find_divergence(first, second, _LAYER_TOLERANCE, subject.entry)
    seen = (
        f"the same row {other.description} gives another result, by up to {subject.describe_difference(difference)}"
        f"\nfirst {divergence.description}"
    )
    advice = TRAINING_MODE_ADVICE if subject.export_advice else ""
    change = advice + remedy_for_mixing(divergence, subject.entry) + subject.export_advice
    return failed("rows", seen, change, blocks=True)


def _fail_changing(subject: Subject, rows: Rows, difference: float, seeds: tuple[int, int]) -> Finding:
    first, second = (_trace(subject, rows, seed) for seed in seeds)
    divergence = find_divergence(first, second, 0.0, subject.entry)
    if seeds[0] != seeds[1]:
        when = "with other seeds of the global generators"
        change = remedy_for_randomness(divergence, subject.entry)
    else:
        when = "when they were run again"
        change = f"look there for a counter, a cache, the time or an unseeded generator: {remedy_for_state([])}"
    seen = (
        f"the same rows gave another result {when}: up to {subject.describe_difference(difference)}"
        f"\nfirst {divergence.description}"
    )
    return failed("deterministic", seen, change + subject.export_advice, blocks=True)


def _read_tensors(module: nn.Module) -> dict[str, object]:
    """Digest every parameter and buffer, including those that are not saved."""
    named: dict[str, torch.Tensor] = {f"parameter {name}": tensor for name, tensor in module.named_parameters()}
    named |= {f"buffer {name}": tensor for name, tensor in module.named_buffers()}
    digests: dict[str, object] = {}
    for name, tensor in named.items():
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digests[name] = hashlib.blake2b(values.numpy().data, digest_size=16).digest()
    return digests


def _read_attributes(module: nn.Module) -> dict[str, object]:
    return {
        f"{name}.{key}".lstrip("."): value
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, int | float | str)
    }


def _changed(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return [name for name, value in after.items() if before.get(name) != value]
