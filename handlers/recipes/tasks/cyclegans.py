"""Training of two generators without pairs: each must please a discriminator, and undo the other.

A generator can hide its input in the least levels of its output, which the other one then reads: the cycle closes, and
neither has learned the map. So noise is added to the picture in the middle of a cycle, larger than the rounding to 256
levels that served pictures pass. There is no identity loss, since the two kinds differ in polarity.

Sources: Zhu et al., "Unpaired image-to-image translation using cycle-consistent adversarial networks", 2017, sections
3 and 4; Chu, Zhmoginov, Sandler, "CycleGAN, a master of steganography", 2017; Shrivastava et al., "Learning from
simulated and unsupervised images through adversarial training", 2017, section 2.3 (the history).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from handlers.models.cyclegan import CycleGan, PatchDiscriminator, discriminator_loss, generator_loss
from handlers.recipes.catalogue import CycleGanFit, Recipe
from handlers.recipes.data.ink import split_unpaired
from handlers.recipes.data.load import Split
from handlers.recipes.tasks.gans import rate_share
from handlers.recipes.tasks.task import Task, average_into

__all__ = ["CycleGanTask", "History"]


class History(nn.Module):
    """The last pictures of a generator: some are shown to the discriminator again, so that it does not forget."""

    images: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def exchange(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Store every picture of (B, C, H, W); return each or, with probability ½, the one that it replaces."""
        returned = images.clone()
        places = torch.randint(len(self.images), (len(images),), generator=generator).tolist()
        again = (torch.rand(len(images), generator=generator) < 0.5).tolist()
        for row, (place, is_old) in enumerate(zip(places, again, strict=True)):
            if int(self.filled) < len(self.images):
                self.images[int(self.filled)] = images[row]
                self.filled += 1
            elif is_old:
                returned[row] = self.images[place]
                self.images[place] = images[row]
        return returned


class CycleGanTask(Task):
    """Two generators and their discriminators; a step of the former, then one of the latter."""

    def __init__(
        self, recipe: Recipe, rows: Split, *, steps: int, generator: torch.Generator, device: torch.device
    ) -> None:
        """Build all networks, as in `Task`."""
        super().__init__(recipe, rows, steps=steps, generator=generator, device=device)
        assert isinstance(recipe.fit, CycleGanFit)
        assert isinstance(self.module, CycleGan)
        fit, self._cycle = recipe.fit, self.module
        self._fit = fit
        self._kinds = [2 * images.to(device) - 1 for images in split_unpaired(rows)]
        shape = self._kinds[0].shape[1:]
        self._discriminators = nn.ModuleList(
            PatchDiscriminator(shape[0], fit.discriminator_features) for _ in self._kinds
        ).to(device)
        self._histories = nn.ModuleList(History(fit.history, shape) for _ in self._kinds).to(device)
        self._modules |= {"discriminators": self._discriminators, "histories": self._histories}
        self._optimizers = {
            "generator_optimizer": torch.optim.Adam(self._cycle.parameters(), betas=fit.betas),
            "discriminator_optimizer": torch.optim.Adam(self._discriminators.parameters(), betas=fit.betas),
        }

    def step(self, number: int) -> Mapping[str, Tensor]:
        """Take one step of the generators, then one of the discriminators.

        Source: Zhu et al. 2017, equation 3.
        """
        share = rate_share(number, self._steps, self._fit)
        real = [self._draw_kind(images) for images in self._kinds]
        to_ink, to_digit = self._cycle.generators
        fake_ink, fake_digit = to_ink(real[0]), to_digit(real[1])
        again = [to_digit(self._disturb(fake_ink)), to_ink(self._disturb(fake_digit))]
        cycle = torch.stack([(back - images).abs().mean() for back, images in zip(again, real, strict=True)]).sum()
        fakes = [fake_digit, fake_ink]
        self._discriminators.requires_grad_(False)  # they only pass gradients to the generators
        scores = [judge(fake) for judge, fake in zip(self._discriminators, fakes, strict=True)]
        adversarial = torch.stack([generator_loss(score) for score in scores]).sum()
        self._descend(
            "generator_optimizer", adversarial + self._fit.cycle_weight * cycle, share * self._fit.generator_rate
        )
        discriminator = self._discriminate(real, [fake.detach() for fake in fakes], share)
        average_into(self._average, self.module, max(self._fit.averaging, 1 / (number + 1)))
        return {"generator": adversarial.detach(), "cycle": cycle.detach(), "discriminator": discriminator}

    def _discriminate(self, real: list[Tensor], fakes: list[Tensor], share: float) -> Tensor:
        """Take a step of both discriminators, and return the sum of their losses."""
        self._discriminators.requires_grad_(True)
        losses = []
        for judge, history, images, fake in zip(self._discriminators, self._histories, real, fakes, strict=True):
            assert isinstance(history, History)
            scores, fake_scores = judge(torch.cat([images, history.exchange(fake, self._generator)])).chunk(2)
            losses.append(discriminator_loss(scores, fake_scores))
        loss = torch.stack(losses).sum()
        self._descend("discriminator_optimizer", loss, share * self._fit.discriminator_rate)
        return loss.detach()

    def _draw_kind(self, images: Tensor) -> Tensor:
        """Draw a batch of one kind with replacement, (B, C, H, W) in [-1, 1]."""
        rows = torch.randint(len(images), (self._fit.batch,), generator=self._generator)
        return images[rows.to(self._device)]

    def _disturb(self, images: Tensor) -> Tensor:
        """Add noise to the picture in the middle of a cycle."""
        noise = torch.randn(images.shape, generator=self._generator).to(self._device)
        return (images + self._fit.middle_noise * noise).clamp(-1, 1)
