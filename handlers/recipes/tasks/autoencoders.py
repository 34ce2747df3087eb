"""Training of autoencoders: maximises the evidence lower bound of the pictures, with or without classes.

Source: Kingma and Welling, "Auto-encoding variational Bayes", 2014, algorithm 1; Sohn, Lee, Yan 2015 for the classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from handlers.models.vae import Autoencoder
from handlers.recipes.tasks.task import SingleNetworkTask

__all__ = ["AutoencoderTask"]


class AutoencoderTask(SingleNetworkTask):
    """One batch a step, one z a picture; the loss is reconstruction plus divergence, in nats per picture."""

    def losses(self, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Compute the negative evidence lower bound and its two parts."""
        assert isinstance(self.module, Autoencoder)
        config = self.module.config
        epsilon = torch.randn(len(images), config.latent_dim, generator=self._generator).to(self._device)
        elbo = self.module.elbo(images, labels if config.classes else None, epsilon)
        total = elbo.reconstruction + elbo.divergence
        return {"loss": total, "reconstruction": elbo.reconstruction, "kl": elbo.divergence}
