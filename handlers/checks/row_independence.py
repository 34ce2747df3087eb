"""The check `rows`: a row gives the same result whoever is with it in a batch, wherever it stands, and alone.

A worker puts rows of many requests into one batch, so a layer that mixes them, as BatchNorm does while training, would
let one client's request show in another's pictures. Differences of rounding are left to the profile.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from handlers.checks.entry_points import entry_of, own_module, told_export
from handlers.checks.finding import Finding, apart, failed, passed, skipped, told_apart, warned
from handlers.checks.layers import Trace, find_parting, layers_in_training, remedy_for_mixing, told_training, trace
from handlers.checks.subject import Subject, seed_globals
from handlers.execution.pixels import Float32s
from handlers.execution.rows import Rows, concatenate_rows

__all__ = ["check_rows"]

CHECK = "rows"
_ROWS = 7  # a prime, so that another dimension is hardly ever taken for the batch
_TOLERANCE = 1e-4  # of the value range
_LAYER_TOLERANCE = 1e-5  # of the largest value in a tensor
_SEED = 1


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """One batch in which a row is looked at: the batch, where the row stands in it, and words for that."""

    told: str
    rows: Rows
    place: int


def check_rows(subject: Subject) -> Finding:
    """Run one row in other company, at another place and alone, and compare."""
    bound = _TOLERANCE * subject.scale
    size = subject.batch(_ROWS)
    base = _Setting(told="", rows=subject.rows(size), place=size // 2)
    known = _run(subject, base, _SEED)
    if apart(known, _run(subject, base, _SEED)) > bound:
        return skipped(CHECK, "cannot be told: the same batch gave two results, see deterministic", blocks=True)
    settings = _settings(subject, base, size)
    if apart(known, _run(subject, base, _SEED + 1)) > bound:
        settings = settings[:1]  # at another place it gets other random numbers: the next check's matter
    largest = 0.0
    for setting in settings:
        difference = _differ(subject, known, setting)
        if not difference <= bound:
            return _say_mixed(subject, base, setting, difference)
        largest = max(largest, difference)
    if training := layers_in_training(subject.network.module):
        seen = f"rows are independent, but {', '.join(training)} stayed in training mode after eval()"
        return warned(CHECK, seen, "do not call train() or override it")
    return passed(CHECK, f"the same among other rows, at another place, and alone ({told_apart(subject, largest)})")


def _settings(subject: Subject, base: _Setting, size: int) -> list[_Setting]:
    row = base.rows.take(slice(base.place, base.place + 1))
    others = subject.rows(size, start=1000)
    before, after = others.take(slice(0, base.place)), others.take(slice(base.place + 1, size))
    company = concatenate_rows([part for part in (before, row, after) if len(part)])
    moved = base.rows.take(np.roll(np.arange(size), 1))
    return [
        _Setting(told=f"among other rows, in a batch of {size},", rows=company, place=base.place),
        _Setting(told=f"at another place in a batch of {size}", rows=moved, place=(base.place + 1) % size),
        _Setting(told=f"alone instead of in a batch of {size}", rows=row, place=0),
    ]


def _differ(subject: Subject, known: Float32s, setting: _Setting) -> float:
    """Run a batch and compare its row; one row alone that cannot be run is the check `output`'s matter."""
    if len(setting.rows) > 1:
        return apart(known, _run(subject, setting, _SEED))
    with contextlib.suppress(Exception):
        return apart(known, _run(subject, setting, _SEED))
    return 0.0


def _run(subject: Subject, setting: _Setting, seed: int) -> Float32s:
    seed_globals(seed)
    result: Float32s = subject.run(setting.rows)[setting.place]
    return result


def _say_mixed(subject: Subject, base: _Setting, other: _Setting, difference: float) -> Finding:
    entry = entry_of(subject)
    place = find_parting(_trace(subject, base), _trace(subject, other), _LAYER_TOLERANCE, entry)
    seen = f"the same row {other.told} gives another result, by up to {told_apart(subject, difference)}"
    export = told_export(subject)
    change = (told_training() if export else "") + remedy_for_mixing(place, entry) + export
    return failed(CHECK, f"{seen}\nfirst {place.told}", change, blocks=True)


def _trace(subject: Subject, setting: _Setting) -> Trace:
    seed_globals(_SEED)
    return trace(own_module(subject), lambda: subject.run(setting.rows), setting.place, len(setting.rows))
