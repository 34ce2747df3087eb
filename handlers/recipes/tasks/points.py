"""Training of models of points: an adversarial network with or without what keeps it from collapsing, and known laws.

Without the remedies, one discriminator step for each generator step and no gradient penalty, the generator tends to
chase the discriminator from mode to mode. The penalty keeps D flat at real points, and more discriminator steps keep
its judgement current.

Sources: Goodfellow et al., "Generative adversarial nets", 2014, algorithm 1 and section 4.1 (the loss); Mescheder,
Geiger, Nowozin, "Which training methods for GANs do actually converge?", 2018, section 4 (the penalty).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fount.address import Addresses
from handlers.family import Deadline, Draw, Noise, Scorer
from handlers.models.point_gan import PointDiscriminator, PointGan, gradient_penalty
from handlers.recipes.catalogue import PointGanFit, Recipe
from handlers.recipes.data.load import Split
from handlers.recipes.tasks.gans import rate_share
from handlers.recipes.tasks.task import Task, average_into

__all__ = ["KnownLawTask", "PointGanTask"]


class KnownLawTask(Task):
    """Nothing is trained: a step only computes the mean of -log p(x) of the training rows."""

    def averaged(self) -> nn.Module:
        """Return the network itself."""
        return self.module

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Compute the loss."""
        assert isinstance(self.module, Scorer)
        noise = Noise(addresses=Addresses.of_range(0, 0, len(self._images)), device=self._device)
        return {"loss": -self.module.score(self._images, None, noise, Draw(), Deadline()).mean()}


class PointGanTask(Task):
    """Some steps of the discriminator, then one of the generator."""

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Build both networks, as in `Task`."""
        super().__init__(recipe, rows, steps=steps, generator=generator, device=device)
        assert isinstance(recipe.fit, PointGanFit)
        assert isinstance(self.module, PointGan)
        fit, self._gan = recipe.fit, self.module
        self._fit = fit
        self._discriminator = PointDiscriminator(self._gan.config.length, fit.discriminator_hidden).to(device)
        self._modules["discriminator"] = self._discriminator
        self._optimizers = {
            "generator_optimizer": torch.optim.Adam(self._gan.parameters(), betas=fit.betas),
            "discriminator_optimizer": torch.optim.Adam(self._discriminator.parameters(), betas=fit.betas),
        }

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take the steps of both networks.

        Source: Goodfellow et al. 2014, algorithm 1.
        """
        fit = self._fit
        share = rate_share(number, self._steps, fit)
        for _ in range(fit.discriminator_steps):
            discriminator = self._discriminator_loss()
            self._descend("discriminator_optimizer", discriminator, share * fit.discriminator_rate)
        self._discriminator.requires_grad_(False)  # it only passes gradients to the generator
        generator = nn.functional.softplus(-self._discriminator(self._draw())).mean()
        self._descend("generator_optimizer", generator, share * fit.generator_rate)
        average_into(self._average, self.module, max(fit.averaging, 1 / (number + 1)))
        return {"generator": generator.detach(), "discriminator": discriminator.detach()}

    def _discriminator_loss(self) -> Tensor:
        self._discriminator.requires_grad_(True)
        real, _ = self._draw_batch(self._fit.batch)
        with torch.no_grad():
            fake = self._draw()
        loss = nn.functional.softplus(-self._discriminator(real)).mean()
        loss = loss + nn.functional.softplus(self._discriminator(fake)).mean()
        if self._fit.penalty:
            loss = loss + self._fit.penalty * gradient_penalty(self._discriminator, real)
        return loss

    def _draw(self) -> Tensor:
        """Draw a batch of generated points, (B, length)."""
        z = torch.randn(self._fit.batch, self._gan.config.latent_dim, generator=self._generator).to(self._device)
        points: Tensor = self._gan(z)
        return points
