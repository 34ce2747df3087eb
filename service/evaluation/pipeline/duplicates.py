"""Equal rows: each is compared once, and a held-out row that equals a training row is not held out.

The real rows of both splits enter; those to compare leave, with what was left out. A generator may have seen a held-out
row that is in the training split as well. Kept, such rows would set the thresholds of copies to 0, and a generator that
returns training rows would pass as like real. A training row that is there several times would be its own neighbour.
"""

from __future__ import annotations

import numpy as np

from service.evaluation.evidence import FEWEST_HELD_OUT, Duplicates, RealRows
from service.evaluation.statistics.rows import Bools
from service.pixel_products import exact_keys

__all__ = ["leave_out_duplicates"]


def leave_out_duplicates(training: RealRows, held_out: RealRows) -> tuple[RealRows, RealRows, Duplicates]:
    """Leave out repeated rows, and held-out rows that equal a training row.

    Returns:
        Training rows and held-out rows, the first of each picture; those given where none is left out. Held-out rows
        that leaked are kept where fewer than `FEWEST_HELD_OUT` others remain.
    """
    training_keys, held_out_keys = exact_keys(training.images), exact_keys(held_out.images)
    leaked, first = np.isin(held_out_keys, training_keys), _first_of_each(held_out_keys)
    left, first_training = first & ~leaked, _first_of_each(training_keys)
    found = Duplicates(
        leaked=held_out.numbers[leaked],
        repeated_held_out=int(np.count_nonzero(~first & ~leaked)),
        repeated_training=int(np.count_nonzero(~first_training)),
        held_out_left=int(np.count_nonzero(left)),
    )
    kept = left if found.held_out_left >= FEWEST_HELD_OUT else first
    return _take(training, first_training), _take(held_out, kept), found


def _first_of_each(keys: np.ndarray[tuple[int], np.dtype[np.void]]) -> Bools:
    first = np.zeros(len(keys), bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first


def _take(rows: RealRows, kept: Bools) -> RealRows:
    if kept.all():
        return rows
    return RealRows(
        images=rows.images[kept],
        labels=rows.labels[kept],
        features=rows.features[kept],
        probabilities=rows.probabilities[kept],
        numbers=rows.numbers[kept],
    )
