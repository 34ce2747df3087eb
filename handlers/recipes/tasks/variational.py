"""Training of variational autoencoders with p(z) = N(0, I): maximises the evidence lower bound.

Pixels are drawn anew as 0 or 1 in every batch, with their grey level as probability, which keeps a network from
learning one binarisation by heart.

Source: Kingma and Welling, "Auto-encoding variational Bayes", 2014, algorithm 1 and appendix B; Burda, Grosse,
Salakhutdinov, "Importance weighted autoencoders", 2016, section 5 (stochastic binarisation).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from handlers.models.standard_vae import StandardVae
from handlers.recipes.tasks.task import SingleNetworkTask

__all__ = ["StandardVaeTask"]


class StandardVaeTask(SingleNetworkTask):
    """One batch a step, one z a picture; the loss is reconstruction plus divergence, in nats per picture."""

    def losses(self, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Compute the negative evidence lower bound and its two parts."""
        assert isinstance(self.module, StandardVae)
        pixels = torch.bernoulli(images, generator=self._generator)
        mu, logvar = self.module.encode(pixels, None)
        epsilon = torch.randn(mu.shape, generator=self._generator).to(self._device)
        logits = self.module.logits(mu + (0.5 * logvar).exp() * epsilon)
        reconstruction = nn.functional.binary_cross_entropy_with_logits(logits, pixels, reduction="none")
        reconstruction = reconstruction.flatten(1).sum(dim=1).mean()
        divergence = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
        return {"loss": reconstruction + divergence, "reconstruction": reconstruction, "kl": divergence}
