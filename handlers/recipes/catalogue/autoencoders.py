"""Recipes of autoencoders: linear, dense, deep, convolutional, denoising, and with two numbers for a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.cards.card import OperationName, Parameter, ParameterName
from handlers.recipes.catalogue.recipe import PLANE_DUPLICATES, TRUNCATION, AutoencoderFit, PrincipalFit, Recipe

__all__ = ["AUTOENCODER_RECIPES"]

_SHAPE = {"height": 28, "width": 28, "channels": 1}
_PARAMETERS: Mapping[ParameterName, Parameter] = {
    "truncation": TRUNCATION,
    "prior_fit": Parameter(
        min=0.0,
        max=1.0,
        default=1.0,
        description="0 draws codes of N(0, 1), 1 of the normal distribution fitted to the training rows' codes.",
    ),
}
_SHARED: dict[str, Any] = {
    "data": "mnist",
    "classes": (),
    "evaluator": "mnist-classifier",
}
_OPERATIONS: tuple[OperationName, ...] = ("SAMPLE", "ENCODE", "DECODE")

AUTOENCODER_RECIPES = (
    Recipe(
        name="mnist-pca",
        description="A linear autoencoder of MNIST with tied weights: the 32 principal components of its pixels.",
        intended_use=(
            "The baseline of every other autoencoder: no linear code of 32 numbers restores pixels with a smaller "
            "squared error. Reconstructions are blurred and have grey halos; most samples are no digits."
        ),
        family="linear-autoencoder",
        config={**_SHAPE, "latent_dim": 32},
        steps=1,
        fit=PrincipalFit(),
        operations=_OPERATIONS,
        parameters=_PARAMETERS,
        thresholds={"reconstruction-clear-share": 0.85},
        **_SHARED,
    ),
    Recipe(
        name="mnist-ae",
        description="An autoencoder of MNIST with one hidden layer of 32 numbers.",
        intended_use=(
            "Compression of digits to 32 numbers, and the lesson that a decoder is no generator: codes of N(0, 1) "
            "decode to hardly any digit, and codes of the fitted normal to few, as nothing shapes the space of codes."
        ),
        family="autoencoder",
        config={**_SHAPE, "latent_dim": 32, "hidden": []},
        steps=20_000,
        fit=AutoencoderFit(),
        operations=_OPERATIONS,
        parameters=_PARAMETERS,
        thresholds={"reconstruction-clear-share": 0.85},
        **_SHARED,
    ),
    Recipe(
        name="mnist-deep-ae",
        description="A deep autoencoder of MNIST: 784-256-128-32 and back.",
        intended_use=(
            "Compression of digits to 32 numbers with less error than mnist-pca and mnist-ae at the same length. Its "
            "decoder is no generator: most codes of N(0, 1) decode to no digit."
        ),
        family="autoencoder",
        config={**_SHAPE, "latent_dim": 32, "hidden": [256, 128]},
        steps=20_000,
        fit=AutoencoderFit(rate=1e-3),
        operations=_OPERATIONS,
        parameters=_PARAMETERS,
        thresholds={"reconstruction-clear-share": 0.85},
        **_SHARED,
    ),
    Recipe(
        name="mnist-conv-ae",
        description="A convolutional autoencoder of MNIST, with a code of three maps of 7×7 numbers.",
        intended_use=(
            "Restoring digits almost exactly from 147 numbers that keep their place in the picture. A code of so many "
            "free numbers does not tell which are likely: most samples are strokes without a digit."
        ),
        family="conv-autoencoder",
        config={**_SHAPE, "features": 12, "code_channels": 3},
        steps=3000,
        fit=AutoencoderFit(batch=32),
        operations=_OPERATIONS,
        parameters=_PARAMETERS,
        thresholds={"reconstruction-clear-share": 0.9},
        **_SHARED,
    ),
    Recipe(
        name="mnist-denoiser",
        description="A convolutional denoising autoencoder of MNIST, for any noise up to a standard deviation of 0.7.",
        intended_use=(
            "Removing pixel noise from digits: reconstruct a noisy picture. It learned normal noise clipped to [0, 1] "
            "and digits alone: other noise leaves traces, and of other pictures it keeps what looks like a stroke."
        ),
        family="conv-denoiser",
        config={**_SHAPE, "features": 24, "code_channels": 16},
        steps=4000,
        fit=AutoencoderFit(batch=64, noise=0.7),
        operations=("ENCODE", "DECODE"),
        parameters={},
        thresholds={"psnr-gain-0.3": 5.0},
        **_SHARED,
    ),
    Recipe(
        name="mnist-ae2",
        description="An autoencoder of MNIST with a code of two numbers.",
        intended_use=(
            "A map of digits in the plane, beside that of mnist-vae2: its codes form uneven arms, and much of the "
            "square around them decodes to fragments and mixtures of digits, since nothing pulls codes together."
        ),
        family="autoencoder",
        config={**_SHAPE, "latent_dim": 2, "hidden": [400, 200]},
        steps=20_000,
        fit=AutoencoderFit(rate=1e-3),
        operations=_OPERATIONS,
        parameters=_PARAMETERS,
        thresholds={"reconstruction-clear-share": 0.8, "duplicate-share": PLANE_DUPLICATES},
        **_SHARED,
    ),
)
