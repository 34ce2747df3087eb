"""The recipes of the autoencoders: maximise the evidence lower bound on the digits, with or without classes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from handlers.models.classifier import ConvClassifier
from handlers.models.vae import Autoencoder, ConditionalVae, Vae
from handlers.recipes.digits import CLASSES, Digits
from handlers.recipes.fitting import Fit, Probe, fit, reproducible
from handlers.recipes.measures import draw_images, label_accuracy

__all__ = ["CVAE_CONFIG", "GENERATOR_STEPS", "VAE_CONFIG", "train_vae"]

GENERATOR_STEPS = 5000
_SHAPE = {"height": 8, "width": 8, "channels": 1, "encoder_features": 16, "decoder_features": 24, "stages": 2}
VAE_CONFIG: Mapping[str, int] = MappingProxyType({**_SHAPE, "latent_dim": 8, "components": 50})
CVAE_CONFIG: Mapping[str, int] = MappingProxyType(
    {**_SHAPE, "encoder_features": 20, "latent_dim": 16, "classes": len(CLASSES)}
)

_PROBE_SEED, _PROBE_COUNT = 7, 1000


def train_vae(
    data: Digits, judge: ConvClassifier, *, conditional: bool, steps: int, seed: int, device: torch.device
) -> Autoencoder:
    """Train an autoencoder.

    Args:
        data: the data set; its test rows are not touched.
        judge: a trained classifier, on the CPU; labels samples for the progress bar.
        conditional: whether encoder and decoder are told the class.
        steps: optimiser steps.
        seed: of initial weights, batches and posterior noise.
        device: where to train.

    Returns:
        The trained module, on the CPU.
    """
    with reproducible(seed) as generator:
        module: Autoencoder = ConditionalVae.from_config(CVAE_CONFIG) if conditional else Vae.from_config(VAE_CONFIG)
        module = module.to(device)
        images, classes = data.train.images.to(device), data.train.labels.to(device)

        def loss(batch: Tensor) -> dict[str, Tensor]:
            epsilon = torch.randn(len(batch), module.config.latent_dim, generator=generator).to(device)
            rows = batch.to(device)
            elbo = module.elbo(images[rows], classes[rows] if conditional else None, epsilon)
            total = elbo.reconstruction + elbo.divergence
            return {"loss": total, "reconstruction": elbo.reconstruction, "kl": elbo.divergence}

        probe = _probe(judge, device) if conditional else None
        trained = fit(module, loss, len(classes), Fit(steps=steps), generator, probe)
        assert isinstance(trained, Autoencoder)
        return trained.cpu()


def _probe(judge: ConvClassifier, device: torch.device) -> Probe:
    judge = copy.deepcopy(judge).to(device)
    labels = torch.arange(_PROBE_COUNT, device=device) % len(CLASSES)

    def measure(average: nn.Module) -> dict[str, float]:
        assert isinstance(average, Autoencoder)
        images = draw_images(average, _PROBE_SEED, _PROBE_COUNT, labels, device)
        return {"label_accuracy": label_accuracy(judge, images, labels) / _PROBE_COUNT}

    return measure
