"""The protocol by which the pipeline reaches workers: whole arrays in, whole arrays out, in order.

`service.rpc.runner_client.RemoteWorkers` implements it as a client of a gateway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.calls import Labels
from service.domain import Parameters
from service.evaluation.specification import PinnedModel

__all__ = ["DrawnSamples", "Workers"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnSamples:
    """Samples (n, H, W, C) uint8, zero where they failed; and which failed, (n,) bool."""

    images: NDArray[np.uint8]
    failed: NDArray[np.bool_]


class Workers(Protocol):
    """The workers of exact models, at bulk priority.

    Every method raises:
        NotReady: the workers are gone, still load, or did not answer in time; try again.
        Overloaded: too many calls wait; try again.
        Retired: the digest or numerics is not served any more.
        UnknownName: no model of that name is served.
        WorkerFault: a worker returned a wrong answer.
    """

    async def sample(
        self,
        model: PinnedModel,
        *,
        seed: int,
        start_index: int,
        count: int,
        labels: NDArray[np.uint32] | None,
        parameters: Parameters,
    ) -> DrawnSamples:
        """Draw samples start_index to start_index + count - 1; labels (count,), None for an unconditional model."""

    async def embed(self, model: PinnedModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed (n, H, W, C) images: (n, features) float32, NaN where the worker failed on a row."""

    async def classify(self, model: PinnedModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify (n, H, W, C) images: (n, classes) float32 probabilities in the model's order, NaN likewise."""

    async def score(
        self, model: PinnedModel, images: NDArray[np.uint8], *, seed: int, start_index: int, labels: Labels | None
    ) -> NDArray[np.float32]:
        """Score (n, H, W, C) images: (n, columns) float32, NaN likewise; log p(x|y) of labels (n,), else log p(x).

        Noise is drawn at (seed, start_index and the following).
        """
