"""Tiny families that encode, decode, score, translate and sample given values, and the workers that serve them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fount.address import Stream
from handlers.cards import card as cards
from handlers.family import Deadline, Draw, Given, Noise
from handlers.worker.worker import Worker
from tests.handlers.toys import SIDE, fill_parameters, load, toy_card, write_folder

CODE = 3
"""Length of the toys' latent."""


class ToyAutoencoder(nn.Module):
    """Encodes, decodes and scores pictures of three classes; scores read noise at their address."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.encoder = nn.Linear(SIDE * SIDE + classes, 2 * CODE)
        self.decoder = nn.Linear(CODE + classes, SIDE * SIDE)
        fill_parameters(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config["classes"])

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, logvar = self.encoder(self._join(images.flatten(1), labels)).chunk(2, dim=1)
        return mean, logvar

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return torch.sigmoid(self.decoder(self._join(z, labels))).reshape(-1, 1, SIDE, SIDE)

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        return self.decode(noise.normal(Stream.LATENT, (CODE,)), labels)

    def score(self, images: Tensor, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Score log p(x|y), or the mean over classes; the second column averages draws in double precision."""
        deadline.check()
        given = range(self.classes) if labels is None else [None]
        joint = [self._density(images, labels if label is None else torch.full((len(images),), label))
                 for label in given]  # fmt: skip
        exact = torch.logsumexp(torch.stack(joint, dim=1), dim=1) - math.log(len(joint))
        count = draw.importance_samples or 1
        draws = [noise.normal(Stream.STEP, (1,), step=step)[:, 0].double() for step in range(count)]
        return torch.stack([exact.double(), exact.double() + torch.stack(draws, dim=1).mean(dim=1)], dim=1)

    def _density(self, images: Tensor, labels: Tensor | None) -> Tensor:
        mean, _ = self.encode(images, labels)
        return -((images - self.decode(mean, labels)) ** 2).flatten(1).sum(dim=1)

    def _join(self, values: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        return torch.cat([values, nn.functional.one_hot(labels, self.classes).to(values.dtype)], dim=1)


class ToyPoints(nn.Module):
    """Points of the plane, by an affine map of standard normals that it inverts: a code is a point without spread."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, 2.0]))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls()

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, None]:
        return images / self.scale, None

    def decode(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return z * self.scale

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        return self.decode(noise.normal(Stream.LATENT, (2,)), None)

    def score(self, images: Tensor, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        z, _ = self.encode(images, None)
        return (-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - self.scale.log()).sum(dim=1, keepdim=True)

    def classify(self, images: Tensor) -> Tensor:
        return torch.softmax(images, dim=1)


class ToyPainter(nn.Module):
    """Fills in what a mask hides with a drawn level, and translates pictures to their negatives."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.25))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls()

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        return self._levels(noise)

    def sample_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        mask = torch.ones_like(given.values) if given.mask is None else given.mask
        return mask * given.values + (1 - mask) * self._levels(noise)

    def translate(self, given: Given, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        mask = torch.ones_like(given.values) if given.mask is None else given.mask
        return mask * (1 - given.values) * (4 * self.level)

    def _levels(self, noise: Noise) -> Tensor:
        z = noise.normal(Stream.LATENT, (1, SIDE, SIDE))
        return torch.sigmoid(z) * self.level


def toy_codes(count: int) -> NDArray[np.float32]:
    """Latents of `ToyAutoencoder`."""
    return np.random.default_rng(0).standard_normal((count, CODE), np.float32)


def autoencoder_card(*operations: cards.OperationName) -> cards.Card:
    parameter = cards.Parameter(min=1.0, max=64.0, default=1.0, description="Draws that a score averages.")
    return dataclasses.replace(
        toy_card(max_exec_batch=16),
        operations=operations or ("SAMPLE", "ENCODE", "DECODE", "SCORE"),
        latent_dim=CODE,
        latent_spread=0.5,
        parameters={"importance_samples": parameter},
        score_columns=(_column("exact", "EXACT"), _column("drawn", "ESTIMATE")),
    )


def points_card() -> cards.Card:
    return dataclasses.replace(
        toy_card(classes=0, max_exec_batch=16),
        operations=("SAMPLE", "ENCODE", "DECODE", "SCORE"),
        sample=cards.Sample(modality="vector", length=2, value_range=(-20.0, 20.0)),
        encodings=("FLOAT32",),
        precisions=("fp32",),
        parameters={},
        latent_dim=2,
        score_columns=(_column("exact", "EXACT"),),
    )


def reader_of_points_card() -> cards.Card:
    card = dataclasses.replace(points_card(), operations=("CLASSIFY",), encodings=(), latent_dim=None, score_columns=())
    return dataclasses.replace(card, classes=("left", "right"))


def painter_card() -> cards.Card:
    return dataclasses.replace(
        toy_card(classes=0, max_exec_batch=16), operations=("SAMPLE", "TRANSLATE"), parameters={}
    )


def serve(folder: Path, card: cards.Card, kind: type[nn.Module], *arguments: Any) -> Worker:
    """Load a worker of a toy with its golden samples."""
    return load(write_folder(folder, card, kind(*arguments)), kind)


def _column(name: str, kind: Any) -> cards.ScoreColumn:
    return cards.ScoreColumn(name=name, unit="nats", kind=kind, description="Of 16 pixels.")
