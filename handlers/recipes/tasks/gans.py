"""Training of the conditional GAN: alternating steps of the discriminator and the generator.

It adds established measures to algorithm 1: hinge losses, spectral norms in the discriminator, two learning rates, no
momentum, averaged weights for the generator that is kept, and, for small data, random shifts of real and generated
pictures.

Sources: Goodfellow et al., "Generative adversarial nets", 2014, algorithm 1; Miyato et al. 2018, section 4 (rates and
betas); Heusel et al., "GANs trained by a two time-scale update rule", 2017; Yazıcı et al., "The unusual effectiveness
of averaging in GAN training", 2019; Zhao et al., "Differentiable augmentation for data-efficient GAN training", 2020.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from handlers.models.gan import ConditionalGan, Discriminator, discriminator_loss, generator_loss
from handlers.recipes.tasks.augmentations import translate
from handlers.recipes.tasks.task import GanFit, average_into, pack_state, unpack_state

if TYPE_CHECKING:
    from handlers.recipes.catalogue import Recipe
    from handlers.recipes.data.load import Split

__all__ = ["GanTask", "rate_share"]

_BLACK = -1.0  # of pictures in [-1, 1]


def rate_share(number: int, steps: int, fit: GanFit) -> float:
    """Compute the share of the learning rates at a step, from 1 down to `last_share`."""
    falling = 1 - fit.constant_share
    remaining = 1 - number / steps
    return 1.0 if remaining >= falling else max(fit.last_share, remaining / falling)


class GanTask:
    """A generator and its discriminator."""

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Build both networks.

        Args:
            recipe: configuration and fit.
            rows: real pictures.
            steps: of the whole training.
            generator: of batches, latents, labels and shifts.
            device: where to train.
        """
        assert isinstance(recipe.fit, GanFit)
        self._fit, self._steps, self._random, self._device = recipe.fit, steps, generator, device
        self.module = ConditionalGan.from_config(recipe.config).to(device)
        self._average = copy.deepcopy(self.module).requires_grad_(False).eval()
        discriminator = Discriminator(self.module.config, recipe.fit.discriminator_features, recipe.fit.projection)
        self._discriminator = discriminator.to(device)
        self._images, self._labels = (2 * rows.images - 1).to(device), rows.labels.to(device)
        betas = recipe.fit.betas
        self._optimizers = {
            "generator_optimizer": torch.optim.Adam(self.module.parameters(), betas=betas),
            "discriminator_optimizer": torch.optim.Adam(self._discriminator.parameters(), betas=betas),
        }

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take one step of the discriminator, then one of the generator.

        Source: Goodfellow et al. 2014, algorithm 1 with k = 1.
        """
        share = rate_share(number, self._steps, self._fit)
        discriminator = self._discriminator_loss()
        self._descend("discriminator_optimizer", discriminator, share * self._fit.discriminator_rate)
        generator = self._generator_loss()
        self._descend("generator_optimizer", generator, share * self._fit.generator_rate)
        average_into(self._average, self.module, max(self._fit.averaging, 1 / (number + 1)))
        return {"generator": generator.detach(), "discriminator": discriminator.detach()}

    def _discriminator_loss(self) -> Tensor:
        self._discriminator.requires_grad_(True)
        rows = torch.randint(len(self._labels), (self._fit.batch,), generator=self._random).to(self._device)
        with torch.no_grad():
            fake, fake_labels = self._draw()
        # real and generated rows in one batch, (2B, C, H, W)
        images = self._shift(torch.cat([self._images[rows], fake]))
        real_scores, fake_scores = self._discriminator(images, torch.cat([self._labels[rows], fake_labels])).chunk(2)
        return discriminator_loss(real_scores, fake_scores)

    def _generator_loss(self) -> Tensor:
        self._discriminator.requires_grad_(False)  # it only passes gradients to the generator
        fake, labels = self._draw()
        return generator_loss(self._discriminator(self._shift(fake), labels))

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Draw a batch with uniformly distributed classes: (B, C, H, W) in [-1, 1], and (B,) int64."""
        config, batch = self.module.config, self._fit.batch
        z = torch.randn(batch, config.latent_dim, generator=self._random).to(self._device)
        labels = torch.randint(config.classes, (batch,), generator=self._random).to(self._device)
        images: Tensor = self.module(z, labels)
        return images, labels

    def _shift(self, images: Tensor) -> Tensor:
        return translate(images, self._fit.augment_shift, self._random, background=_BLACK)

    def _descend(self, name: str, loss: Tensor, rate: float) -> None:
        optimizer = self._optimizers[name]
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Return everything the next step depends on, as in `Task`."""
        return pack_state(self._modules(), self._optimizers, self._random)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state, as in `Task`."""
        unpack_state(state, self._modules(), self._optimizers, self._random)

    def averaged(self) -> nn.Module:
        """Return the generator with averaged weights, as in `Task`."""
        return self._average

    def _modules(self) -> dict[str, nn.Module]:
        return {"module": self.module, "average": self._average, "discriminator": self._discriminator}
