"""Probes: they measure and draw a network during training, always at the same addresses.

They use none of the random numbers of the run. A network with averaged weights enters; a `Snapshot` and a picture
leave. Generators are measured by an evaluator classifier, classifiers on test rows; generators never see test rows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fount.address import Addresses
from fount.cli.output.images import image_grid
from fount.cli.output.points import points_to_picture
from handlers.family import Deadline, Decoder, Draw, Encoder, Noise, Sampler
from handlers.models.classifier import ConvClassifier
from handlers.recipes.data.load import TrainingData
from handlers.recipes.data.reductions import reduce_images
from handlers.recipes.noise import add_noise, noise_at
from handlers.recipes.quality.measures import draw_images
from handlers.recipes.quality.translations import translate_images
from handlers.recipes.run.history import Snapshot

__all__ = [
    "ClassifierProbe",
    "GeneratorProbe",
    "PointProbe",
    "Probe",
    "ReconstructionProbe",
    "TranslationProbe",
    "draw_grid",
]

_SEED = 7
_COUNT = 1000  # samples of a snapshot
_REAL = 500  # real pictures of a class that samples are compared with
_TESTED = 2000  # test rows of a snapshot
_COLUMNS = 10
_DEFAULT_DRAW = Draw()
_SHOWN, _PART = 40, 100  # reconstructions in the picture, and in a batch
_ANSWERS = 3  # to each given picture
_POINTS = 10_000  # in the picture of a model of points


class Probe(Protocol):
    """Measures and draws a network without changing it."""

    def measure(self, network: nn.Module, step: int) -> Snapshot:
        """Measure the network after some steps."""
        ...

    def draw(self, network: nn.Module) -> Image.Image:
        """Draw a picture of its results."""
        ...


class GeneratorProbe:
    """Draws samples and labels them; a row of the picture is a class, a column the same z under each class."""

    def __init__(
        self,
        data: TrainingData,
        classifier: ConvClassifier,
        classes: Sequence[str],
        value_range: tuple[float, float],
        device: torch.device,
        *,
        count: int = _COUNT,
        parameters: Draw = _DEFAULT_DRAW,
    ) -> None:
        """Measure the real pictures once.

        Args:
            data: samples are compared with its training rows.
            classifier: labels samples; on the CPU, and is copied.
            classes: of the generator; empty is unconditional.
            value_range: of the floats it returns.
            device: where it is trained.
            count: samples of a snapshot.
            parameters: of all samples.
        """
        self._count, self._parameters = count, parameters
        self._classifier = copy.deepcopy(classifier).to(device).eval()
        self._classes, self._value_range, self._device = classes, value_range, device
        self._labels = torch.arange(count, device=device) % len(classes) if classes else None
        train = data.train
        real = [train.of_class(k)[:_REAL] for k in range(len(classes))] if classes else [train.images[:_COUNT]]
        self._real = _distances_within(real)

    def measure(self, network: nn.Module, step: int) -> Snapshot:
        """Measure label accuracy, and the distance between samples of a class relative to real pictures."""
        images = self._sample(network, self._count, self._labels)
        if self._labels is None:
            return Snapshot(step=step, ratio=float((_distances_within([images]) / self._real).mean()))
        accuracies = _class_accuracies(self._classifier, images, self._labels, len(self._classes))
        groups = [images[self._labels == k] for k in range(len(self._classes))]
        ratio = float((_distances_within(groups) / self._real).mean())
        return Snapshot(step=step, accuracies=accuracies, ratio=ratio)

    def draw(self, network: nn.Module) -> Image.Image:
        """Draw ten samples of each class, or a hundred of a model without classes."""
        if not self._classes:
            return draw_grid(self._sample(network, _COLUMNS**2, None), [""] * _COLUMNS**2)
        labels = [torch.full((_COLUMNS,), k, device=self._device) for k in range(len(self._classes))]
        images = torch.cat([self._sample(network, _COLUMNS, label) for label in labels])
        return draw_grid(images, [name for name in self._classes for _ in range(_COLUMNS)])

    def _sample(self, network: nn.Module, count: int, labels: Tensor | None) -> Tensor:
        assert isinstance(network, Sampler)
        with np.errstate(invalid="ignore"):  # a network that diverges draws NaN, which is shown as black
            return draw_images(
                network,
                _SEED,
                count,
                labels,
                value_range=self._value_range,
                device=self._device,
                parameters=self._parameters,
            )


class ReconstructionProbe:
    """Restores training rows, with noise if the model removes it; the picture shows them before and after."""

    def __init__(self, data: TrainingData, noise: float, device: torch.device) -> None:
        """Measure the real pictures once.

        Args:
            data: the first of its training rows are restored.
            noise: the largest standard deviation of the noise; it rises over each row of the picture. 0 is none.
            device: where the model is trained.
        """
        images = data.train.images[:_COUNT]
        levels = noise * (torch.arange(len(images)) % _COLUMNS) / (_COLUMNS - 1)
        self._images, self._has_noise, self._real = images, noise > 0, _distances_within([images])
        self._seen = add_noise(images, levels, noise_at(_SEED, tuple(images.shape))).to(device)

    def measure(self, network: nn.Module, step: int) -> Snapshot:
        """Measure the distance between reconstructions relative to real pictures."""
        return Snapshot(step=step, ratio=float((_distances_within([self._restore(network)]) / self._real).mean()))

    def draw(self, network: nn.Module) -> Image.Image:
        """Draw rows of ten pictures, each above its noisy version, if any, and its reconstruction."""
        kinds = {"original": self._images, "noisy": self._seen.cpu(), "restored": self._restore(network).cpu()}
        if not self._has_noise:
            del kinds["noisy"]
        rows = [
            (name, images[at : at + _COLUMNS]) for at in range(0, _SHOWN, _COLUMNS) for name, images in kinds.items()
        ]
        captions = [name for name, images in rows for _ in range(len(images))]
        return draw_grid(torch.cat([images for _, images in rows]), captions)

    @torch.inference_mode()
    def _restore(self, network: nn.Module) -> Tensor:
        assert isinstance(network, Encoder)
        assert isinstance(network, Decoder)
        parts = torch.split(self._seen, _PART)
        return torch.cat([network.decode(network.encode(part, None)[0], None) for part in parts])


class TranslationProbe:
    """Answers reduced training rows; the picture shows them, the rows, and some answers. Nothing is measured."""

    def __init__(
        self, data: TrainingData, shape: tuple[int, int, int], value_range: tuple[float, float], device: torch.device
    ) -> None:
        """Reduce the first training rows to a shape, of channels, height and width."""
        self._images, self._value_range = data.train.images[:_COLUMNS], value_range
        self._given = reduce_images(self._images, shape).to(device)

    def measure(self, network: nn.Module, step: int) -> Snapshot:
        """Return an empty snapshot."""
        return Snapshot(step=step)

    def draw(self, network: nn.Module) -> Image.Image:
        """Draw given pictures, the rows they are of, and three answers of each."""
        height, channels = self._images.shape[2], self._images.shape[1]
        enlarged = nn.functional.interpolate(self._given.cpu(), height).expand(-1, channels, -1, -1)
        answers = [
            translate_images(
                network, self._given, seed=_SEED, value_range=self._value_range, start_index=k * _COLUMNS
            ).cpu()
            for k in range(_ANSWERS)
        ]
        captions = [name for name in ("given", "original", *["answer"] * _ANSWERS) for _ in range(_COLUMNS)]
        return draw_grid(torch.cat([enlarged, self._images, *answers]), captions)


class ClassifierProbe:
    """Labels test rows; the picture shows mistakes."""

    def __init__(self, data: TrainingData, device: torch.device) -> None:
        """Copy the test rows of a data set to the device on which the classifier is trained."""
        self._images, self._labels = data.test.images[:_TESTED].to(device), data.test.labels[:_TESTED].to(device)
        self._classes = data.classes

    def measure(self, network: nn.Module, step: int) -> Snapshot:
        """Measure the label accuracy of each class on test rows."""
        accuracies = _class_accuracies(network, self._images, self._labels, len(self._classes))
        return Snapshot(step=step, accuracies=accuracies)

    def draw(self, network: nn.Module) -> Image.Image:
        """Draw up to a hundred test rows, mistakes first, with the right label and the predicted one."""
        predicted = _label(network, self._images)
        order = (predicted == self._labels).int().argsort(stable=True)[: _COLUMNS**2]
        pairs = zip(self._labels[order].tolist(), predicted[order].tolist(), strict=True)
        names = [self._classes[k] if k == p else f"{self._classes[k]} as {self._classes[p]}" for k, p in pairs]
        return draw_grid(self._images[order], names)


class PointProbe:
    """Draws points; the picture shows how densely they lie, next to real ones. Nothing is measured on the way."""

    def __init__(self, data: TrainingData, value_range: tuple[float, float], device: torch.device) -> None:
        """Store the real points of a data set; `value_range` bounds the picture."""
        self._real, self._value_range, self._device = data.test.images, value_range, device

    def measure(self, network: nn.Module, step: int) -> Snapshot:
        """Return an empty snapshot."""
        return Snapshot(step=step)

    def draw(self, network: nn.Module) -> Image.Image:
        """Draw 10 000 generated points left and as many real ones right, those on the line as a histogram."""
        assert isinstance(network, Sampler)
        noise = Noise(addresses=Addresses.of_range(_SEED, 0, _POINTS), device=self._device)
        with torch.inference_mode():
            points = network.sample(noise, None, Draw(), Deadline()).float().cpu()
        shown = [points_to_picture(side.numpy(), self._value_range) for side in (points, self._real[:_POINTS])]
        return image_grid(np.stack(shown)[..., None], ["generated", "real"], columns=2)


def draw_grid(images: Tensor, captions: Sequence[str]) -> Image.Image:
    """Draw (N, C, H, W) in [0, 1]; of pictures with neither one nor three channels, the first channel."""
    shown = images if images.shape[1] in (1, 3) else images[:, :1]
    return image_grid(shown.permute(0, 2, 3, 1).cpu().numpy(), captions, columns=_COLUMNS)  # -> (N, H, W, C)


@torch.inference_mode()
def _label(network: nn.Module, images: Tensor) -> Tensor:
    """Predict the most likely class of (N, C, H, W), (N,)."""
    assert isinstance(network, ConvClassifier)
    parts = torch.split(images, _COUNT)
    return torch.cat([network.classify(part).argmax(dim=1) for part in parts])


def _class_accuracies(network: nn.Module, images: Tensor, labels: Tensor, classes: int) -> tuple[float, ...]:
    """Compute the share of each class's rows that get their label; 1 for a class without rows."""
    hits = (_label(network, images) == labels).float()
    of_classes = [hits[labels == k] for k in range(classes)]
    return tuple(float(of_class.mean()) if len(of_class) else 1.0 for of_class in of_classes)


def _distances_within(groups: Sequence[Tensor]) -> Tensor:
    """Compute the mean pixel distance between two pictures of each group, (K,), on the CPU."""
    return torch.stack([torch.pdist(images.flatten(1).cpu()).mean() for images in groups])
