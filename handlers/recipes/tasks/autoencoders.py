"""Training of autoencoders: variational ones, with or without classes, plain and denoising ones, and linear ones.

Sources: Kingma and Welling, "Auto-encoding variational Bayes", 2014, algorithm 1; Sohn, Lee, Yan 2015 for the classes;
Vincent et al., "Extracting and composing robust features with denoising autoencoders", 2008.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from handlers.models.autoencoder import LinearAutoencoder, NetworkAutoencoder
from handlers.models.vae import Autoencoder
from handlers.recipes.catalogue import AutoencoderFit
from handlers.recipes.noise import add_noise
from handlers.recipes.tasks.task import SingleNetworkTask, Task

__all__ = ["AutoencoderTask", "PrincipalTask", "ReconstructionTask"]


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


class ReconstructionTask(SingleNetworkTask):
    """One batch a step; the loss is the cross-entropy of pixels, in nats per picture, of noisy input if so wanted."""

    def losses(self, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Compute the cross-entropy of the reconstructions with the pictures."""
        assert isinstance(self._fit, AutoencoderFit)
        assert isinstance(self.module, NetworkAutoencoder)
        seen = images
        if self._fit.noise:
            levels = self._fit.noise * torch.rand(len(images), generator=self._generator).to(self._device)
            noise = torch.randn(images.shape, generator=self._generator).to(self._device)
            seen = add_noise(images, levels, noise)
        logits = self.module.logits(self.module.encode(seen, None)[0])
        losses = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
        return {"loss": losses.flatten(1).sum(dim=1).mean()}


class PrincipalTask(Task):
    """One step computes the principal components of the pictures."""

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Set the weights; later steps change nothing."""
        assert isinstance(self.module, LinearAutoencoder)
        assert isinstance(self._average, LinearAutoencoder)
        self.module.fit(self._images)
        self._average.load_state_dict(self.module.state_dict())
        restored = self.module.reconstruct(self.module.encode(self._images, None)[0])
        return {"loss": ((restored - self._images.flatten(1)) ** 2).sum(dim=1).mean()}
