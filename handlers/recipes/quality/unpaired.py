"""The quality entries of a translator that saw no pairs: its distance from the true map, and from undoing itself.

A module, its data and the evaluator classifier enter; entries for its card leave. Digits are translated into ink and
ink into digits, with the pixels a client receives. A translation that is returned to its first kind may pass through
rounding, or through noise of up to two levels: a generator that hides its input in the least levels fails then.

Source: Chu, Zhmoginov, Sandler, "CycleGAN, a master of steganography", 2017.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fount.address import Addresses
from fount.intervals import wilson_interval
from handlers.cards.card import Quality
from handlers.family import Deadline, Draw, Given, Noise, Translator
from handlers.recipes.data.ink import TO_DIGIT, TO_INK, invert, read_ink, write_in_ink
from handlers.recipes.data.load import TrainingData
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.quality.measures import OPTIMISTIC, count_correct, mean_entry, quality_entry

__all__ = ["measure_translator", "translate"]

_EVERY = 5  # test row: a fifth of MNIST's, easy and hard ones alike
_CHUNK = 100
_LEVELS, _NOISE_LEVELS = 255, 2
_STROKE = 0.5


def measure_translator(data: TrainingData, module: Translator, evaluator: Evaluator) -> Iterator[Quality]:
    """Measure both directions on test rows, then the ways there and back."""
    digits, labels = data.test.images[::_EVERY], data.test.labels[::_EVERY]
    ink = write_in_ink(digits)
    to_ink, to_digit = translate(module, digits, TO_INK), translate(module, ink, TO_DIGIT)
    yield from _compare("to-ink", _round(to_ink), ink, invert(digits), is_ink=True)
    yield _measure_labels("to-ink", evaluator, read_ink(_round(to_ink)), read_ink(ink), labels)
    yield from _compare("to-digit", _round(to_digit), digits, invert(ink), is_ink=False)
    yield _measure_labels("to-digit", evaluator, _round(to_digit), digits, labels)
    yield from _measure_cycle("digit", module, digits, to_ink, TO_DIGIT)
    yield from _measure_cycle("ink", module, ink, to_digit, TO_INK)


@torch.inference_mode()
def translate(module: Translator, images: Tensor, direction: int) -> Tensor:
    """Translate (N, C, H, W) in [0, 1] by a module whose value range is [-1, 1]; not rounded to levels."""
    translated = []
    for part in torch.split(images, _CHUNK):
        noise = Noise(addresses=Addresses.of_range(0, 0, len(part)), device=part.device)
        labels = torch.full((len(part),), direction)
        translated.append(module.translate(Given(values=2 * part - 1), labels, noise, Draw(), Deadline()))
    return 0.5 * (torch.cat(translated) + 1)


def _compare(direction: str, found: Tensor, true: Tensor, inverted: Tensor, *, is_ink: bool) -> Iterator[Quality]:
    """Compare translations with true ones, (N, C, H, W); the real value is that of inverted originals."""
    rows = f"{len(found)} translated test rows, every fifth one"
    method = (
        f"mean absolute difference of a pixel from the true map, between 0 and 1, over {rows}; the real value is that "
        f"of light and dark exchanged alone; lower is better; {OPTIMISTIC}"
    )
    errors, plain = _differences(found, true), _differences(inverted, true)
    yield mean_entry(f"{direction}-error", errors, method, real=float(plain.mean()))
    overlaps, plain = (_overlaps(images, true, is_ink=is_ink) for images in (found, inverted))
    method = (
        f"pixels that are stroke in the translation and in the true map over those that are in one of them, a stroke "
        f"being beyond {_STROKE}, over {rows}; the real value is that of light and dark exchanged alone; {OPTIMISTIC}"
    )
    yield mean_entry(f"{direction}-overlap", overlaps, method, real=float(plain.mean()))


def _measure_labels(direction: str, evaluator: Evaluator, found: Tensor, true: Tensor, labels: Tensor) -> Quality:
    """Measure how often the evaluator still reads the class; ink is read as `read_ink` turns it back."""
    hits, real = (count_correct(evaluator.classifier, images, labels) for images in (found, true))
    read = "with light and dark exchanged and strokes thinned, " if direction == "to-ink" else ""
    method = (
        f"share of {len(found)} translated test rows, every fifth one, {read}that {evaluator.name} gives their label; "
        f"the real value is that of the true map; Wilson interval; {OPTIMISTIC}"
    )
    interval = wilson_interval(hits, len(found))
    return quality_entry(f"{direction}-label-kept", hits / len(found), interval, real / len(found), method)


def _measure_cycle(kind: str, module: Translator, images: Tensor, middle: Tensor, back: int) -> Iterator[Quality]:
    """Measure the way there and back, with exact, rounded and disturbed pictures in the middle."""
    levels = torch.randint(-_NOISE_LEVELS, _NOISE_LEVELS + 1, middle.shape, generator=torch.Generator().manual_seed(0))
    disturbed = (_round(middle) + levels / _LEVELS).clamp(0, 1)
    for suffix, passed, how in (
        ("", middle, "as floats"),
        ("-rounded", _round(middle), f"rounded to {_LEVELS + 1} levels, as served"),
        ("-disturbed", disturbed, f"rounded, and each pixel moved by up to {_NOISE_LEVELS} of {_LEVELS} levels"),
    ):
        method = (
            f"mean absolute difference of a pixel, between 0 and 1, of {len(images)} test rows, every fifth one, from "
            f"their translation there and back; the picture in the middle is passed on {how}; lower is better"
        )
        yield mean_entry(f"{kind}-cycle-error{suffix}", _differences(translate(module, passed, back), images), method)


def _differences(images: Tensor, others: Tensor) -> Tensor:
    """Compute the mean absolute difference of each row's pixels, (N,)."""
    return (images - others).abs().flatten(1).mean(dim=1)


def _overlaps(images: Tensor, others: Tensor, *, is_ink: bool) -> Tensor:
    """Compute the intersection over union of each row's strokes, (N,)."""
    strokes = [(each < _STROKE if is_ink else each > _STROKE).flatten(1) for each in (images, others)]
    both, either = strokes[0] & strokes[1], strokes[0] | strokes[1]
    return both.sum(dim=1) / either.sum(dim=1).clamp(min=1)


def _round(images: Tensor) -> Tensor:
    """Round pixels in [0, 1] to the levels a client receives."""
    return (_LEVELS * images).round() / _LEVELS
