"""Recipes of variational autoencoders with p(z) = N(0, I), one of them with a discriminator."""

from __future__ import annotations

from collections.abc import Mapping

from handlers.cards.card import Parameter, ParameterName, ScoreColumn
from handlers.recipes.catalogue.recipe import PLANE_DUPLICATES, TRUNCATION, Recipe, StandardVaeFit, VaeGanFit

__all__ = ["VARIATIONAL_RECIPES"]

_SHAPE = {"height": 28, "width": 28, "channels": 1}
_PARAMETERS: Mapping[ParameterName, Parameter] = {
    "truncation": TRUNCATION,
    "importance_samples": Parameter(
        min=1,
        max=100,
        default=1,
        description="Latents that a score is computed from: more make the weighted bound tighter, and slower.",
    ),
}
_LAW = "the 784 pixels, binarised at 0.5; natural logarithms, not divided by the number of pixels"
_ELBO, _WEIGHTED = f"Evidence lower bound of log p(x) of {_LAW}", f"Importance-weighted bound of log p(x) of {_LAW}"
_COLUMNS = (
    ScoreColumn(name="elbo", unit="nats", kind="LOWER_BOUND", description=_ELBO),
    ScoreColumn(name="iwae", unit="nats", kind="LOWER_BOUND", description=_WEIGHTED),
)

VARIATIONAL_RECIPES = (
    Recipe(
        name="mnist-vae",
        description="Handwritten digits of 28×28 pixels, by a variational autoencoder with a standard normal prior.",
        intended_use=(
            "Scores, latent codes and interpolations of MNIST's digits, and a plain baseline of unconditional samples. "
            "Some samples lie between two digits and read as neither; its likelihood is of black-and-white pixels and "
            "prefers simple pictures, so it does not tell digits from other pictures alone."
        ),
        family="standard-vae",
        config={**_SHAPE, "latent_dim": 32, "hidden": [400, 200]},
        data="mnist",
        steps=100_000,
        fit=StandardVaeFit(rate=1e-3, averaging=0.001),
        operations=("SAMPLE", "ENCODE", "DECODE", "SCORE"),
        classes=(),
        evaluator="mnist-classifier",
        parameters=_PARAMETERS,
        score_columns=_COLUMNS,
        finds_directions=True,
    ),
    Recipe(
        name="mnist-vae2",
        description="Handwritten digits of 28×28 pixels, by a variational autoencoder with two latents.",
        intended_use=(
            "A map of the latent plane: almost every point decodes to a digit, which a plain autoencoder's plane does "
            "not. Two numbers cannot hold a digit's style, so pictures are blurred."
        ),
        family="standard-vae",
        config={**_SHAPE, "latent_dim": 2, "hidden": [400, 200]},
        data="mnist",
        steps=25_000,
        fit=StandardVaeFit(rate=1e-3, averaging=0.001),
        operations=("SAMPLE", "ENCODE", "DECODE", "SCORE"),
        classes=(),
        evaluator="mnist-classifier",
        thresholds={"duplicate-share": PLANE_DUPLICATES},
        parameters=_PARAMETERS,
        score_columns=_COLUMNS,
    ),
    Recipe(
        name="mnist-background",
        description="A background model of MNIST: a variational autoencoder with one latent, which knows where ink is.",
        intended_use=(
            "The denominator of likelihood ratios: it knows how much ink pictures have and where, and nothing else of "
            "digits, so that log p(x) of mnist-vae less its own tells digits from simpler pictures. Samples are blurs."
        ),
        family="standard-vae",
        config={**_SHAPE, "latent_dim": 1, "hidden": [4]},
        data="mnist",
        steps=8000,
        fit=StandardVaeFit(rate=2e-3, averaging=0.002),
        operations=("SAMPLE", "ENCODE", "DECODE", "SCORE"),
        classes=(),
        evaluator="mnist-classifier",
        thresholds={"duplicate-share": 0.2},  # of one latent
        parameters=_PARAMETERS,
        score_columns=_COLUMNS,
    ),
    Recipe(
        name="mnist-vaegan",
        description="Handwritten digits of 28×28 pixels, by a variational autoencoder trained with a discriminator.",
        intended_use=(
            "Interpolations, variations and attributes of MNIST's digits with sharp strokes, and sharper samples than "
            "mnist-vae's. Sharpness is paid for: samples vary less, and reconstructions have one and a half times the "
            "squared error. Its likelihood means nothing, so it scores nothing."
        ),
        family="standard-vae",
        config={**_SHAPE, "latent_dim": 20, "hidden": [400, 200]},
        data="mnist",
        steps=32_000,
        fit=VaeGanFit(),
        operations=("SAMPLE", "ENCODE", "DECODE"),
        classes=(),
        evaluator="mnist-classifier",
        finds_directions=True,
    ),
)
