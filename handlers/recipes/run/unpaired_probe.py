"""The probe of translators that see no pairs: how often a class is still read, and the ways there and back."""

from __future__ import annotations

import copy

import torch
from PIL import Image
from torch import Tensor, nn

from handlers.models.classifier import ConvClassifier
from handlers.models.cyclegan import CycleGan
from handlers.recipes.data.ink import TO_DIGIT, TO_INK, read_ink, split_unpaired, write_in_ink
from handlers.recipes.data.load import TrainingData
from handlers.recipes.quality.measures import count_correct
from handlers.recipes.run.history import Snapshot
from handlers.recipes.run.probes import draw_grid

__all__ = ["UnpairedProbe"]

_COUNT = 200  # pictures of each kind in a snapshot
_COLUMNS = 10


class UnpairedProbe:
    """Translates training rows of both kinds; the picture shows them, their translations, and the way back."""

    def __init__(self, data: TrainingData, classifier: ConvClassifier, device: torch.device) -> None:
        """Copy training rows of both kinds, and the classifier that reads them, to the device of the training."""
        self._digits, self._ink = (images[:_COUNT].to(device) for images in split_unpaired(data.train))
        self._labels = [data.train.labels[start::2][:_COUNT].to(device) for start in (0, 1)]
        self._classifier = copy.deepcopy(classifier).to(device).eval()

    def measure(self, network: nn.Module, step: int) -> Snapshot:
        """Measure the share of rows whose class is still read after each translation."""
        read = read_ink(_translate(network, self._digits, TO_INK)), _translate(network, self._ink, TO_DIGIT)
        hits = [count_correct(self._classifier, *pair) for pair in zip(read, self._labels, strict=True)]
        return Snapshot(step=step, accuracies=tuple(n / len(of) for n, of in zip(hits, self._labels, strict=True)))

    def draw(self, network: nn.Module) -> Image.Image:
        """Draw rows of ten: digits, their translations, the true ones, the way back; then the same of ink."""
        digits, ink = self._digits[:_COLUMNS], self._ink[:_COLUMNS]
        to_ink, to_digit = _translate(network, digits, TO_INK), _translate(network, ink, TO_DIGIT)
        rows = {
            "digit": digits, "to ink": to_ink, "true ink": write_in_ink(digits),
            "and back": _translate(network, to_ink, TO_DIGIT),
            "ink": ink, "to digit": to_digit, "and again": _translate(network, to_digit, TO_INK),
        }  # fmt: skip
        return draw_grid(torch.cat(list(rows.values())), [name for name in rows for _ in range(_COLUMNS)])


@torch.inference_mode()
def _translate(network: nn.Module, images: Tensor, direction: int) -> Tensor:
    """Translate (N, C, H, W) in [0, 1] in one direction."""
    assert isinstance(network, CycleGan)
    labels = torch.full((len(images),), direction, device=images.device)
    translated: Tensor = network(2 * images - 1, labels)
    return 0.5 * (translated + 1)
