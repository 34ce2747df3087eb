"""The generator of this model: replace the class by your own, and keep everything it needs in this file.

A worker builds Generator(**config) with `family.config` of model.yaml, loads weights.safetensors strictly, calls eval()
and then `translate`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Generator"]


class Generator(nn.Module):
    """A placeholder that adds drawn colours to a picture, so that everything works before you replace it."""

    def __init__(
        self, latent_dim: int, height: int, width: int, channels: int, input_channels: int, classes: int = 0
    ) -> None:
        super().__init__()
        self.size = [height, width]
        self.shift = nn.Embedding(max(classes, 1), channels)
        self.read = nn.Linear(latent_dim, channels * 4 * 4)
        self.draw = nn.Conv2d(input_channels, channels, 3, padding=1)

    def translate(self, x: Tensor, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Draw a picture given each picture; a worker calls this method.

        Compute a row from its own picture and its own z, and never with torch.randn, so that a result is the same in
        every request. Optional arguments are temperature, top_k, top_p, guidance_scale and steps, if model.yaml lists
        them under `parameters`; noise, where noise(step) is the noise of a step in the shape of z; and check_deadline,
        a function to call between steps.

        Args:
            x: (B, input channels, input height, input width) in [-1, 1], the card's value_range.
            z: (B, latent_dim), N(0, 1), another one for each answer.
            label: (B,) int64, the direction, or the class to become, from 0 in the order of the card's classes.

        Returns:
            (B, channels, height, width) in [-1, 1].
        """
        sized = nn.functional.interpolate(x, self.size, mode="bilinear")
        small = self.read(z).reshape(len(z), -1, 4, 4)  # (B, 16 channels) -> (B, channels, 4, 4)
        drawn = nn.functional.interpolate(small, self.size, mode="bilinear")
        shift = self.shift(torch.zeros(len(x), dtype=torch.int64, device=x.device) if label is None else label)
        return torch.tanh(self.draw(sized) + drawn + shift[:, :, None, None])  # (B, channels) -> (B, channels, 1, 1)
