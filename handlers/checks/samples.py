"""The checks `picture` and `golden`: they write samples to look at, and samples that workers verify when they load.

Golden samples are recorded only when no check failed. Existing ones that are reproduced are kept, so that a model's
golden samples remain those of the machine it was trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fount.cli.output.images import image_grid
from fount.cli.output.points import points_to_picture
from fount.files import atomic_path
from handlers.cards.digests import is_golden_stale
from handlers.checks.report import Finding, failed, passed, warned
from handlers.checks.subject import Subject
from handlers.execution.network import build_network
from handlers.execution.numerics import configure_torch, read_numerics
from handlers.execution.pixels import Uint8s, floats_to_uint8
from handlers.loading.build import build_module
from handlers.settings import Settings
from handlers.state import State
from handlers.verification.golden import GOLDEN_COUNT, GoldenError, check_golden, record_golden
from handlers.verification.profile import ProfileError, measure_profile

__all__ = ["check_golden_samples", "check_picture"]

_COLUMNS = 8
_MAX_CLASSES = 16
_POINTS = 2048


def check_picture(subject: Subject) -> Finding:
    """Draw a grid of samples and write it as one picture: one row of the same z for each class, or 8 × 8 z."""
    if not subject.samples:
        seen = "the model reads pictures and draws none"
        if subject.translates:
            seen = "the model needs pictures; see yours with `fount translate`"
        return passed("picture", seen)
    if subject.card.sample.modality == "vector":
        return _draw_points(subject)
    classes = subject.card.classes
    columns = min(_COLUMNS, subject.held_rows(_COLUMNS))
    lines = min(len(classes), _MAX_CLASSES) if classes else _COLUMNS
    lines = max(1, min(lines, subject.held_rows(_COLUMNS * lines) // columns))
    images = np.concatenate([_draw_line(subject, line, columns) for line in range(lines)])
    channels = images.shape[3]
    shown = images if channels in (1, 3) else images[..., : 3 if channels > 3 else 1]
    captions = [classes[i // columns] if classes else str(i) for i in range(len(images))]
    content = f"{lines} of {len(classes)} classes, {columns} z" if classes else f"{len(images)} z"
    return _save_picture(subject, image_grid(shown, captions, columns=columns), content)


def check_golden_samples(subject: Subject) -> Finding:
    """Verify existing golden samples, or record them."""
    file = subject.folder / subject.card.golden.file
    if file.is_file() and not is_golden_stale(subject.card, subject.folder):
        return _verify_golden(subject, file)
    if not subject.record:
        return passed("golden", f"{file.name} is not recorded, because of --no-record")
    return _record_golden(subject, file)


def _draw_points(subject: Subject) -> Finding:
    points = subject.run_in_batches(subject.rows(subject.held_rows(_POINTS)))
    levels = 255 * points_to_picture(np.nan_to_num(points), subject.card.sample.value_range)
    return _save_picture(subject, Image.fromarray(levels.astype(np.uint8)), f"{len(points)} points")


def _save_picture(subject: Subject, picture: Image.Image, content: str) -> Finding:
    try:
        with atomic_path(subject.picture) as part:
            picture.save(part, format="PNG")
    except OSError as error:
        change = "name another file with --picture"
        return warned("picture", f"{subject.picture} cannot be written: {error.strerror or error}", change)
    return passed("picture", f"{subject.picture}: {content}")


def _draw_line(subject: Subject, line: int, columns: int) -> Uint8s:
    """Draw one line of the grid: the same z under one class, or the next z."""
    if subject.card.classes:
        rows = subject.rows(columns, labels=[line] * columns)
    else:
        rows = subject.rows(columns, start=line * columns)
    return floats_to_uint8(np.nan_to_num(subject.run_in_batches(rows)), subject.card.sample.value_range)


def _verify_golden(subject: Subject, file: Path) -> Finding:
    """Draw the golden samples again, as a worker does, on the CPU, where they are recorded."""
    network = subject.network
    try:
        if subject.settings == Settings():
            sizes = subject.profile.exec_batch_sizes
        else:
            configure_torch(Settings())
            network = build_network(subject.card, build_module(subject.card, subject.folder), Settings())
            sizes = measure_profile(network).exec_batch_sizes
        check_golden(file, network, sizes, "", read_numerics(Settings()), State(folder=None))
    except (GoldenError, ProfileError) as error:
        change = f"if the model was changed on purpose, delete {file.name} and check again; otherwise undo the change"
        return failed("golden", str(error), change)
    return passed("golden", f"{file.name} is reproduced as recorded, and is kept")


def _record_golden(subject: Subject, file: Path) -> Finding:
    known = subject.golden_images()
    images = None
    if not subject.samples:
        images = known if known is not None and len(known) else subject.noise_images(GOLDEN_COUNT)
    try:
        with atomic_path(file) as part:
            module = build_module(subject.card, subject.folder)
            record_golden(subject.card, module, part, images=images, folder=subject.folder)
    except (GoldenError, ProfileError) as error:
        wrong, _, change = str(error).rpartition("; ")  # the remedy follows the last semicolon
        return failed("golden", wrong or str(error), change if wrong else "correct what the checks above name")
    except OSError as error:
        return failed("golden", f"{file} cannot be written: {error.strerror}", "make the model's folder writable")
    return passed("golden", f"{GOLDEN_COUNT} samples recorded in {file.name}")
