"""Probes: what a training run looks at along the way, always with the same addresses, never with its random numbers.

A network with averaged weights enters; a `Look` and a picture leave. Test rows are labelled by classifiers that are
trained, and never touched by generators.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fount.cli.output.images import image_grid
from handlers.family import Sampler
from handlers.models.classifier import ConvClassifier
from handlers.recipes.data.dataset import DataSet, Split
from handlers.recipes.quality.measures import draw_images
from handlers.recipes.run.watch import Look

__all__ = ["ClassifierProbe", "GeneratorProbe", "Probe"]

_SEED = 7
_COUNT = 1000  # samples of a look
_REAL = 500  # real pictures of a class that samples are compared with
_TESTED = 2000  # test rows of a look
_COLUMNS = 10


class Probe(Protocol):
    """Looks at a network, and changes nothing."""

    def look(self, network: nn.Module, step: int) -> Look:
        """Say how it does after some steps."""
        ...

    def draw(self, network: nn.Module) -> Image.Image:
        """Show what it does."""
        ...


class GeneratorProbe:
    """Draws samples and has them labelled; a row of the picture is a class, a column the same z under each."""

    def __init__(
        self, data: DataSet, judge: ConvClassifier, classes: Sequence[str], value_range: tuple[float, float],
        device: torch.device,
    ) -> None:  # fmt: skip
        """Measure the real pictures once.

        Args:
            data: its training rows are what samples are compared with.
            judge: labels samples; on the CPU, copied from there.
            classes: of the generator; empty is unconditional.
            value_range: of the floats it gives.
            device: where it is trained.
        """
        self._judge = copy.deepcopy(judge).to(device).eval()
        self._classes, self._value_range, self._device = classes, value_range, device
        self._labels = torch.arange(_COUNT, device=device) % len(classes) if classes else None
        self._real = _distances_within(_first_of_each(data.train, len(classes)))

    def look(self, network: nn.Module, step: int) -> Look:
        """Say how often a sample gets its label, and how far those of a class lie apart."""
        images = self._sample(network, _COUNT, self._labels)
        if self._labels is None:
            return Look(step=step, ratio=float((_distances_within([images]) / self._real).mean()))
        hits = (_label(self._judge, images) == self._labels).float()
        kinds = [self._labels == k for k in range(len(self._classes))]
        ratios = _distances_within([images[kind] for kind in kinds]) / self._real
        return Look(step=step, accuracies=tuple(float(hits[kind].mean()) for kind in kinds), ratio=float(ratios.mean()))

    def draw(self, network: nn.Module) -> Image.Image:
        """Show ten samples of each class, or a hundred without one."""
        if not self._classes:
            return _grid(self._sample(network, _COLUMNS**2, None), [""] * _COLUMNS**2)
        labels = [torch.full((_COLUMNS,), k, device=self._device) for k in range(len(self._classes))]
        images = torch.cat([self._sample(network, _COLUMNS, label) for label in labels])
        return _grid(images, [name for name in self._classes for _ in range(_COLUMNS)])

    def _sample(self, network: nn.Module, count: int, labels: Tensor | None) -> Tensor:
        assert isinstance(network, Sampler)
        with np.errstate(invalid="ignore"):  # a network that diverges draws NaN; they are shown as black
            return draw_images(
                network, _SEED, count, labels, value_range=self._value_range, device=self._device
            )  # fmt: skip


class ClassifierProbe:
    """Has test rows labelled; the picture shows mistakes."""

    def __init__(self, data: DataSet, device: torch.device) -> None:
        """Take the test rows of a data set to where the classifier is trained."""
        self._images, self._labels = data.test.images[:_TESTED].to(device), data.test.labels[:_TESTED].to(device)
        self._classes = data.classes

    def look(self, network: nn.Module, step: int) -> Look:
        """Say how often a test row of each class gets its label; a class without any counts as right."""
        hits = (_label(network, self._images) == self._labels).float()
        kinds = [self._labels == k for k in range(len(self._classes))]
        return Look(step=step, accuracies=tuple(float(hits[kind].mean()) if kind.any() else 1.0 for kind in kinds))

    def draw(self, network: nn.Module) -> Image.Image:
        """Show up to a hundred test rows, the wrongly labelled first, with the right label and the one given."""
        given = _label(network, self._images)
        order = (given == self._labels).int().argsort(stable=True)[: _COLUMNS**2]
        pairs = zip(self._labels[order].tolist(), given[order].tolist(), strict=True)
        names = [self._classes[k] if k == g else f"{self._classes[k]} as {self._classes[g]}" for k, g in pairs]
        return _grid(self._images[order], names)


def _grid(images: Tensor, captions: Sequence[str]) -> Image.Image:
    """Draw (N, C, H, W) in [0, 1]; pictures of neither one nor three channels by their first."""
    shown = images if images.shape[1] in (1, 3) else images[:, :1]
    return image_grid(shown.permute(0, 2, 3, 1).cpu().numpy(), captions, columns=_COLUMNS)  # -> (N, H, W, C)


@torch.inference_mode()
def _label(network: nn.Module, images: Tensor) -> Tensor:
    """Give the likeliest class of (N, C, H, W), (N,)."""
    assert isinstance(network, ConvClassifier)
    parts = torch.split(images, _COUNT)
    return torch.cat([network.classify(part).argmax(dim=1) for part in parts])


def _first_of_each(rows: Split, classes: int) -> list[Tensor]:
    """Some real pictures of each class, or of all when there are none."""
    return [rows.of_class(k)[:_REAL] for k in range(classes)] if classes else [rows.images[:_COUNT]]


def _distances_within(kinds: Sequence[Tensor]) -> Tensor:
    """Mean pixel distance of two pictures of each kind, (K,), on the CPU."""
    return torch.stack([torch.pdist(images.flatten(1).cpu()).mean() for images in kinds])
