"""Training of a variational autoencoder with a discriminator, whose features compare pictures beside their pixels.

The network is first trained as a plain variational autoencoder, which is cheap. Then the encoder minimises divergence
and reconstruction; the decoder reconstruction and what the discriminator finds wrong with reconstructions and with
samples of the prior; the discriminator tells both from real pictures. The adversarial gradient is scaled to that of
the reconstruction where both reach the decoder, so no weight has to be found.

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

from handlers.models.standard_vae import StandardVae
from handlers.recipes.catalogue import Recipe, VaeGanFit
from handlers.recipes.data.load import Split
from handlers.recipes.tasks.task import Task, average_into

__all__ = ["Discriminator", "VaeGanTask"]

_SLOPE = 0.2
_MOST_SCALE = 1e4
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
    """A variational autoencoder and its discriminator; after the warm-up, one step of each."""

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Build both networks, as in `Task`."""
        super().__init__(recipe, rows, steps=steps, generator=generator, device=device)
        assert isinstance(recipe.fit, VaeGanFit)
        assert isinstance(self.module, StandardVae)
        fit, config, self._vae = recipe.fit, self.module.config, self.module
        self._fit = fit
        self._warm_steps = int(fit.warm_share * steps)
        self._discriminator = Discriminator(
            config.channels, config.height, config.width, fit.discriminator_features
        ).to(device)
        self._modules["discriminator"] = self._discriminator
        self._optimizers = {
            "optimizer": torch.optim.Adam(self.module.parameters(), betas=fit.betas),
            "discriminator_optimizer": torch.optim.Adam(self._discriminator.parameters(), betas=fit.betas),
        }

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take one step of the plain autoencoder, or later of the discriminator and of encoder and decoder."""
        images, _ = self._draw_batch(self._fit.batch)
        mu, logvar = self._vae.encode(images, None)
        z = mu + (0.5 * logvar).exp() * self._normals(mu.shape)
        logits = self._vae.logits(z)
        divergence = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
        if number < self._warm_steps:
            share = _cosine(number / self._warm_steps)
            reconstruction = _cross_entropy(logits, images)
            self._descend("optimizer", reconstruction + divergence, share * self._fit.rate)
            losses = {"loss": reconstruction + divergence, "reconstruction": reconstruction, "kl": divergence}
        else:
            share = _cosine((number - self._warm_steps) / (self._steps - self._warm_steps))
            again = self._vae.logits(torch.cat([z.detach(), self._normals(mu.shape)]))  # (2B, C, H, W), no encoder
            adversary = self._discriminate(images, torch.sigmoid(again.detach()), share)
            reconstruction, towards_images, towards_real = self._compare(images, again)
            # A loss with the gradients of the three parts, and the adversarial one for the decoder alone.
            pull = (logits * towards_images).sum() + self._fit.adversarial_share * (again * towards_real).sum()
            self._descend("optimizer", pull + divergence, share * self._fit.adversarial_rate)
            losses = {"loss": reconstruction + divergence, "reconstruction": reconstruction, "kl": divergence}
            losses["discriminator"] = adversary
        average_into(self._average, self.module, max(self._fit.averaging, 1 / (number + 1)))
        return {name: loss.detach() for name, loss in losses.items()}

    def _discriminate(self, images: Tensor, fakes: Tensor, share: float) -> Tensor:
        """Take a step of the discriminator with the hinge loss, and return the loss."""
        self._discriminator.requires_grad_(True)
        _, real_scores = self._discriminator(images)
        _, fake_scores = self._discriminator(fakes)
        adversary = nn.functional.relu(1 - real_scores).mean() + nn.functional.relu(1 + fake_scores).mean()
        self._descend("discriminator_optimizer", adversary, share * self._fit.discriminator_rate)
        self._discriminator.requires_grad_(False)  # it only passes gradients
        return adversary

    def _compare(self, images: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss of reconstructions and its gradient, and the scaled gradient towards the discriminator.

        Args:
            images: (B, C, H, W) in [0, 1].
            logits: (2B, C, H, W), of reconstructions and of samples of the prior.

        Returns:
            (), (B, C, H, W), and (2B, C, H, W) whose norm is that of the second.
        """
        leaf = logits.detach().requires_grad_()
        with torch.no_grad():
            real, _ = self._discriminator(images)
        features, scores = self._discriminator(torch.sigmoid(leaf))
        squares = ((features[: len(images)] - real) ** 2).sum(dim=1) / (real**2).sum(dim=1).clamp(min=1e-6)
        share = self._fit.pixel_share
        pixels = _cross_entropy(leaf[: len(images)], images)
        reconstruction = share * pixels + (1 - share) * _FEATURE_NATS * squares.mean()
        (ours,) = torch.autograd.grad(reconstruction, leaf, retain_graph=True)
        (theirs,) = torch.autograd.grad(-scores.mean(), leaf)
        scale = (ours.norm() / (theirs.norm() + 1e-6)).clamp(max=_MOST_SCALE)
        return reconstruction.detach(), ours[: len(images)], scale * theirs

    def _normals(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self._device)


def _cosine(done: float) -> float:
    """Compute half a cosine, from 1 at 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * done))


def _cross_entropy(logits: Tensor, images: Tensor) -> Tensor:
    """Compute the mean over pictures of the summed cross-entropy of their pixels, in nats."""
    losses = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
    return losses.flatten(1).sum(dim=1).mean()
