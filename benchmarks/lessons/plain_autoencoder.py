"""Training of a plain autoencoder: the recipe of a conditional autoencoder without divergence and without noise.

Architecture, likelihood, rows, rates, steps and averaging are those of the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from handlers.models.vae import Autoencoder
from handlers.recipes.catalogue import Recipe
from handlers.recipes.data.load import Split, TrainingData
from handlers.recipes.reproducible import reproducible
from handlers.recipes.tasks.autoencoders import AutoencoderTask

__all__ = ["PlainTask", "codes_of", "train_plain"]

_CHUNK = 1000


class PlainTask(AutoencoderTask):
    """One batch a step; the loss is reconstruction alone, from the code's mean."""

    def losses(self, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Compute the reconstruction loss of a batch, in nats per picture."""
        assert isinstance(self.module, Autoencoder)
        no_noise = torch.zeros(len(images), self.module.config.latent_dim)
        return {"loss": self.module.elbo(images, labels, no_noise).reconstruction}


def train_plain(
    recipe: Recipe,
    data: TrainingData,
    *,
    steps: int,
    seed: int = 0,
    threads: int = 1,
    log: Callable[[str], None] = print,
) -> Autoencoder:
    """Train a plain autoencoder by the recipe of a conditional one.

    Returns:
        It, with averaged weights, in evaluation mode.
    """
    with reproducible(seed, threads=threads) as generator:
        task = PlainTask(recipe, data.train, steps=steps, generator=generator, device=torch.device("cpu"))
        for step in range(steps):
            losses = task.step(step)
            if (step + 1) % 500 == 0:
                log(f"plain autoencoder: step {step + 1} of {steps}, {float(losses['loss']):.1f} nats a picture")
        module = task.averaged()
    assert isinstance(module, Autoencoder)
    return module


@torch.inference_mode()
def codes_of(module: Autoencoder, rows: Split) -> Tensor:
    """The codes of pictures, (N, latent_dim)."""
    parts = zip(rows.images.split(_CHUNK), rows.labels.split(_CHUNK), strict=True)
    return torch.cat([module.encode(images, labels)[0] for images, labels in parts])
