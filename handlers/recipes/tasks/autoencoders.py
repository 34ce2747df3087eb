"""Training of autoencoders: maximises the evidence lower bound of the pictures, with or without classes.

Source: Kingma and Welling, "Auto-encoding variational Bayes", 2014, algorithm 1; Sohn, Lee, Yan 2015 for the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from handlers.models import load_family
from handlers.models.vae import Autoencoder
from handlers.recipes.tasks.task import SingleNetworkTask, VaeFit

if TYPE_CHECKING:
    from handlers.recipes.catalogue import Recipe
    from handlers.recipes.data.load import Split

__all__ = ["AutoencoderTask"]


class AutoencoderTask(SingleNetworkTask):
    """One batch a step, one z a picture; the loss is reconstruction plus divergence, in nats per picture."""

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Build the network, as in `handlers.recipes.training.build_task`."""
        assert isinstance(recipe.fit, VaeFit)
        module = load_family(recipe.family, recipe.config)
        assert isinstance(module, Autoencoder)
        super().__init__(module.to(device), len(rows.labels), recipe.fit, steps=steps, generator=generator)
        self._autoencoder, self._device = module, device
        self._images, self._labels = rows.images.to(device), rows.labels.to(device)

    def losses(self, rows: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Compute the negative evidence lower bound and its two parts."""
        config = self._autoencoder.config
        epsilon = torch.randn(len(rows), config.latent_dim, generator=generator).to(self._device)
        rows = rows.to(self._device)
        labels = self._labels[rows] if config.classes else None
        elbo = self._autoencoder.elbo(self._images[rows], labels, epsilon)
        total = elbo.reconstruction + elbo.divergence
        return {"loss": total, "reconstruction": elbo.reconstruction, "kl": elbo.divergence}
