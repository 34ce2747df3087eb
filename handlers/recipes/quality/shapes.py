"""The quality entries of generators of shapes on marble: the factors that can be read, against the law of the data.

Samples and test rows enter; entries for a card leave. In the data every shape and every colour is equally likely, and a
picture has one colour, so a generator that leaves some out, or mixes them, is found by counting.

Source: Pearson, "On the criterion that a given system of deviations ...", 1900 (chi-squared).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fount.intervals import wilson_interval
from fount.readers.shapes import SHAPE_CLASSES, SHAPE_COLOURS, read_colours
from handlers.cards.card import Quality
from handlers.execution.pixels import floats_to_uint8
from handlers.recipes.model_folder import Evaluator
from handlers.recipes.quality.measures import CONFIDENT, quality_entry

__all__ = ["chi_squared", "measure_shapes"]

_UNIT = (0.0, 1.0)
_CHUNK = 100
_NORMAL = 1.96  # standard errors of a 95 % interval


def measure_shapes(images: Tensor, real: Tensor, evaluator: Evaluator) -> Iterator[Quality]:
    """Measure the colours and shapes of samples; both are (N, 3, 64, 64) in [0, 1], `real` are test rows."""
    (colours, clear), (real_colours, real_clear) = map(_read_colours, (images, real))
    hits, drawn = int(clear.sum()), len(images)
    method = (
        f"share of {drawn} samples of whose coloured pixels {CONFIDENT} or more are nearest to one of the data's "
        f"{len(SHAPE_COLOURS)} colours; the real value is of {len(real)} test rows; Wilson interval"
    )
    yield quality_entry(
        "clear-colour-share", hits / drawn, wilson_interval(hits, drawn), float(real_clear.mean()), method
    )
    yield _compare("colour", colours, real_colours, SHAPE_COLOURS, "of most coloured pixels")
    shapes, real_shapes = (_read_shapes(rows, evaluator) for rows in (images, real))
    yield _compare("shape", shapes, real_shapes, SHAPE_CLASSES, f"that {evaluator.name} reads, labels balanced")


def chi_squared(kinds: NDArray[np.int64], count: int) -> float:
    """Compute how far the frequencies of `count` kinds are from equal ones; `count` - 1 on average where they are.

    Source: Pearson 1900.
    """
    expected = len(kinds) / count
    return float(((np.bincount(kinds, minlength=count) - expected) ** 2).sum() / expected)


def _compare(
    factor: str, kinds: NDArray[np.int64], real: NDArray[np.int64], names: tuple[str, ...], which: str
) -> Quality:
    count = len(names)
    value = chi_squared(kinds, count)
    listed = ", ".join(f"{name} {(kinds == kind).mean():.3f}" for kind, name in enumerate(names))
    method = (
        f"chi-squared of {len(kinds)} {factor}s {which} against equal shares; {count - 1} on average of an exact "
        f"sampler; {listed}; the real value is of {len(real)} test rows; interval of {_NORMAL} around its square root"
    )
    root = math.sqrt(value)
    interval = (max(0.0, root - _NORMAL) ** 2, (root + _NORMAL) ** 2)
    return quality_entry(f"{factor}-chi-squared", value, interval, chi_squared(real, count), method)


def _read_colours(images: Tensor) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Read the colour of each picture, (N,), and whether it is clear, (N,)."""
    parts = [
        read_colours(floats_to_uint8(rows.permute(0, 2, 3, 1).numpy(), _UNIT)) for rows in torch.split(images, _CHUNK)
    ]  # (B, C, H, W) -> (B, H, W, C)
    colours, shares = (np.concatenate(side) for side in zip(*parts, strict=True))
    return colours, shares >= CONFIDENT


@torch.inference_mode()
def _read_shapes(images: Tensor, evaluator: Evaluator) -> NDArray[np.int64]:
    parts = [evaluator.classifier.classify(rows).argmax(dim=1) for rows in torch.split(images, _CHUNK)]
    return torch.cat(parts).numpy()
