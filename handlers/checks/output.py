"""The check `output`: what comes out has the shape, type and range that the card promises, under every label.

A batch of several rows and one of a single row are asked for what the module gives, before a worker looks at it; then
the values of many are looked at.
"""

from __future__ import annotations

import contextlib

from torch import Tensor

from handlers.cards.card import Card
from handlers.checks.entry_points import call_by_hand, own_module, source_file_of
from handlers.checks.finding import Finding, failed
from handlers.checks.subject import Subject
from handlers.checks.values import check_values
from handlers.execution.torch_errors import is_out_of_memory
from handlers.faults import tell_fault

__all__ = ["check_output", "find_wrong_shape"]


CHECK = "output"
_SEVERAL = 7


def check_output(subject: Subject) -> Finding:
    """Draw, and compare with the card."""
    several = subject.batch(_SEVERAL)
    try:
        if finding := _find_wrong_batch(subject, several):
            return finding
    except Exception as error:
        if several == 1 or is_out_of_memory(error) or not _works(subject, 1):
            raise
        # One row has the first label; so may several.
        if subject.card.classes and _works(subject, several, labels=[0] * several):
            return _say_wrong_label(subject, error)
        return _say_fixed_batch(subject, several, error)
    return _find_fault_alone(subject) or check_values(subject)


def _works(subject: Subject, count: int, labels: list[int] | None = None) -> bool:
    with contextlib.suppress(Exception):
        return _find_wrong_batch(subject, count, labels) is None
    return False


def _say_wrong_label(subject: Subject, error: Exception) -> Finding:
    """Say that the first label works and another does not: most often the card has more classes than the module."""
    classes = subject.card.classes
    wrong = next((label for label in range(len(classes)) if not _works(subject, 1, [label])), None)
    told = "another label" if wrong is None else f"label {wrong} ({classes[wrong]!r})"
    seen = f"label 0 ({classes[0]!r}) works, {told} raised {tell_fault(error, source_file_of(subject))}"
    change = f"the card has {len(classes)} classes: let the module know as many, or list in classes those it knows"
    return failed(CHECK, seen, change, blocks=True)


def _say_fixed_batch(subject: Subject, count: int, error: Exception) -> Finding:
    """Say that one row works and several do not."""
    seen = f"one row works, a batch of {count} raised {tell_fault(error, source_file_of(subject))}"
    if subject.card.family.name == "exported":
        change = (
            "export it with dynamic_shapes that name dimension 0 of every input"
            ' torch.export.Dim("batch", min=1), and an example batch of 2 or more'
        )
    else:
        change = "let dimension 0 be any number of rows: x.shape[0] instead of a fixed number"
    return failed(CHECK, seen, change, blocks=True)


def _find_fault_alone(subject: Subject) -> Finding | None:
    """Ask for one row, when several work; other checks may still say more about it."""
    try:
        return _find_wrong_batch(subject, 1)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        seen = f"a batch works, one row alone raised {tell_fault(error, source_file_of(subject))}"
        change = "let any number of rows be drawn, one too"
        if subject.card.family.name == "exported":
            change += ': torch.export.Dim("batch", min=1), and an example batch of 2 or more'
        return failed(CHECK, seen, change)


def _find_wrong_batch(subject: Subject, count: int, labels: list[int] | None = None) -> Finding | None:
    """Ask for one batch and say what is wrong with its shape or type."""
    if subject.samples:
        rows = subject.rows(count, labels=labels)
        wrong = find_wrong_shape(call_by_hand(subject, own_module(subject), rows), count, subject.card)
        if wrong is None:
            return None
        return failed(CHECK, wrong[0], wrong[1], blocks=True)
    results = subject.run(subject.rows(count))
    return None if len(results) == count else failed(CHECK, f"{len(results)} rows for {count}", "", blocks=True)


# FOLDED FROM handlers.checks.output:
# Shapes: what is wrong with what a module gave, and what would make it right.


def find_wrong_shape(given: object, count: int, card: Card) -> tuple[str, str] | None:
    """Compare what a module gave with what the card promises.

    Args:
        given: what it gave.
        count: how many rows were asked for.
        card: the card.

    Returns:
        What is wrong and what to change; None when all is right.
    """
    if not isinstance(given, Tensor):
        kind = type(given).__name__
        return f"the module gave a {kind}, not a tensor", "return the images alone, a (B, C, H, W) tensor"
    sample = card.sample
    wanted = (count, sample.channels, sample.height, sample.width)
    if (shape := tuple(given.shape)) != wanted:
        seen = f"the module gave shape {shape} for {count} row{'s' * (count > 1)} where {wanted} is due"
        return seen, _remedy(shape, count, wanted)
    if not given.is_floating_point():
        kind = str(given.dtype).removeprefix("torch.")
        return (
            f"the module gave {kind} where floats are due",
            "return floats in the card's value_range: images.float() / 255",
        )
    return None


def _remedy(shape: tuple[int, ...], count: int, wanted: tuple[int, int, int, int]) -> str:
    _, channels, height, width = wanted
    if not shape or shape[0] != count:
        return "give one picture a row of z, in the order of z"
    rest = shape[1:]
    if rest == (height, width, channels):
        return "put channels first: images.permute(0, 3, 1, 2)"
    if rest == (height, width) and channels == 1:
        return "add the channel: images.unsqueeze(1)"
    if len(rest) == 1 and rest[0] == channels * height * width:
        return f"give pictures: images.reshape(-1, {channels}, {height}, {width})"
    if len(rest) == 3:
        return f"set sample: channels {rest[0]}, height {rest[1]}, width {rest[2]} in model.yaml, or change the module"
    return "give (B, C, H, W)"
