"""The check `picture`: samples to look at, since no number says whether a picture is right.

A model with classes gives a row of pictures a class, each row from the same z; another gives 8 × 8.
"""

from __future__ import annotations

import numpy as np

from fount.cli.output.images import image_grid
from handlers.checks.finding import Finding, passed, warned
from handlers.checks.subject import Subject
from handlers.execution.pixels import Uint8s, floats_to_uint8

__all__ = ["check_picture"]

CHECK = "picture"
_COLUMNS = 8
_MOST_CLASSES = 16


def check_picture(subject: Subject) -> Finding:
    """Draw samples and write them as one picture."""
    if not subject.samples:
        return passed(CHECK, "it reads pictures, and draws none")
    classes = subject.card.classes
    columns = min(_COLUMNS, subject.held_rows(_COLUMNS))
    down = min(len(classes), _MOST_CLASSES) if classes else _COLUMNS
    down = max(1, min(down, subject.held_rows(_COLUMNS * down) // columns))
    images = np.concatenate([_draw_row(subject, number, columns) for number in range(down)])
    captions = [classes[i // columns] if classes else str(i) for i in range(len(images))]
    try:
        image_grid(_as_shown(images), captions, columns=columns).save(subject.picture, format="PNG")
    except OSError as error:
        change = "name another file with --picture"
        return warned(CHECK, f"{subject.picture} cannot be written: {error.strerror or error}", change)
    told = f"{down} of {len(classes)} classes, {columns} z" if classes else f"{len(images)} z"
    return passed(CHECK, f"{subject.picture}: {told}")


def _draw_row(subject: Subject, number: int, columns: int) -> Uint8s:
    """Draw one row: the same z under one class, or the next z."""
    if subject.card.classes:
        rows = subject.rows(columns, labels=[number] * columns)
    else:
        rows = subject.rows(columns, start=number * columns)
    return floats_to_uint8(np.nan_to_num(subject.run_in_batches(rows)), subject.card.sample.value_range)


def _as_shown(images: Uint8s) -> Uint8s:
    """Keep what a picture can show: three channels of more, one of two."""
    channels = images.shape[3]
    return images if channels in (1, 3) else images[..., : 3 if channels > 3 else 1]
