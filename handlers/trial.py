"""Draw samples from a model folder, or translate pictures, without a server, for tests and notebooks of its author.

A model folder enters; arrays by address leave, the same a worker makes, before rounding to uint8.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fount.address import Addresses
from handlers.cards.card import Card, load_card
from handlers.execution.network import Network, build_network
from handlers.execution.pixels import Float32s
from handlers.execution.rows import GivenRows, Int64s, SampleRows
from handlers.loading.build import build_module
from handlers.settings import Settings

__all__ = ["Trial", "open_trial"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A loaded generator.

    Attributes:
        network: the loaded model, on the CPU in float32.
    """

    network: Network

    @property
    def card(self) -> Card:
        """The model's card."""
        return self.network.card

    def draw(self, *, count: int, seed: int = 0, start_index: int = 0, label: int | None = None) -> Float32s:
        """Draw samples of consecutive addresses, all in one batch.

        Args:
            count: of samples.
            seed: 0 to 2^64 - 1.
            start_index: of the first sample.
            label: one class for all, from 0; None draws class i mod classes for index i, or no class if there are none.

        Returns:
            (count, H, W, C) float32, as the module returns them.
        """
        rows = SampleRows(
            addresses=Addresses.of_range(seed, start_index, count), labels=self._labels(start_index, count, label)
        )
        return np.asarray(self.network.run("SAMPLE", rows), np.float32)

    def translate(self, images: Float32s, *, seed: int = 0, start_index: int = 0, label: int | None = None) -> Float32s:
        """Translate pictures at consecutive addresses, all in one batch.

        Args:
            images: (count, H, W, C) float32 of the card's input, in its value range.
            seed: 0 to 2^64 - 1.
            start_index: of the first picture.
            label: one direction or class for all; None as for `draw`.

        Returns:
            (count, H, W, C) float32, as the module returns them.
        """
        count = len(images)
        addresses, labels = Addresses.of_range(seed, start_index, count), self._labels(start_index, count, label)
        rows = GivenRows(values=np.ascontiguousarray(images, np.float32), labels=labels, addresses=addresses)
        return np.asarray(self.network.run("TRANSLATE", rows), np.float32)

    def _labels(self, start_index: int, count: int, label: int | None) -> Int64s | None:
        classes, indices = len(self.card.classes), np.arange(start_index, start_index + count)
        return (indices % classes if label is None else np.full(count, label)).astype(np.int64) if classes else None


def open_trial(folder: Path) -> Trial:
    """Load the generator of a model folder.

    Raises:
        CardError: its card is not valid.
        BuildError: the model cannot be built.
        WeightsError: its weights do not fit.
    """
    card = load_card(folder)
    return Trial(network=build_network(card, build_module(card, folder), Settings()))
