"""The checks `output`, `uses-z` and `uses-label`: results match the card and depend on the inputs.

`output` runs a batch of several rows and one of a single row, and compares shape and type of the module's result with
the card before a worker would convert it; then it checks the values under every label and at the ends of every
parameter. A generator that ignores z or its label may be intended, so the other two checks only warn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from handlers.cards.card import Card
from handlers.checks.report import Finding, failed, join_first, passed, warned
from handlers.checks.subject import SEVERAL, Subject
from handlers.checks.value_range import (
    PixelStatistics,
    advise_for_parameter,
    advise_for_range,
    advise_for_unused_half,
    describe_range,
    uses_half,
)
from handlers.execution.errors import describe_error, is_out_of_memory
from handlers.execution.pixels import Float32s, find_finite_rows, floats_to_uint8
from handlers.execution.rows import SampleRows
from handlers.family import Draw

__all__ = ["check_output", "check_uses_label", "check_uses_z"]

_BATCH = 32
_SHARE_OF_LIMIT = 0.25  # of the time of one check, for drawing every label
_MAX_NAMED = 3  # labels in a message
_Z_COUNT = 16  # z under one label
_Z_PER_LABEL = 4  # z that every label is drawn with
_MAX_LABELS = 64
_SMALL = 1e-6  # difference of probabilities that counts as none
_INVISIBLE = 2  # levels of 255 that the eye does not see
_EXPORT = 'torch.export.Dim("batch", min=1), and an example batch of 2 or more'


@dataclass(kw_only=True)
class _Drawn:
    """What was drawn under all labels: where pixels lie, and the labels of pictures that are not finite."""

    pixels: PixelStatistics
    pictures: int = 0
    wrong_labels: list[int] = dataclasses.field(default_factory=list)

    def add(self, results: Float32s, labels: list[int]) -> None:
        finite = find_finite_rows(results)
        self.pictures += len(results)
        self.wrong_labels += [label for label, good in zip(labels, finite, strict=True) if not good]
        if finite.any():
            self.pixels.add(results[finite])


def check_output(subject: Subject) -> Finding:
    """Compare the shape, type and values of results with the card."""
    several = subject.batch(SEVERAL)
    try:
        if finding := _find_wrong_batch(subject, several):
            return finding
    except Exception as error:
        if several == 1 or is_out_of_memory(error) or not _works(subject, 1):
            raise
        # A single row has the first label; so it is tried for several, too.
        if subject.card.classes and _works(subject, several, labels=[0] * several):
            return _fail_label(subject, error)
        return _fail_fixed_batch(subject, several, error)
    return _find_wrong_single_row(subject) or _check_values(subject)


def check_uses_z(subject: Subject) -> Finding:
    """Compare results of 16 z, or of 16 pictures, under one label."""
    check = "uses-z"
    label = [0] * _Z_COUNT if subject.card.classes else None
    results = subject.run_in_batches(subject.rows(_Z_COUNT, labels=label))
    if not subject.samples:
        difference = float(np.ptp(results, axis=0).max())
        if difference <= _SMALL:
            seen = f"{_Z_COUNT} pictures give one result (they differ by {difference:.2g})"
            return warned(check, seen, "find where the pictures are lost")
        return passed(check, f"results of {_Z_COUNT} pictures differ by up to {difference:.2g}")
    levels = np.ptp(_to_levels(subject, results), axis=0)
    largest, mean = int(levels.max()), float(levels.mean())
    under = f" under label {subject.card.classes[0]!r}" if subject.card.classes else ""
    if largest <= _INVISIBLE:
        change = "find where z is lost: it must reach a layer; if training collapsed, train again"
        seen = f"{_Z_COUNT} z give one picture{under}: the largest difference is {largest} levels of 255"
        return warned(check, seen, change)
    return passed(check, f"{_Z_COUNT} z{under} change pixels by up to {largest} levels, {mean:.1f} on average")


def check_uses_label(subject: Subject) -> Finding:
    """Compare pictures of the same z, or of the same picture, under each label."""
    check, classes = "uses-label", subject.card.classes
    makes, same = subject.samples or subject.translates, "z" if subject.samples else "picture"
    if not makes or not classes:
        reads = bool(classes) and not makes
        return passed(check, "the model reads pictures and returns labels" if reads else "the model takes no labels")
    if len(classes) == 1:
        return passed(check, "there is one label")
    count = min(len(classes), _MAX_LABELS, max(2, subject.held_rows(_MAX_LABELS * _Z_PER_LABEL) // _Z_PER_LABEL))
    rows = [subject.rows(_Z_PER_LABEL, labels=[label] * _Z_PER_LABEL) for label in range(count)]
    pictures = np.stack([_to_levels(subject, subject.run_in_batches(each)) for each in rows])
    duplicates = _find_duplicates(pictures)
    if len(duplicates) == count - 1 and len({first for first, _ in duplicates}) == 1:
        change = "find where the label is lost: it must reach a layer; or remove classes and prior from the card"
        return warned(check, f"the same {same} gives the same result under all {count} labels", change)
    if duplicates:
        named = join_first([f"{classes[i]!r} and {classes[j]!r}" for i, j in duplicates], _MAX_NAMED)
        change = "compare how labels are encoded in training and here; a class missing in training looks like another"
        return warned(check, f"the same {same} gives the same result under labels {named}", change)
    mean = float(np.ptp(pictures, axis=0).mean())
    return passed(check, f"the same {same} under {count} labels: {mean:.1f} levels apart on average, no two alike")


def _find_wrong_batch(subject: Subject, count: int, labels: list[int] | None = None) -> Finding | None:
    """Run one batch, and report a wrong shape or type of its result."""
    if not subject.samples:
        rows = len(subject.run(subject.rows(count)))
        return None if rows == count else failed("output", f"{count} rows gave {rows} results", "", blocks=True)
    result = subject.call_module(subject.module, subject.rows(count, labels=labels))
    wrong = _find_wrong_shape(result, count, subject.card)
    return failed("output", *wrong, blocks=True) if wrong else None


def _works(subject: Subject, count: int, labels: list[int] | None = None) -> bool:
    with contextlib.suppress(Exception):
        return _find_wrong_batch(subject, count, labels) is None
    return False


def _fail_label(subject: Subject, error: Exception) -> Finding:
    """Report that the first label works and another does not: usually the card has more classes than the module."""
    classes = subject.card.classes
    wrong = next((label for label in range(len(classes)) if not _works(subject, 1, [label])), None)
    named = "another label" if wrong is None else f"label {wrong} ({classes[wrong]!r})"
    seen = f"label 0 ({classes[0]!r}) works, {named} raised {describe_error(error, subject.source_file)}"
    change = f"the card has {len(classes)} classes: make the module support as many, or list fewer in classes"
    return failed("output", seen, change, blocks=True)


def _fail_fixed_batch(subject: Subject, count: int, error: Exception) -> Finding:
    seen = f"one row works, a batch of {count} raised {describe_error(error, subject.source_file)}"
    change = "allow any number of rows in dimension 0: x.shape[0] instead of a fixed number"
    if subject.card.family.name == "exported":
        change = f"export it with dynamic_shapes that name dimension 0 of every input {_EXPORT}"
    return failed("output", seen, change, blocks=True)


def _find_wrong_single_row(subject: Subject) -> Finding | None:
    """Run one row when several work; the finding does not block, so that other checks can add to it."""
    try:
        return _find_wrong_batch(subject, 1)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        seen = f"a batch works, one row alone raised {describe_error(error, subject.source_file)}"
        change = "allow any number of rows to be drawn, including one"
        return failed("output", seen, change + (f": {_EXPORT}" if subject.card.family.name == "exported" else ""))


def _find_wrong_shape(result: object, count: int, card: Card) -> tuple[str, str] | None:
    """Compare a module's result for `count` rows with the card.

    Returns:
        What is wrong and what to change; None when the result is correct.
    """
    if not isinstance(result, Tensor):
        kind = type(result).__name__
        return f"the module returned a {kind}, not a tensor", "return the images alone, a (B, C, H, W) tensor"
    sample = card.sample
    expected = (count, *sample.tensor_shape)
    if (shape := tuple(result.shape)) != expected:
        seen = f"the module returned shape {shape} for {count} row{'s' * (count > 1)} instead of {expected}"
        return seen, _remedy_for_shape(shape, expected)
    if not result.is_floating_point():
        kind = str(result.dtype).removeprefix("torch.")
        remedy = "return floats in the card's value_range: images.float() / 255"
        return f"the module returned {kind} instead of floats", remedy
    return None


def _remedy_for_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
    count = expected[0]
    if not shape or shape[0] != count:
        return "return one picture a row of z, in the order of z"
    if len(expected) == 2:
        return f"return vectors, (B, {expected[1]}), or set sample.length in model.yaml"
    _, channels, height, width = expected
    rest = shape[1:]
    if rest == (height, width, channels):
        return "put channels first: images.permute(0, 3, 1, 2)"
    if rest == (height, width) and channels == 1:
        return "add the channel: images.unsqueeze(1)"
    if len(rest) == 1 and rest[0] == channels * height * width:
        return f"return pictures: images.reshape(-1, {channels}, {height}, {width})"
    if len(rest) == 3:
        return f"set sample: channels {rest[0]}, height {rest[1]}, width {rest[2]} in model.yaml, or change the module"
    return "return (B, C, H, W)"


def _check_values(subject: Subject) -> Finding:
    if not subject.samples:
        return _check_values_of_reader(subject)
    drawn = _draw_labels(subject)
    if drawn.wrong_labels:
        return _fail_not_finite(subject, drawn)
    found = drawn.pixels
    if finding := _find_wrong_range(subject, found) or _find_wrong_parameter(subject):
        return finding
    sample = subject.card.sample
    shape = "×".join(map(str, sample.shape))
    seen = f"{shape} floats, pixels from {found.low:.4g} to {found.high:.4g} in {drawn.pictures} pictures"
    if uses_half(found, sample.value_range):
        unused = f"half of the card's value_range {list(sample.value_range)} is never used"
        return warned("output", f"{seen}: {unused}", advise_for_unused_half(found))
    return passed("output", seen, numbers={"low": found.low, "high": found.high})


def _draw_labels(subject: Subject) -> _Drawn:
    """Draw every label twice and at least four batches, or as many as the time allows."""
    found = _Drawn(pixels=PixelStatistics(value_range=subject.card.sample.value_range))
    classes = len(subject.card.classes)
    size = subject.batch(_BATCH)
    stop = time.monotonic() + _SHARE_OF_LIMIT * subject.time_limit_s
    for start in range(0, max(4 * size, 2 * classes), size):
        rows = subject.rows(size, start=start)
        assert isinstance(rows, SampleRows)
        found.add(subject.run(rows), [0] * size if rows.labels is None else rows.labels.tolist())
        if time.monotonic() > stop:
            break
    return found


def _fail_not_finite(subject: Subject, found: _Drawn) -> Finding:
    classes, wrong = subject.card.classes, sorted(set(found.wrong_labels))
    under = ""
    if classes:
        named = join_first([repr(classes[label]) for label in wrong], _MAX_NAMED)
        under = f" under label{'s' * (len(wrong) > 1)} {named}"
    seen = f"{len(found.wrong_labels)} of {found.pictures} pictures contain NaN or infinite values{under}"
    change = "look for a division by zero, a log or root of a negative, or weights of a diverged training"
    return failed("output", seen, change)


def _find_wrong_range(subject: Subject, found: PixelStatistics) -> Finding | None:
    if found.is_within:
        return None
    change = advise_for_range(found)
    return failed("output", describe_range(found), change + (subject.export_advice if ".clamp" in change else ""))


def _find_wrong_parameter(subject: Subject) -> Finding | None:
    """Draw at both ends of every parameter the card lists."""
    for name, parameter in subject.card.parameters.items():
        for end in (parameter.min, parameter.max):
            value = int(end) if name in ("top_k", "steps", "importance_samples") else end
            draw: Draw = dataclasses.replace(subject.draw, **{str(name): value})  # type: ignore[arg-type]
            results = subject.run(subject.rows(subject.batch(SEVERAL)), draw=draw)
            when = f" at {name} {value:g}"
            if not find_finite_rows(results).all():
                change = f"narrow parameters.{name} in model.yaml to where the model works"
                return failed("output", f"pictures contain NaN or infinite values{when}", change)
            found = PixelStatistics(value_range=subject.card.sample.value_range)
            found.add(results)
            if not found.is_within:
                return failed("output", describe_range(found, when), advise_for_parameter(found, name))
    return None


def _check_values_of_reader(subject: Subject) -> Finding:
    results = subject.run_in_batches(subject.rows(2 * subject.batch(_BATCH)))
    if not find_finite_rows(results).all():
        return failed("output", "results contain NaN or infinite values", "look for a division by zero, or train again")
    if subject.transforms:
        return passed("output", f"pictures of {results.shape[1]} values")
    if "CLASSIFY" not in subject.card.operations:
        return passed("output", f"{subject.operations[0]}: {results.shape[1]} values for each row")
    classes = len(subject.card.classes)
    probabilities = results[:, :classes]
    sums, lowest = probabilities.sum(axis=1), probabilities.min()
    if lowest < 0 or np.abs(sums - 1).max() > 1e-3:
        seen = f"probabilities of a picture sum to {sums.min():.4g} to {sums.max():.4g}, the lowest is {lowest:.4g}"
        return failed("output", seen, "end classify with torch.softmax(..., dim=1)")
    return passed("output", f"probabilities of {classes} classes and {results.shape[1] - classes} embedding values")


def _to_levels(subject: Subject, results: Float32s) -> NDArray[np.int16]:
    return floats_to_uint8(np.nan_to_num(results), subject.card.sample.value_range).astype(np.int16)


def _find_duplicates(pictures: Sequence[NDArray[np.int16]] | NDArray[np.int16]) -> list[tuple[int, int]]:
    """Pair each label with the first label before it that gave the same pictures."""
    first_with: dict[bytes, int] = {}
    labelled = [(first_with.setdefault(levels.tobytes(), label), label) for label, levels in enumerate(pictures)]
    return [(first, label) for first, label in labelled if first != label]
