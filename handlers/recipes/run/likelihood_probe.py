"""The probe of autoregressive models: whole test rows are scored, and few samples drawn, which takes longer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from handlers.family import Sampler
from handlers.recipes.data.load import TrainingData
from handlers.recipes.data.text import to_text
from handlers.recipes.quality.measures import draw_images
from handlers.recipes.quality.texts import draw_texts
from handlers.recipes.run.history import Snapshot
from handlers.recipes.run.probes import draw_grid
from handlers.recipes.tasks.autoregressive import Likelihood

__all__ = ["LikelihoodProbe", "TextProbe"]

_SEED = 7
_TESTED, _PART = 500, 50  # test rows of a snapshot, and of a batch
_ROWS = 4  # of samples in the picture, each with one sample of every class
_COLUMNS = 10
_TEXTS, _TEXT_SIZE, _MARGIN = 4, 14, 12  # in the picture of a model of text; sizes in pixels


class LikelihoodProbe:
    """Scores test rows with their class; the picture shows a few samples of each class."""

    def __init__(
        self,
        data: TrainingData,
        classes: Sequence[str],
        value_range: tuple[float, float],
        device: torch.device,
    ) -> None:
        """Copy the first test rows to the device on which the model is trained; arguments as in `GeneratorProbe`."""
        self._images, labels = data.test.images[:_TESTED].to(device), data.test.labels[:_TESTED].to(device)
        self._labels = labels if classes else torch.zeros_like(labels)
        self._classes, self._value_range, self._device = classes, value_range, device

    @torch.inference_mode()
    def measure(self, network: nn.Module, step: int) -> Snapshot:
        """Measure -log2 p(x|y) of a dimension."""
        assert isinstance(network, Likelihood)
        parts = zip(torch.split(self._images, _PART), torch.split(self._labels, _PART), strict=True)
        nats = torch.cat([network.log_likelihood(images, labels) for images, labels in parts])
        return Snapshot(step=step, bits=float(-nats.mean()) / self._images[0].numel() / math.log(2))

    def draw(self, network: nn.Module) -> Image.Image:
        """Draw samples."""
        assert isinstance(network, Sampler)
        count = _ROWS * (len(self._classes) or _COLUMNS)
        labels = torch.arange(count, device=self._device) % len(self._classes) if self._classes else None
        images = draw_images(network, _SEED, count, labels, value_range=self._value_range, device=self._device)
        names = [""] * count if labels is None else [self._classes[k] for k in labels.tolist()]
        return draw_grid(images, names)


class TextProbe(LikelihoodProbe):
    """Scores test rows of text; the picture shows a few samples below each other."""

    def draw(self, network: nn.Module) -> Image.Image:
        """Draw samples as text, black on white."""
        assert isinstance(network, Sampler)
        rows = draw_texts(network, _SEED, _TEXTS, self._device)
        text = f"\n{'_' * _TEXT_SIZE}\n".join(map(to_text, rows))
        font = ImageFont.load_default(_TEXT_SIZE)
        box = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((_MARGIN, _MARGIN), text, font=font)
        picture = Image.new("L", (int(box[2]) + _MARGIN, int(box[3]) + _MARGIN), "white")
        ImageDraw.Draw(picture).multiline_text((_MARGIN, _MARGIN), text, fill="black", font=font)
        return picture
