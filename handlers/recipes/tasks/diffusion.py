"""Training of diffusion models: remove noise of random strength from training rows, with and without their class.

Source: Karras, Aittala, Aila, Laine, "Elucidating the design space of diffusion-based generative models", 2022, table 1
(training); Ho and Salimans, "Classifier-free diffusion guidance", 2022, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from handlers.models.diffusion import EdmDiffusion
from handlers.recipes.catalogue import DiffusionFit
from handlers.recipes.tasks.task import SingleNetworkTask

__all__ = ["DiffusionTask"]


class DiffusionTask(SingleNetworkTask):
    """One batch a step, each row with its own noise level; an untrained network has a loss of 1 at each."""

    def losses(self, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Compute the squared error of the images without noise, weighted by its size for an untrained network."""
        fit, module = self._fit, self.module
        assert isinstance(module, EdmDiffusion)
        assert isinstance(fit, DiffusionFit)
        x, rows = 2 * images - 1, len(images)
        exponents = torch.randn(rows, generator=self._generator, dtype=torch.float64)
        sigma = (fit.log_sigma_mean + fit.log_sigma_spread * exponents).exp().to(self._device)
        noise = torch.randn(x.shape, generator=self._generator).to(self._device)
        dropped = (torch.rand(rows, generator=self._generator) < fit.label_dropout).to(self._device)
        labels = torch.where(dropped, module.config.classes, labels)
        scale = sigma.float().view(-1, 1, 1, 1)  # (B,) -> (B, 1, 1, 1)
        error = module.denoise(x + scale * noise, sigma, labels) - x
        data = module.config.sigma_data
        weight = (scale**2 + data**2) / (scale * data) ** 2
        return {"loss": (weight * error**2).mean()}
