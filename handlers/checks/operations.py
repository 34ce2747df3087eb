"""The check `operations`: what the card lists besides samples and labels can be done, and keeps the address promise.

Every other check runs the operations of `Subject.operations`; this one runs the others, each with rows of its kind.
"""

from __future__ import annotations

import math

import numpy as np

from fount.address import Addresses
from handlers.checks.report import Finding, failed, join_first, passed
from handlers.checks.subject import CHECK_SEED, SEVERAL, Subject, largest_difference, seed_globals
from handlers.execution.network import Operation, WrongOutputError
from handlers.execution.pixels import Float32s, find_finite_rows, find_rows_within
from handlers.execution.probes import make_probe_rows
from handlers.execution.rows import Rows

__all__ = ["check_operations"]

_CHECK = "operations"
_TOLERANCE = 1e-4  # of the largest value, for a row alone and among others
_PICTURES: tuple[Operation, ...] = ("DECODE", "TRANSLATE")
_MAX_NAMED = 8


def check_operations(subject: Subject) -> Finding:
    """Run each further operation in a batch and row by row, again, and with other global seeds."""
    others = [each for each in subject.card.operations if each not in subject.operations]
    for operation in others:
        if finding := _check_operation(subject, operation):
            return finding
    seen = f"{join_first(others, _MAX_NAMED)} give finite results, the same again and alone" if others else "no others"
    return passed(_CHECK, seen)


def _check_operation(subject: Subject, operation: Operation) -> Finding | None:
    count = subject.batch(SEVERAL)
    rows = make_probe_rows(subject.card, operation, Addresses.of_range(CHECK_SEED, 0, count))
    try:
        results = _run(subject, operation, rows, 1)
    except WrongOutputError as error:
        wrong, _, change = str(error).rpartition("; ")  # the remedy follows the last semicolon
        return failed(_CHECK, f"{operation}: {wrong or error}", change if wrong else "correct the family", blocks=True)
    if not find_finite_rows(results).all():
        change = "look for a division by zero, a log or root of a negative, or weights of a diverged training"
        return failed(_CHECK, f"{operation} gives NaN or infinite values", change)
    value_range = subject.card.sample.value_range
    if operation in _PICTURES and not find_rows_within(results, value_range).all():
        seen = f"{operation} gives values from {results.min():.4g} to {results.max():.4g}, beyond {list(value_range)}"
        return failed(_CHECK, seen, f"end with .clamp{value_range}, or correct sample.value_range in model.yaml")
    if any(largest_difference(results, _run(subject, operation, rows, seed)) for seed in (1, 2)):
        change = "compute it from the rows alone, and draw with the noise that the method is given"
        return failed(_CHECK, f"{operation} gives another result for the same rows", change, blocks=True)
    alone = np.concatenate([_run(subject, operation, rows.take(slice(i, i + 1)), 1) for i in range(count)])
    difference, size = largest_difference(results, alone), max(1.0, float(np.abs(results).max()))
    if not difference <= _TOLERANCE * size or math.isnan(difference):
        seen = f"{operation} gives a row another result alone than in a batch of {count}, by up to {difference:.3g}"
        return failed(_CHECK, seen, "let no row of a batch influence another one", blocks=True)
    return None


def _run(subject: Subject, operation: Operation, rows: Rows, seed: int) -> Float32s:
    seed_globals(seed)
    return np.asarray(subject.network.run(operation, rows, draw=subject.draw), np.float32)
