"""Latents of training rows, and how far they spread: what cards and priors are fitted to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from handlers.family import Encoder

__all__ = ["encode_rows", "latent_spread"]

_CHUNK = 100


@torch.inference_mode()
def encode_rows(module: Encoder, images: Tensor, labels: Tensor | None = None) -> Tensor:
    """Compute the mean of each picture's latent, (N, latent_dim), of (N, C, H, W) in [0, 1] and (N,) labels."""
    parts = []
    for start in range(0, len(images), _CHUNK):
        own = None if labels is None else labels[start : start + _CHUNK]
        parts.append(module.encode(images[start : start + _CHUNK], own)[0])
    return torch.cat(parts)


def latent_spread(latents: Tensor) -> float:
    """Compute the root mean square of the standard deviations of latents, (N, latent_dim), to three digits."""
    spread = math.sqrt(float(latents.double().var(dim=0).mean()))
    return float(f"{spread:.3g}")
