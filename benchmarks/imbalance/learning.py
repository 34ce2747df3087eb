"""Train one classifier on the rows of one arm, and score it on the unchanged test rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.imbalance.reduced_mnist import REDUCED_CLASS
from handlers.models.classifier import ConvClassifier
from handlers.recipes.reproducible import reproducible

__all__ = ["STEPS", "Score", "train_and_score"]

STEPS = 600
_BATCH = 128
_RATE, _DECAY = 2e-3, 0.05
_CONFIG = {"height": 28, "width": 28, "channels": 1, "classes": 10, "features": 16, "embedding_dim": 64}


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores of a trained classifier on the test rows; field names are those of the stored results.

    Attributes:
        accuracy: over all classes.
        cut_recall: recall of the reduced class.
        other_recall: mean recall of the other classes.
        cut_precision: precision of the reduced class.
    """

    accuracy: float
    cut_recall: float
    other_recall: float
    cut_precision: float


def train_and_score(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    test: tuple[torch.Tensor, torch.Tensor],
    *,
    seed: int,
    class_weights: list[float] | None,
    threads: int,
) -> Score:
    """Train a classifier with the same steps, batch and rate for every arm, and score it.

    Args:
        images: (N, 28, 28, 1) uint8, the rows of an arm.
        labels: (N,).
        test: (M, 1, 28, 28) float32 in [0, 1] and (M,) int64.
        seed: of initial weights and batches.
        class_weights: of the loss; None: equal.
        threads: torch's.
    """
    rows = torch.from_numpy(images).permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W), uint8
    targets = torch.from_numpy(labels)
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    with reproducible(seed, threads=threads) as generator:
        module = ConvClassifier.from_config(_CONFIG)
        optimizer = torch.optim.AdamW(module.parameters(), lr=_RATE, weight_decay=_DECAY)
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS))
            batch = torch.randint(len(targets), (_BATCH,), generator=generator)
            logits = module(rows[batch].float() / 255)
            loss = nn.functional.cross_entropy(logits, targets[batch], weight=weights, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return _score(module.eval(), *test)


@torch.no_grad()
def _score(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Score:
    found = torch.cat([module(part).argmax(dim=1) for part in images.split(500)])
    recalls = [float((found[labels == k] == k).float().mean()) for k in range(_CONFIG["classes"])]
    predicted = found == REDUCED_CLASS
    return Score(
        accuracy=float((found == labels).float().mean()),
        cut_recall=recalls[REDUCED_CLASS],
        other_recall=sum(recalls[:REDUCED_CLASS] + recalls[REDUCED_CLASS + 1 :]) / (len(recalls) - 1),
        cut_precision=float((labels[predicted] == REDUCED_CLASS).float().mean()) if predicted.any() else 0.0,
    )
