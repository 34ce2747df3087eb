"""Training of models that are given a reduced picture: remove noise knowing it, or return the mean picture.

Each training row is reduced on the fly, so that every picture of a data set is its own answer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from handlers.models.image_diffusion import ImageDiffusion
from handlers.models.image_regressor import ImageRegressor
from handlers.recipes.catalogue import ImageDiffusionFit
from handlers.recipes.data.reductions import reduce_images
from handlers.recipes.tasks.task import SingleNetworkTask

__all__ = ["ImageDiffusionTask", "ImageRegressionTask"]

_INPUT, _OUTPUT, _CLASSES = "network.input.weight", "network.output", "network.of_class.weight"


class ImageDiffusionTask(SingleNetworkTask):
    """One batch a step, each row with its own noise level; an untrained network has a loss of 1 at each."""

    def losses(self, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Compute the squared error of the images without noise, weighted by its size for an untrained network."""
        fit, module = self._fit, self.module
        assert isinstance(module, ImageDiffusion)
        assert isinstance(fit, ImageDiffusionFit)
        x, rows = 2 * images - 1, len(images)
        enlarged = module.enlarge(2 * reduce_images(images, module.config.given) - 1)
        exponents = torch.randn(rows, generator=self._generator, dtype=torch.float64)
        sigma = (fit.log_sigma_mean + fit.log_sigma_spread * exponents).exp().to(self._device)
        noise = torch.randn(x.shape, generator=self._generator).to(self._device)
        scale = sigma.float().view(-1, 1, 1, 1)  # (B,) -> (B, 1, 1, 1)
        error = module.denoise(x + scale * noise, enlarged, sigma) - x
        data = module.config.diffusion.sigma_data
        weight = (scale**2 + data**2) / (scale * data) ** 2
        return {"loss": (weight * error**2).mean()}

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Start with the weights of an `edm-diffusion` of grey pictures and equal features, as it draws without class.

        The given picture's channels have no weight at first; several colours share what one grey had.
        """
        module = self.module
        assert isinstance(module, ImageDiffusion)
        state = module.state_dict()
        state.update({name: value for name, value in weights.items() if not name.startswith(_OUTPUT)})
        channels = module.config.diffusion.channels
        of_grey = weights[_INPUT].repeat_interleave(channels, dim=1) / channels  # (F, 3, 3, 3) -> (F, 3·C, 3, 3)
        ignored = of_grey.new_zeros(len(of_grey), module.config.given[0], *of_grey.shape[2:])
        state[_INPUT] = torch.cat([of_grey, ignored], dim=1)
        state[_CLASSES] = weights[_CLASSES][-1:]  # that of no class
        for part in ("weight", "bias"):
            grey = weights[f"{_OUTPUT}.{part}"]
            state[f"{_OUTPUT}.{part}"] = grey.repeat(channels, *[1] * (grey.ndim - 1))
        module.load_state_dict(state)
        self._average.load_state_dict(state)


class ImageRegressionTask(SingleNetworkTask):
    """One batch a step."""

    def losses(self, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Compute the mean squared error of the pixels."""
        module = self.module
        assert isinstance(module, ImageRegressor)
        return {"loss": nn.functional.mse_loss(module(reduce_images(images, module.config.given)), images)}
