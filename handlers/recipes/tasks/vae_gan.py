"""Training of a variational autoencoder with a discriminator, whose features compare pictures beside their pixels.

The encoder minimises divergence and reconstruction; the decoder reconstruction and what the discriminator finds wrong
with reconstructions and with samples of the prior; the discriminator tells both from real pictures. The adversarial
loss is scaled to the gradient of the reconstruction at the decoder's last layer, so no weight has to be found.

Sources: Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", 2016, algorithm 1; Miyato et
al., "Spectral normalization for generative adversarial networks", 2018; Esser, Rombach, Ommer, "Taming transformers for
high-resolution image synthesis", 2021, equation 7 (the scale).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from handlers.models.conv_vae import ConvVae
from handlers.recipes.catalogue import Recipe, VaeGanFit
from handlers.recipes.data.load import Split
from handlers.recipes.tasks.task import Task, average_into

__all__ = ["Discriminator", "VaeGanTask"]

_SLOPE = 0.2
_MOST_SCALE = 1e4
_PIXEL_SHARE = 0.5  # of the reconstruction loss; the other half is of features
_FEATURE_NATS = 100.0  # loss of a picture whose features are as far from the original's as those are from zero


class Discriminator(nn.Module):
    """D(x): strided convolutions of spectral norm 1. Never served."""

    def __init__(self, channels: int, height: int, width: int, features: int) -> None:
        """Build the network with untrained weights, for (channels, height, width) divisible by 4."""
        super().__init__()
        wide = 2 * features
        self.first = nn.Sequential(
            spectral_norm(nn.Conv2d(channels, features, 4, stride=2, padding=1)), nn.LeakyReLU(_SLOPE),
            spectral_norm(nn.Conv2d(features, wide, 4, stride=2, padding=1)), nn.LeakyReLU(_SLOPE),
        )  # fmt: skip
        self.last = nn.Sequential(
            spectral_norm(nn.Conv2d(wide, wide, 3, padding=1)), nn.LeakyReLU(_SLOPE), nn.Flatten(),
            spectral_norm(nn.Linear(wide * (height // 4) * (width // 4), 1)),
        )  # fmt: skip

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features, (B, F), and the score, (B,), of (B, C, H, W) in [0, 1]; above 0 means real."""
        features = self.first(2 * images - 1)
        scores: Tensor = self.last(features)[:, 0]  # (B, 1) -> (B,)
        return features.flatten(1), scores


class VaeGanTask(Task):
    """A variational autoencoder and its discriminator; one step of each."""

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Build both networks, as in `Task`."""
        super().__init__(recipe, rows, steps=steps, generator=generator, device=device)
        assert isinstance(recipe.fit, VaeGanFit)
        assert isinstance(self.module, ConvVae)
        fit, config, self._vae = recipe.fit, self.module.config, self.module
        self._fit = fit
        self._discriminator = Discriminator(
            config.channels, config.height, config.width, fit.discriminator_features
        ).to(device)
        self._modules["discriminator"] = self._discriminator
        self._optimizers = {
            "optimizer": torch.optim.Adam(self.module.parameters(), betas=fit.betas),
            "discriminator_optimizer": torch.optim.Adam(self._discriminator.parameters(), betas=fit.betas),
        }

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take one step of the discriminator, then one of encoder and decoder."""
        fit, share = self._fit, 0.5 * (1 + math.cos(math.pi * number / self._steps))
        images, _ = self._draw_batch(fit.batch)
        mu, logvar = self._vae.encode(images, None)
        restored = self._vae.logits(mu + (0.5 * logvar).exp() * self._normals(mu.shape))
        drawn = self._vae.decode(self._normals(mu.shape), None)
        fakes = torch.cat([torch.sigmoid(restored), drawn])  # (2B, C, H, W)

        self._discriminator.requires_grad_(True)
        _, real_scores = self._discriminator(images)
        _, fake_scores = self._discriminator(fakes.detach())
        adversary = nn.functional.relu(1 - real_scores).mean() + nn.functional.relu(1 + fake_scores).mean()
        self._descend("discriminator_optimizer", adversary, share * fit.discriminator_rate)

        self._discriminator.requires_grad_(False)  # it only passes gradients
        with torch.no_grad():
            real_features, _ = self._discriminator(images)
        features, scores = self._discriminator(fakes)
        reconstruction = self._reconstruction(images, restored, real_features, features[: len(images)])
        divergence = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
        deception = -scores.mean()
        scale = self._scale(reconstruction, deception)
        total = reconstruction + divergence + fit.adversarial_share * scale * deception
        self._descend("optimizer", total, share * fit.rate, fit.max_gradient_norm)
        average_into(self._average, self.module, max(fit.averaging, 1 / (number + 1)))
        losses = {"loss": total, "reconstruction": reconstruction, "kl": divergence, "discriminator": adversary}
        return {name: loss.detach() for name, loss in losses.items()}

    def _reconstruction(self, images: Tensor, logits: Tensor, real: Tensor, found: Tensor) -> Tensor:
        """Compute the loss of reconstructions: of pixels, and of features relative to the originals' size."""
        pixels = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
        relative = ((found - real) ** 2).sum(dim=1) / (real**2).sum(dim=1).clamp(min=1e-6)
        return _PIXEL_SHARE * pixels.flatten(1).sum(dim=1).mean() + (1 - _PIXEL_SHARE) * _FEATURE_NATS * relative.mean()

    def _scale(self, reconstruction: Tensor, deception: Tensor) -> Tensor:
        """Compute the ratio of both losses' gradients at the decoder's last layer."""
        last = list(self._vae.decoder.parameters())[-2]  # the weight before the last bias
        ours, theirs = (
            torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, deception)
        )
        scale: Tensor = (ours / (theirs + 1e-6)).clamp(max=_MOST_SCALE).detach()
        return scale

    def _normals(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self._device)
