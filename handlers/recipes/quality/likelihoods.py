"""The quality entries of models that draw one value after another: exact likelihoods of rows they were not trained on.

A model and its data enter; entries for its card leave. Likelihoods of training rows are compared with those of test
rows: a model that memorises finds them likelier.

Source: Theis, van den Oord, Bethge, "A note on the evaluation of generative models", 2016, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn

from handlers.cards.card import Quality
from handlers.recipes.data.load import Split, TrainingData
from handlers.recipes.quality.measures import OPTIMISTIC, mean_entry, quality_entry
from handlers.recipes.tasks.autoregressive import Likelihood

__all__ = ["measure_likelihoods", "rows_to_bits"]

_ROWS, _CHUNK = 2000, 50
_NORMAL = NormalDist().inv_cdf(0.975)


def measure_likelihoods(
    data: TrainingData, module: nn.Module, *, conditional: bool, unit: str = "pixels"
) -> Iterator[Quality]:
    """Measure bits per dimension of test rows, and how many more they are than of training rows.

    Args:
        data: what it was trained on.
        module: a `Likelihood`, whose configuration has `levels`, the values of a dimension.
        conditional: whether its rows are scored with their class.
        unit: what the dimensions are.
    """
    config: Any = module.config
    test, train = (rows_to_bits(module, split, conditional=conditional) for split in (data.test, data.train))
    law = "p(x|y)" if conditional else "p(x)"
    dims = data.test.images[0].numel()
    method = (
        f"mean of -log2 {law}, exact, of the {dims} {unit} at {config.levels} levels, divided by {dims}, over the "
        f"first {len(test)} test rows; lower is better; {OPTIMISTIC}"
    )
    yield mean_entry("test-bits-per-dimension", test, method)
    gap, error = float(test.mean() - train.mean()), math.hypot(_half_width(test), _half_width(train))
    method = (
        f"bits per dimension of the first {len(test)} test rows, less those of the first {len(train)} training rows; "
        "above 0 where training rows are remembered; normal interval of the difference"
    )
    yield quality_entry("train-test-bits-gap", gap, (gap - error, gap + error), 0.0, method)


@torch.inference_mode()
def rows_to_bits(module: nn.Module, rows: Split, *, conditional: bool) -> Tensor:
    """Compute -log2 p of each of the first rows, divided by its dimensions, (N,) float64."""
    assert isinstance(module, Likelihood)
    images, labels = rows.images[:_ROWS], rows.labels[:_ROWS]
    shown = labels if conditional else torch.zeros_like(labels)
    parts = zip(torch.split(images, _CHUNK), torch.split(shown, _CHUNK), strict=True)
    nats = torch.cat([module.log_likelihood(part, of_part) for part, of_part in parts]).double()
    return -nats / (math.log(2) * images[0].numel())


def _half_width(values: Tensor) -> float:
    return _NORMAL * float(values.std()) / math.sqrt(len(values))
