"""The subject of the checks: one model's folder, and how far it was brought to life.

Checks run in one order; each takes from the subject what earlier ones put there, and draws through the very network a
worker runs. What is held at a time is bounded in bytes, whatever the size of a picture.
"""

from __future__ import annotations

import contextlib
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fount.address import Addresses, Stream
from fount.v1 import sampling_pb2
from handlers.cards.card import Card
from handlers.execution.network import Network, Operation
from handlers.execution.pixels import Float32s, Uint8s, uint8_to_floats
from handlers.execution.rows import ImageRows, Rows, SampleRows
from handlers.family import Draw
from handlers.settings import Settings
from handlers.verification.profile import Profile
from handlers.worker.items import made_up_manipulations, read_draw

__all__ = ["CHECK_SEED", "Subject", "seed_globals"]

CHECK_SEED = 0x434845434B
"""Seed of the addresses that checks draw."""

_MOST_BYTES = 64 * 2**20  # of pictures held at a time


@dataclass(kw_only=True)
class Subject:
    """A model under check.

    Attributes:
        folder: the model's.
        settings: how it is run.
        picture: where its picture goes.
        record: whether golden samples may be written.
        time_limit_s: how long one check may take.
        resident_before: bytes the process held before the model was loaded.
    """

    folder: Path
    settings: Settings
    picture: Path
    record: bool = True
    time_limit_s: float = 300.0
    resident_before: int = 0
    _card: Card | None = None
    _network: Network | None = None
    _profile: Profile | None = None

    @property
    def card(self) -> Card:
        """The card; the check `card` puts it there."""
        assert self._card is not None, "the card has not been read"
        return self._card

    @card.setter
    def card(self, card: Card) -> None:
        self._card = card

    @property
    def network(self) -> Network:
        """The loaded model; the check `weights` puts it there."""
        assert self._network is not None, "the weights have not been loaded"
        return self._network

    @network.setter
    def network(self, network: Network) -> None:
        self._network = network

    @property
    def profile(self) -> Profile:
        """The batch sizes that may run; the check `batch-size` puts it there."""
        assert self._profile is not None, "the profile has not been measured"
        return self._profile

    @profile.setter
    def profile(self, profile: Profile) -> None:
        self._profile = profile

    @property
    def samples(self) -> bool:
        """Whether the model draws pictures; else it reads them."""
        return "SAMPLE" in self.card.operations

    @property
    def transforms(self) -> bool:
        """Whether the model manipulates pictures."""
        return "TRANSFORM" in self.card.operations

    @property
    def scale(self) -> float:
        """What differences are measured against: the width of the value range, or 1 for probabilities."""
        low, high = self.card.sample.value_range
        return high - low if self.samples else 1.0

    def batch(self, wanted: int) -> int:
        """How many rows to run at once: as wanted, within the card's largest batch and 64 MiB of pictures."""
        return min(self.held_rows(wanted), self.card.limits.max_exec_batch)

    def held_rows(self, wanted: int) -> int:
        """How many rows' results to hold at a time: as wanted, within 64 MiB of pictures, one at least."""
        sample = self.card.sample
        return max(1, min(wanted, _MOST_BYTES // (4 * sample.height * sample.width * sample.channels)))

    def rows(self, count: int, *, start: int = 0, labels: list[int] | None = None) -> Rows:
        """Make rows to run.

        Args:
            count: how many.
            start: index of the first.
            labels: one a row; None is all classes in turn.
        """
        if self.transforms:
            sample, addresses = self.card.sample, Addresses.of_range(CHECK_SEED, start, count)
            return made_up_manipulations(addresses, (sample.height, sample.width, sample.channels))
        if not self.samples:
            return ImageRows(images=self._images(count, start))
        classes = len(self.card.classes)
        told = None
        if classes:
            told = np.array(labels if labels is not None else [(start + i) % classes for i in range(count)], np.int64)
        return SampleRows(addresses=Addresses.of_range(CHECK_SEED, start, count), labels=told)

    def run(self, rows: Rows, network: Network | None = None, draw: Draw | None = None) -> Float32s:
        """Run one batch of exactly these rows, as a request does that leaves every parameter unset.

        Returns:
            (B, H, W, C) float32 for samplers; (B, F) for others: probabilities before embeddings, or pixels in [0, 1].
        """
        network, draw = network or self.network, draw or self.draw
        if self.samples:
            return np.asarray(network.run("SAMPLE", rows, draw=draw), np.float32)
        if self.transforms:  # bytes as shares of white, (B, H, W, C) -> (B, H·W·C)
            levels = np.asarray(network.run("TRANSFORM", rows), np.uint8)
            return uint8_to_floats(levels.reshape(len(rows), -1), (0.0, 1.0))
        operations: list[Operation] = [name for name in ("CLASSIFY", "EMBED") if name in self.card.operations]
        return np.concatenate([network.run(operation, rows) for operation in operations], axis=1)

    def run_in_batches(self, rows: Rows, network: Network | None = None) -> Float32s:
        """Run any number of rows, in batches within bounds."""
        size = self.batch(32)
        parts = [self.run(rows.take(slice(i, i + size)), network) for i in range(0, len(rows), size)]
        return np.concatenate(parts)

    @property
    def draw(self) -> Draw:
        """Parameters as the card has them when a request names none."""
        return read_draw(sampling_pb2.Parameters(), self.card)

    def levels(self, difference: float) -> float:
        """Turn a difference of floats into levels of 255."""
        return 255 * difference / self.scale

    def golden_images(self) -> Uint8s | None:
        """Read the images of an existing golden file, for models that read pictures; None when there are none."""
        sample = self.card.sample
        with contextlib.suppress(OSError, SafetensorError, ValueError):
            with safe_open(self.folder / self.card.golden.file, framework="np") as stream:
                images: NDArray[np.uint8] = stream.get_tensor("images")
            if images.dtype == np.uint8 and images.shape[1:] == (sample.height, sample.width, sample.channels):
                return images
        return None

    def noise_images(self, count: int, start: int = 0) -> Uint8s:
        """Make images of noise, (count, H, W, C) uint8, for models that read pictures."""
        sample = self.card.sample
        shape = (sample.height, sample.width, sample.channels)
        uniforms = Addresses.of_range(CHECK_SEED, start, count).uniforms(Stream.LATENT, math.prod(shape))
        return (uniforms * 256).astype(np.uint8).reshape(count, *shape)  # (count, H W C) -> (count, H, W, C)

    def _images(self, count: int, start: int) -> Float32s:
        known = self.golden_images()
        if known is None or not len(known):
            chosen = self.noise_images(count, start)
        else:
            chosen = known[np.arange(start, start + count) % len(known)]
        return uint8_to_floats(chosen, self.card.sample.value_range)


def seed_globals(seed: int) -> None:
    """Set every global generator, so that a model which reads one can be told from a model which does not."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
