"""A table of pictures as a generator: z selects one of the pictures of the label.

A worker builds it as Generator(**config) and loads weights.safetensors, which is the table.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Generator"]


class Generator(nn.Module):
    """Pictures by class, each with the same probability in its class."""

    def __init__(self, rows: int, classes: int, height: int, width: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(rows, channels, height, width, dtype=torch.uint8))
        self.register_buffer("first", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("count", torch.ones(classes, dtype=torch.int64))

    def sample(self, z: Tensor, label: Tensor) -> Tensor:
        """Turn z, (B, 1), and labels, (B,), into pictures, (B, channels, height, width) in [0, 1]."""
        uniform = torch.special.ndtr(z[:, 0].double())  # of a normal number: uniform in [0, 1]
        count = self.count[label]
        place = torch.minimum((uniform * count).long(), count - 1)
        return self.pictures[self.first[label] + place].float() / 255
