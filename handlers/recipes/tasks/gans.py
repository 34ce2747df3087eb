"""Training of the conditional GAN and the DCGAN: alternating steps of the discriminator and the generator.

It adds established measures to algorithm 1: hinge losses, spectral norms in the discriminator, two learning rates, no
momentum, averaged weights for the generator that is kept, and, for small data, random shifts of real and generated
pictures.

Sources: Goodfellow et al., "Generative adversarial nets", 2014, algorithm 1; Miyato et al. 2018, section 4 (rates and
betas); Heusel et al., "GANs trained by a two time-scale update rule", 2017; Yazıcı et al., "The unusual effectiveness
of averaging in GAN training", 2019; Zhao et al., "Differentiable augmentation for data-efficient GAN training", 2020.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from handlers.models.dcgan import Dcgan, DcganDiscriminator
from handlers.models.gan import ConditionalGan, Discriminator, discriminator_loss, generator_loss
from handlers.recipes.catalogue import CycleGanFit, GanFit, PointGanFit, Recipe
from handlers.recipes.data.augmentations import translate
from handlers.recipes.data.load import Split
from handlers.recipes.tasks.task import Task, average_into

__all__ = ["GanTask", "rate_share"]

_BLACK = -1.0  # of pictures in [-1, 1]


def rate_share(number: int, steps: int, fit: GanFit | CycleGanFit | PointGanFit) -> float:
    """Compute the share of the learning rates at a step, from 1 down to `last_share`."""
    falling = 1 - fit.constant_share
    remaining = 1 - number / steps
    return 1.0 if remaining >= falling else max(fit.last_share, remaining / falling)


class GanTask(Task):
    """A generator and its discriminator."""

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Build both networks, as in `Task`."""
        super().__init__(recipe, rows, steps=steps, generator=generator, device=device)
        assert isinstance(recipe.fit, GanFit)
        assert isinstance(self.module, ConditionalGan | Dcgan)
        fit, self._gan = recipe.fit, self.module
        self._fit, self._images = fit, 2 * self._images - 1
        self._discriminator = _build_discriminator(self._gan, fit).to(device)
        self._modules["discriminator"] = self._discriminator
        self._optimizers = {
            "generator_optimizer": torch.optim.Adam(self._gan.parameters(), betas=fit.betas),
            "discriminator_optimizer": torch.optim.Adam(self._discriminator.parameters(), betas=fit.betas),
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
        real, labels = self._draw_batch(self._fit.batch)
        with torch.no_grad():
            fake, fake_labels = self._draw()
        # real and generated rows in one batch, (2B, C, H, W)
        images = self._shift(torch.cat([real, fake]))
        real_scores, fake_scores = self._discriminator(images, torch.cat([labels, fake_labels])).chunk(2)
        return discriminator_loss(real_scores, fake_scores)

    def _generator_loss(self) -> Tensor:
        self._discriminator.requires_grad_(False)  # it only passes gradients to the generator
        fake, labels = self._draw()
        return generator_loss(self._discriminator(self._shift(fake), labels))

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Draw a batch with uniformly distributed classes: (B, C, H, W) in [-1, 1], and (B,) int64."""
        config, batch = self._gan.config, self._fit.batch
        z = torch.randn(batch, config.latent_dim, generator=self._generator).to(self._device)
        labels = torch.randint(config.classes, (batch,), generator=self._generator).to(self._device)
        images: Tensor = self._gan(z, labels)
        return images, labels

    def _shift(self, images: Tensor) -> Tensor:
        return translate(images, self._fit.augment_shift, self._generator, background=_BLACK)


def _build_discriminator(generator: ConditionalGan | Dcgan, fit: GanFit) -> nn.Module:
    if isinstance(generator, Dcgan):
        return DcganDiscriminator(generator.config, fit.discriminator_features)
    return Discriminator(generator.config, fit.discriminator_features, fit.projection)
