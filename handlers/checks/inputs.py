"""The checks `uses-z` and `uses-label`: other inputs give other pictures.

A generator that ignores z, or whose training collapsed, gives one picture for ever; one that ignores its label gives
wrong classes without a sign. Either may be meant, so they warn.
"""

from __future__ import annotations

import numpy as np

from handlers.checks.finding import Finding, passed, warned
from handlers.checks.subject import Subject
from handlers.execution.pixels import Float32s, floats_to_uint8
from handlers.execution.rows import SampleRows

__all__ = ["check_uses_label", "check_uses_z"]

_DRAWS = 16  # of z under one label
_SHARED = 4  # of z that every label is seen under
_MOST_LABELS = 64
_MOST_NAMED = 3
_SMALL = 1e-6  # of probabilities
_NOTHING = 2  # levels of 255 that nobody sees


def check_uses_z(subject: Subject) -> Finding:
    """Compare results of 16 z, or of 16 pictures, under one label."""
    check = "uses-z"
    label = [0] * _DRAWS if subject.card.classes else None
    results = subject.run_in_batches(subject.rows(_DRAWS, labels=label))
    if not subject.samples:
        spread = float(np.ptp(results, axis=0).max())
        if spread <= _SMALL:
            return warned(check, f"{_DRAWS} pictures give one result ({spread:.2g} apart)", "look where they get lost")
        return passed(check, f"results of {_DRAWS} pictures are up to {spread:.2g} apart")
    levels = _levels(subject, results)
    spread, mean = int(np.ptp(levels, axis=0).max()), float(np.ptp(levels, axis=0).mean())
    under = f" under label {subject.card.classes[0]!r}" if subject.card.classes else ""
    if spread <= _NOTHING:
        change = "look where z gets lost: it must reach a layer; if training collapsed, train again"
        seen = f"{_DRAWS} z give one picture{under}: the largest difference is {spread} levels of 255"
        return warned(check, seen, change)
    return passed(check, f"{_DRAWS} z{under} move pixels by up to {spread} levels, {mean:.1f} in the mean")


def check_uses_label(subject: Subject) -> Finding:
    """Compare pictures of the same z under each label."""
    check = "uses-label"
    classes = subject.card.classes
    if not subject.samples or not classes:
        reads = bool(classes) and not subject.samples
        return passed(check, "it reads pictures, and gives labels" if reads else "no labels are given")
    if len(classes) == 1:
        return passed(check, "there is one label")
    seen = min(len(classes), _MOST_LABELS, max(2, subject.held_rows(_MOST_LABELS * _SHARED) // _SHARED))
    pictures = np.stack([_levels(subject, _draw_under(subject, label)) for label in range(seen)])
    twins = _find_twins(pictures)
    if len(twins) == seen - 1 and len({first for first, _ in twins}) == 1:
        change = "look where the label gets lost: it must reach a layer; or remove classes and prior from the card"
        return warned(check, f"the same z gives the same picture under all {seen} labels", change)
    if twins:
        told = ", ".join(f"{classes[i]!r} and {classes[j]!r}" for i, j in twins[:_MOST_NAMED])
        more = f" and {len(twins) - _MOST_NAMED} more" if len(twins) > _MOST_NAMED else ""
        change = "compare how labels are encoded in training and here; a class the model never saw looks like another"
        return warned(check, f"the same z gives the same picture under labels {told}{more}", change)
    mean = float(np.ptp(pictures, axis=0).mean())
    return passed(check, f"the same z under {seen} labels: {mean:.1f} levels apart in the mean, no two alike")


def _draw_under(subject: Subject, label: int) -> Float32s:
    rows = subject.rows(_SHARED, labels=[label] * _SHARED)
    assert isinstance(rows, SampleRows)
    return subject.run_in_batches(rows)


def _levels(subject: Subject, results: Float32s) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return floats_to_uint8(np.nan_to_num(results), subject.card.sample.value_range).astype(np.int16)


def _find_twins(pictures: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> list[tuple[int, int]]:
    """Pair each label with the first before it that gave the same pictures."""
    first_with: dict[bytes, int] = {}
    twins = []
    for label, levels in enumerate(pictures):
        before = first_with.setdefault(levels.tobytes(), label)
        if before != label:
            twins.append((before, label))
    return twins
