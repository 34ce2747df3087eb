"""Training of a classifier: cross-entropy with smoothed labels on augmented pictures.

Source: Szegedy et al., "Rethinking the inception architecture", 2016 (smoothed labels).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from handlers.recipes.catalogue import ClassifierFit
from handlers.recipes.tasks.task import SingleNetworkTask

__all__ = ["ClassifierTask"]


class ClassifierTask(SingleNetworkTask):
    """One batch of augmented pictures a step."""

    def losses(self, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Compute the cross-entropy."""
        assert isinstance(self._fit, ClassifierFit)
        logits = self.module(self._fit.augmentation.change(images, self._generator))
        return {"loss": nn.functional.cross_entropy(logits, labels, label_smoothing=self._fit.smoothing)}
